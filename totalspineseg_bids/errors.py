"""Exceptions that end an image or a run, with the exit codes of the BIDS execution specification."""

from __future__ import annotations

from enum import IntEnum


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
