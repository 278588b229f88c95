"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def process_space() -> str:
    """Return what makes process ids unique here: the machine, and the container where that has ids of its own.

    Two containers on one machine may share its name and both have a process 7.
    """
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname()) or "host"
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # not Linux, or no /proc
        namespace = ""
    return host + "".join(re.findall(r"\d+", namespace))


_HOST = process_space()
_TEMPORARY = re.compile(r"^\..+\.(?P<host>[A-Za-z0-9]+)-(?P<pid>\d+)\.tmp$")
#: Temporary files of other machines are left alone until they are this old (seconds).
_STALE_AFTER = 24 * 3600.0


def temporary_name(path: Path) -> Path:
    """Return the hidden name in the same folder under which this process, and no other, writes a file."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when the block ends without an error.

    The bytes go to a hidden file in the same folder, are flushed to the disk, and the file is renamed over the
    target, so that a reader (or a run that was killed) never meets half a file. Permissions follow the umask.

    Parameters
    ----------
    path
        The file to write; its folder is made where absent.

    Yields
    ------
    BinaryIO
        The open temporary file.

    Raises
    ------
    OSError
        If the folder or the file cannot be written; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    # os.open rather than tempfile, whose files are 0600 whatever the umask says.
    descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    with atomic_writer(path) as stream:
        stream.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    write_bytes(path, content.encode("utf-8"))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def remove_stale(folder: Path, now: float) -> list[Path]:
    """Remove temporary files that a killed process left in a folder.

    A file of a process that still runs on this machine stays, and so does one of another machine that is younger
    than a day.

    Parameters
    ----------
    folder
        Folder to clean; absent is fine.
    now
        Time to compare with, seconds since the epoch.

    Returns
    -------
    list of Path
        What was removed.
    """
    removed: list[Path] = []
    if not folder.is_dir():
        return removed
    for path in sorted(folder.iterdir()):
        match = _TEMPORARY.match(path.name)
        if match is None:
            continue
        with suppress(OSError):
            pid = int(match["pid"])
            ours = match["host"] == _HOST
            stale = now - path.stat().st_mtime > _STALE_AFTER
            if stale or (ours and pid != os.getpid() and not _alive(pid)):
                path.unlink()
                removed.append(path)
    return removed
