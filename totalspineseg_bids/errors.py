"""Exceptions that end an image or a run, with the exit codes of the BIDS execution specification."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """Exit codes of the draft BIDS execution specification (16-18) and of ``sysexits.h`` (64-75)."""

    SUCCESS = 0
    UNSPECIFIED = 1
    INVALID_DATASET = 16
    UNKNOWN_LEVEL = 17
    NOTHING_SELECTED = 18
    USAGE = 64
    BAD_DATA = 65
    NO_INPUT = 66
    CANNOT_CREATE = 73
    IO_ERROR = 74
    TRY_AGAIN = 75


class SpineAppError(Exception):
    """A failure that a user can resolve.

    Parameters
    ----------
    message : str
        One line that names the file and says what to do; it is printed unchanged.

    Examples
    --------
    >>> DatasetError("data: no dataset_description.json; add one").exit_code
    <ExitCode.INVALID_DATASET: 16>
    """

    exit_code: ExitCode = ExitCode.UNSPECIFIED


class UsageError(SpineAppError):
    """The command line or the configuration is invalid."""

    exit_code = ExitCode.USAGE


class UnknownLevelError(SpineAppError):
    """The analysis level is neither ``participant`` nor ``group``."""

    exit_code = ExitCode.UNKNOWN_LEVEL


class DatasetError(SpineAppError):
    """The input folder is not a valid BIDS dataset."""

    exit_code = ExitCode.INVALID_DATASET


class NothingSelectedError(SpineAppError):
    """The dataset is valid, but the filters select no image."""

    exit_code = ExitCode.NOTHING_SELECTED


class ImageError(SpineAppError):
    """An image cannot be used: it is damaged, has the wrong shape or no content."""

    exit_code = ExitCode.BAD_DATA


class MissingInputError(SpineAppError):
    """An input file or folder does not exist or cannot be read."""

    exit_code = ExitCode.NO_INPUT


class ModelError(SpineAppError):
    """A model is missing, damaged, or lacks a required network."""

    exit_code = ExitCode.NO_INPUT


class OutputError(SpineAppError):
    """The output cannot be written."""

    exit_code = ExitCode.CANNOT_CREATE


class InterruptedRunError(SpineAppError):
    """The run was interrupted; a rerun skips complete images."""

    exit_code = ExitCode.TRY_AGAIN


@contextmanager
def writing(target: Path, advice: str) -> Iterator[None]:
    """Say what to do where writing in the block fails.

    Parameters
    ----------
    target : Path
        File or folder that is written.
    advice : str
        What a user can do about a failure.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    try:
        yield
    except OSError as error:
        msg = f"{target}: cannot be written ({error.strerror or error}); {advice}"
        raise OutputError(msg) from error
