"""Tab-separated tables in BIDS format: UTF-8, a header line, ``n/a`` for missing values."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from totalspineseg_bids.columns import MISSING
from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.files import read_text

logger = logging.getLogger(__name__)


def format_cell(value: object) -> str:
    r"""Format a value as a cell: one line, ``n/a`` for missing values.

    Examples
    --------
    >>> format_cell(None), format_cell("two\nlines")
    ('n/a', 'two lines')
    """
    text = " ".join(str(value).split()) if value is not None else ""
    return text or MISSING


def format_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    r"""Format a table; missing cells are ``n/a``.

    Examples
    --------
    >>> format_table(["index", "name"], [{"index": 1}])
    'index\tname\n1\tn/a\n'
    """
    lines = ["\t".join(columns)]
    lines += ["\t".join(format_cell(row.get(column)) for column in columns) for row in rows]
    return "\n".join(lines) + "\n"


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table as one mapping per row; one that is not UTF-8 is read with a warning, see `read_text`.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not text.
    """
    with io.StringIO(read_text(path), newline=None) as stream:
        return [
            {key: value or "" for key, value in row.items() if key}
            for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def read_optional_table(path: Path) -> list[dict[str, str]]:
    """Read a table; one that does not exist or cannot be read has no rows."""
    try:
        return read_table(path) if path.is_file() else []
    except (OSError, ValueError) as error:
        logger.warning("%s: cannot be read, left out (%s)", path, error)
        return []


def read_given_table(path: Path) -> list[dict[str, str]]:
    """Read a table that the user gave, without spaces around its cells; missing values are empty.

    Raises
    ------
    MissingInputError
        If it cannot be read.
    UsageError
        If it is empty, as after a failed download.
    """
    try:
        rows = read_table(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read ({error}); give a tab-separated table in UTF-8"
        raise MissingInputError(msg) from error
    if not rows and not read_text(path).strip():
        msg = f"{path}: is empty; give a tab-separated table with a header"
        raise UsageError(msg)
    return [{key: strip_missing(value) for key, value in row.items()} for row in rows]


def strip_missing(cell: str) -> str:
    """Return a cell without spaces around it; a missing value is empty.

    Examples
    --------
    >>> strip_missing(" C3 "), strip_missing("n/a")
    ('C3', '')
    """
    return "" if cell.strip() == MISSING else cell.strip()
