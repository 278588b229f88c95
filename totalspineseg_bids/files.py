"""Digests of files, the same for every part of the package."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO


def sha256_of(path: Path) -> str:
    """Compute the SHA-256 of a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "abc.txt"
    ...     _ = path.write_bytes(b"abc")
    ...     sha256_of(path)[:12]
    'ba7816bf8f01'
    """
    with path.open("rb") as stream:
        return sha256_of_stream(stream)


def sha256_of_stream(stream: BinaryIO) -> str:
    """Compute the SHA-256 of the rest of a binary stream, such as a member of a zip.

    Parameters
    ----------
    stream : BinaryIO
        Open for reading; it is read to its end in blocks of 1 MiB.

    Returns
    -------
    str
        64 hexadecimal digits.

    Examples
    --------
    >>> from io import BytesIO
    >>> sha256_of_stream(BytesIO(b"abc"))[:12]
    'ba7816bf8f01'
    """
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
