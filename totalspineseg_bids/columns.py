"""Columns of the tables that the package writes: the only source of their names, units and data dictionaries.

Source: BIDS specification 1.11, tabular files and their sidecars (``LongName``, ``Description``, ``Units``,
``Levels``, ``n/a`` for a missing value).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

#: How a missing value is written.
MISSING: Final = "n/a"
_UNIT_SUFFIX: Final = re.compile(r"-(?:mm[23]?|deg)$")


def short_name(name: str) -> str:
    """Remove the unit from the name of a column, where the data dictionary states it.

    Examples
    --------
    >>> short_name("canal-area-mm2"), short_name("height-index")
    ('canal-area', 'height-index')
    """
    return _UNIT_SUFFIX.sub("", name)


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table.

    Examples
    --------
    >>> height = TableColumn("height-mm", "Mean height of a disc", title="Mean height", unit="mm", kind="number")
    >>> height.format(8.456), height.format(None)
    ('8.46', 'n/a')
    >>> height.describe()
    {'LongName': 'Mean height', 'Description': 'Mean height of a disc', 'Units': 'mm'}
    """

    name: str
    """Header of the column; the name of a measure ends with its unit (``height-mm``)."""
    description: str = ""
    """Definition; a column without one has no entry in the data dictionary."""
    title: str = ""
    """Name for a person, ``LongName`` of the data dictionary."""
    unit: str = ""
    """Unit as BIDS writes it (``mm^2``, ``degree``); empty for none."""
    kind: Literal["number", "flag", "text"] = "text"
    """Type of the values."""
    decimals: int = 2
    """Digits that a number is written with after the decimal point."""
    significant: int = 0
    """Significant digits of a number of any magnitude, instead of decimals; 0 for none."""
    levels: Mapping[str, str] = field(default_factory=dict)
    """Meaning of each value of a categorical column."""

    @property
    def short_name(self) -> str:
        """Name without the unit."""
        return short_name(self.name)

    def describe(self) -> dict[str, Any]:
        """Return the entry of the column in a data dictionary."""
        entry = {"LongName": self.title, "Description": self.description, "Units": self.unit, "Levels": self.levels}
        return {key: value for key, value in entry.items() if value}

    def format(self, value: float | bool | str | None) -> str:
        """Write a value as the text of a cell."""
        if value is None:
            return MISSING
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str):
            return value
        # Adding zero to the rounded value turns -0.0 into 0.0.
        if self.significant:
            return f"{value + 0.0:.{self.significant}g}"
        return f"{round(float(value), self.decimals) + 0.0:.{self.decimals}f}"


def describe_columns(columns: Iterable[TableColumn]) -> dict[str, dict[str, Any]]:
    """Return the data dictionary of a table, with one entry for each column that has a description.

    Examples
    --------
    >>> describe_columns([TableColumn("index"), TableColumn("level", "Anatomical level")])
    {'level': {'Description': 'Anatomical level'}}
    """
    return {column.name: column.describe() for column in columns if column.description}


class TableRow:
    """A row of a table, with a field for each column: ``height_mm`` is the column ``height-mm``.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Size(TableRow):
    ...     height_mm: float | None = column("Height", "Height of a body", "mm")
    >>> Size(8.456).as_row(), columns_of(Size)["height-mm"].title
    ({'height-mm': '8.46'}, 'Height')
    >>> Size(8.456).as_values()
    {'height-mm': 8.46}
    """

    __slots__ = ()

    def as_row(self) -> dict[str, str]:
        """Return the columns of `columns_of` as text, ``n/a`` where there is no value."""
        columns = columns_of(type(self))
        return {name: entry.format(getattr(self, name.replace("-", "_"))) for name, entry in columns.items()}

    def as_values(self) -> dict[str, float | str]:
        """Return the columns that have a value, numbers rounded as in a table."""
        kinds = {name: entry.kind for name, entry in columns_of(type(self)).items()}
        cells = ((name, text) for name, text in self.as_row().items() if text != MISSING)
        return {name: float(text) if kinds[name] == "number" else text for name, text in cells}


def column(title: str, description: str, unit: str = "", *, default: object = None, **details: Any) -> Any:  # noqa: ANN401 - typed by the field
    """Return the field of a `TableRow` that is a column, by default of numbers; see `TableColumn`."""
    entry = TableColumn("", description, title, unit, **{"kind": "number", **details})
    return field(default=default, metadata={"column": entry})


def columns_of(record: type[Any]) -> dict[str, TableColumn]:
    """Return the columns of a record by name, in the order of its fields."""
    found = ((item.name.replace("_", "-"), item.metadata.get("column")) for item in fields(record))
    return {name: replace(entry, name=name) for name, entry in found if entry is not None}
