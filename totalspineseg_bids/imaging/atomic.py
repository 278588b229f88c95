"""Write files atomically: a file is complete or absent."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def host_name() -> str:
    """Return the name of the machine without characters that have a meaning in file names."""
    return re.sub(r"[^A-Za-z0-9]", "", socket.gethostname()) or "host"


def process_space() -> str:
    """Return an identifier of the process namespace: the machine, and the container if it numbers its own processes.

    Two containers on one machine may share its host name and both have a process 7.
    """
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:  # not Linux, or no /proc
        namespace = ""
    return host_name() + "".join(re.findall(r"\d+", namespace))


_HOST = process_space()
_TEMPORARY = re.compile(r"^\..+\.(?P<host>[A-Za-z0-9]+)-(?P<pid>\d+)\.tmp$")
#: Temporary files of other machines are left alone until they are this old (seconds).
_STALE_AFTER = 24 * 3600.0
#: Longest name of a file on common file systems.
_MAX_NAME_BYTES = 255


def temporary_name(path: Path) -> Path:
    """Return the hidden name in the same folder that only this process uses to write a file.

    A long name is shortened, so that a file whose own name is allowed can be written.
    """
    name, end = path.name, f".{_HOST}-{os.getpid()}.tmp"
    room = _MAX_NAME_BYTES - len(end) - 1
    if len(os.fsencode(name)) > room:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()
        name = digest[:room]
    return path.with_name(f".{name}{end}")


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that appears only when the block ends without error.

    The bytes go to a hidden file in the same folder, are flushed to the disk, and the file is renamed over the
    target. Readers, also after a run was killed, never see part of a file. Permissions follow the umask.

    Parameters
    ----------
    path : Path
        File to write; its folder is created if absent.

    Yields
    ------
    BinaryIO
        The open temporary file.

    Raises
    ------
    OSError
        If the folder or the file cannot be written; the temporary file is removed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_writer(Path(folder, "a.txt")) as stream:
    ...         _ = stream.write(b"text")
    ...     Path(folder, "a.txt").read_text()
    'text'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    # os.open instead of tempfile, whose files have mode 0600 regardless of the umask.
    try:
        descriptor = os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o666)
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

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_bytes(Path(folder, "new", "a.bin"), b"1234")
    ...     Path(folder, "new", "a.bin").stat().st_size
    4
    """
    with atomic_writer(path) as stream:
        stream.write(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically.

    Bytes of file names that the locale of the process cannot decode are written as they are if they are UTF-8, and as
    replacement characters otherwise.

    Raises
    ------
    OSError
        If it cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_text(Path(folder, "a.txt"), "Zürich")
    ...     Path(folder, "a.txt").read_text(encoding="utf-8")
    'Zürich'
    """
    write_bytes(path, content.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode("utf-8"))


def is_running(pid: int) -> bool:
    """Return whether a process of this machine runs, as far as can be known."""
    if os.name != "posix":  # os.kill would end the process there
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def remove_stale(folder: Path, now: float) -> list[Path]:
    """Remove temporary files that a killed process left in a folder.

    Files of processes that still run on this machine are kept, and so are files of other machines that are less than
    a day old.

    Parameters
    ----------
    folder : Path
        Folder to clean; may be absent.
    now : float
        Time to compare with, seconds since the epoch.

    Returns
    -------
    list of Path
        Removed files.
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
            if stale or (ours and pid != os.getpid() and not is_running(pid)):
                path.unlink()
                removed.append(path)
    return removed
