"""Digests and text of files, the same for every part of the package."""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import logging
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import MissingInputError, UsageError

logger = logging.getLogger(__name__)

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


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
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def refuse_other_dataset(folder: Path, kind: str, program: str, what: str) -> None:
    """Refuse a folder to write to that holds a dataset which the program may not replace.

    Parameters
    ----------
    folder : Path
        Folder to write to.
    kind : str
        ``DatasetType`` of what is written.
    program : str
        Name of the program in ``GeneratedBy``.
    what : str
        What would be replaced, for the message.

    Raises
    ------
    UsageError
        If the folder holds another dataset.

    Examples
    --------
    >>> refuse_other_dataset(Path("absent"), "raw", "totalspineseg_bids", "files")
    """
    description = read_json(folder / "dataset_description.json") or {}
    entries = description.get("GeneratedBy")
    makers = (
        [str(entry.get("Name")) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
    found = description.get("DatasetType", "derivative" if makers else "raw")
    unclaimed = kind == "derivative" and not makers
    if not description or (found == kind and (program in makers or unclaimed)):
        return
    other = f"a {found} dataset" + (f" made by {makers[0]}" if makers else "")
    msg = f"{folder}: is {other}, whose {what} would be replaced; give another folder for the output"
    raise UsageError(msg)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; ``None`` if the file has none that can be read.

    Examples
    --------
    >>> from pathlib import Path
    >>> read_json(Path("absent.json")) is None
    True
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def parse_file(path: Path, parse: Callable[[str], Any], syntax: str) -> Any:  # noqa: ANN401 - as the parser returns it
    """Parse a UTF-8 file that a user gave.

    Parameters
    ----------
    path : Path
        The file.
    parse : callable
        Parser of its text; raises a ValueError for text that is not valid.
    syntax : str
        Name of the syntax, such as ``"JSON"``.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    UsageError
        If it is not valid.

    Examples
    --------
    >>> from pathlib import Path
    >>> parse_file(Path("absent.json"), json.loads, "JSON")
    Traceback (most recent call last):
    totalspineseg_bids.errors.MissingInputError: absent.json: cannot be read (No such file or directory)
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror})"
        raise MissingInputError(msg) from error
    except ValueError as error:
        msg = f"{path}: not valid {syntax} ({error})"
        raise UsageError(msg) from error


def decode_text(content: bytes) -> tuple[str, str]:
    """Decode text that should be UTF-8 but may come from another program, such as a spreadsheet.

    Parameters
    ----------
    content : bytes
        UTF-8, UTF-16 with or without a byte-order mark, or Windows 1252 (everything else).

    Returns
    -------
    text : str
        The text, without byte-order mark.
    encoding : str
        Its encoding.

    Raises
    ------
    ValueError
        If it is not text.

    Examples
    --------
    >>> decode_text("Zürich".encode("cp1252"))
    ('Zürich', 'cp1252')
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not encoding and b"\0" in content[:200]:
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    if not encoding:
        try:
            return content.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            # Windows 1252 leaves five bytes undefined, which must not make the rest unreadable.
            return content.decode("cp1252", errors="replace"), "cp1252"
    return content.decode(encoding), encoding


def read_text(path: Path) -> str:
    """Read a text file in one of the encodings of `decode_text`; if it is not UTF-8, a warning is logged.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not text.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "table.tsv"
    ...     _ = path.write_bytes("Zürich".encode("utf-16"))
    ...     read_text(path)
    'Zürich'
    """
    text, encoding = decode_text(path.read_bytes())
    if not encoding.startswith("utf-8"):
        logger.warning("%s: is not UTF-8, read as %s; save it as UTF-8", path, encoding)
    return text


def installed_version(package: str) -> str | None:
    """Return the version of a package without importing it; ``None`` if it is not installed.

    Examples
    --------
    >>> installed_version("no-such-package") is None
    True
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def escape_unencodable_output() -> None:
    """Let standard output and error write characters that the encoding of the terminal lacks as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_reason(program: str, message: str) -> None:
    """Write the reason of a failure to standard error, as one line."""
    sys.stderr.write(f"{program}: {' '.join(message.split())}\n")
    sys.stderr.flush()
