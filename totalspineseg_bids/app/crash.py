"""Records of failed images in ``logs/``, removed when the image is completed, and marks of those being processed.

The kernel kills a process that exceeds the memory before it can record a failure. An image with a mark but without a
living process is processed last, so that a later run completes the other images first.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from totalspineseg_bids.bids.names import LOGS, DerivativeNames, SourceImage, is_source_name
from totalspineseg_bids.bids.sidecar import format_json
from totalspineseg_bids.errors import ExitCode, SpineAppError
from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.atomic import is_running, write_text

FAILED = "failed"


#: Errors of a place in the output where no file can be made, such as a folder that another user owns.
_NOT_WRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR})


@dataclass(frozen=True, slots=True)
class Failure:
    """Failure of one image."""

    source: SourceImage
    """Image that failed."""
    reason: str
    """Reason, one line."""
    exit_code: int
    """Exit code of its error."""


def describe_failure(source: SourceImage, error: Exception) -> Failure:
    """Describe the failure that an error causes for an image."""
    if isinstance(error, SpineAppError):
        return Failure(source, str(error), int(error.exit_code))
    if isinstance(error, MemoryError):
        reason = f"{source.path}: not enough memory; use a machine with more of it"
        return Failure(source, reason, int(ExitCode.UNSPECIFIED))
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        reason = f"{source.path}: the names of its results are too long for the file system; shorten its labels"
        return Failure(source, reason, int(ExitCode.BAD_DATA))
    if isinstance(error, OSError) and error.errno in _NOT_WRITABLE and error.filename:
        reason = f"{source.path}: {error.filename}: cannot be written ({error.strerror}); change what is in its place"
        return Failure(source, reason, int(ExitCode.CANNOT_CREATE))
    text = " ".join(str(error).split()) or "no message"
    return Failure(source, f"{source.path}: unexpected {type(error).__name__}: {text}", int(ExitCode.UNSPECIFIED))


def write_crash(output: Path, failure: Failure, error: Exception) -> Path:
    """Write the record of a failure, with the traceback, and return its path.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    path = output / DerivativeNames.of(failure.source).crash
    content = {
        "Source": failure.source.relative,
        "Status": FAILED,
        "Reason": failure.reason,
        "ExitCode": failure.exit_code,
        "Traceback": "".join(traceback.format_exception(error)).splitlines(),
    }
    write_text(path, format_json(content))
    return path


def clear_crash(output: Path, source: SourceImage) -> None:
    """Remove the record of an earlier failure of an image."""
    (output / DerivativeNames.of(source).crash).unlink(missing_ok=True)


def read_crashes(output: Path, participants: Collection[str] = ()) -> dict[str, Failure]:
    """Return the recorded failures, of all or the given participants, by the path of the image below the dataset."""
    failures: dict[str, Failure] = {}
    patterns = [f"crash-sub-{label}_*.json" for label in participants] or ["crash-sub-*.json"]
    for path in sorted(path for pattern in patterns for path in (output / LOGS).glob(pattern)):
        content = read_json(path) or {}
        relative = content.get("Source")
        if isinstance(relative, str) and is_source_name(relative):
            code = content.get("ExitCode")
            reason = str(content.get("Reason") or "unknown")
            failures[relative] = Failure(
                SourceImage(relative, Path(relative)), reason, code if isinstance(code, int) else 1
            )
    return failures


logger = logging.getLogger(__name__)

KILLED = "a run was killed while it processed this image, often for lack of memory; use a machine with more of it"


@contextmanager
def attempt(output: Path, source: SourceImage) -> Iterator[None]:
    """Mark an image as being processed; the mark remains only if the process is killed."""
    # An output that cannot be written is reported when the derivatives are.
    content = {"Source": source.relative, "Host": socket.gethostname(), "Pid": os.getpid()}
    with suppress(OSError):
        write_text(output / DerivativeNames.of(source).mark, format_json(content))
    try:
        yield
    finally:
        clear_mark(output, source)


def clear_mark(output: Path, source: SourceImage) -> None:
    """Remove the mark of an image."""
    with suppress(OSError):
        (output / DerivativeNames.of(source).mark).unlink()


def was_killed(output: Path, source: SourceImage) -> bool:
    """Return whether a run was killed while it processed an image, and record that as its failure.

    A mark of another computer may belong to a run that goes on, so that it is no failure yet.
    """
    mark = read_json(output / DerivativeNames.of(source).mark)
    if mark is None:
        return False
    if mark.get("Host") == socket.gethostname():
        pid = mark.get("Pid")
        if isinstance(pid, int) and pid > 0 and pid != os.getpid() and is_running(pid):
            return False
        error = SpineAppError(f"{source.path}: {KILLED}")
        with suppress(OSError):
            write_crash(output, Failure(source, str(error), int(ExitCode.UNSPECIFIED)), error)
    logger.warning("%s: an earlier run ended while it processed this image; it is processed last", source.name)
    return True
