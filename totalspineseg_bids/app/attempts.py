"""Marks of the images that are being processed, by which a later run finds those at which a run was killed.

The kernel kills a process that needs more memory than there is, without a chance to record it. An image whose mark has
no living process is processed last, so that it cannot keep later runs from the images after it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from totalspineseg_bids.app.crash import Failure, write_crash
from totalspineseg_bids.bids.names import DerivativeNames, SourceImage
from totalspineseg_bids.bids.sidecar import format_json
from totalspineseg_bids.errors import ExitCode, SpineAppError
from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.atomic import write_text

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
        if _is_alive(mark.get("Pid")):
            return False
        error = SpineAppError(f"{source.path}: {KILLED}")
        with suppress(OSError):
            write_crash(output, Failure(source, str(error), int(ExitCode.UNSPECIFIED)), error)
    logger.warning("%s: an earlier run ended while it processed this image; it is processed last", source.name)
    return True


def _is_alive(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0 or pid == os.getpid():
        return False
    if os.name != "posix":  # os.kill would end the process there
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True
