"""Tab-separated tables as BIDS writes them: UTF-8, ``n/a`` for what is missing, a header line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from totalspineseg_bids.columns import MISSING


def format_cell(value: object) -> str:
    """Return a cell: one line, ``n/a`` where there is nothing."""
    text = " ".join(str(value).split()) if value is not None else ""
    return text or MISSING


def format_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Return a table; a cell that a row does not have is ``n/a``."""
    lines = ["\t".join(columns)]
    lines += ["\t".join(format_cell(row.get(column)) for column in columns) for row in rows]
    return "\n".join(lines) + "\n"


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a table as one mapping a row.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    with io.StringIO(path.read_text(encoding="utf-8-sig")) as stream:
        return [
            {key: value or "" for key, value in row.items() if key}
            for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
