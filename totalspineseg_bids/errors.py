"""Errors that end an image or a run, each with the exit code of the BIDS execution specification."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the draft BIDS execution specification (and sysexits.h below 76)."""

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
    """A failure a user can act on: one line that names the file and says what to do.

    Parameters
    ----------
    message
        One line, complete in itself; it is printed as it is.
    """

    exit_code: ExitCode = ExitCode.UNSPECIFIED


class UsageError(SpineAppError):
    """The command line or configuration asks for something that does not exist."""

    exit_code = ExitCode.USAGE


class UnknownLevelError(SpineAppError):
    """The analysis level is neither ``participant`` nor ``group``."""

    exit_code = ExitCode.UNKNOWN_LEVEL


class DatasetError(SpineAppError):
    """The input folder is not a valid BIDS dataset."""

    exit_code = ExitCode.INVALID_DATASET


class NothingSelectedError(SpineAppError):
    """The dataset is fine but the filters leave no image."""

    exit_code = ExitCode.NOTHING_SELECTED


class ImageError(SpineAppError):
    """An image cannot be used: damaged, of the wrong shape, or without content."""

    exit_code = ExitCode.BAD_DATA


class MissingInputError(SpineAppError):
    """A file or folder that was named does not exist or cannot be read."""

    exit_code = ExitCode.NO_INPUT


class ModelError(SpineAppError):
    """A model folder or zip cannot be used: missing, damaged, or without a role that is needed."""

    exit_code = ExitCode.NO_INPUT


class OutputError(SpineAppError):
    """The output cannot be written."""

    exit_code = ExitCode.CANNOT_CREATE


class InterruptedRunError(SpineAppError):
    """The run was stopped from outside; a rerun goes on from what is complete."""

    exit_code = ExitCode.TRY_AGAIN
