"""Tables of images and volumes, arranged by image, measure and level for the page of a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import DISC_LEVELS, VERTEBRA_LEVELS
from totalspineseg_bids.measurement.levels import ARBITRARY, COLUMNS, MEASURES, SIGNALS
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS
from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS
from totalspineseg_bids.report.environment import MISSING_CELLS, unit_symbol

#: Decimals on the page: enough for a plot, and the page stays small.
DECIMALS: Final = {
    **{name: column.decimals for name, column in COLUMNS.items() if not column.unit},
    "volume-mm3": 0,
    "canal-area-mm2": 0,
}
#: Measures that compare between images.
_COMPARABLE: Final = tuple(name for name in MEASURES if COLUMNS[name].unit != ARBITRARY)
#: Columns of the tables that the page uses, besides numbers of levels.
_OF_IMAGES: Final = (
    *("participant", "session", "image", "suffix", "status", "reason", "levels", "flags", "corrections", "model"),
    *("report", "thumbnail", "rating", "rating-note"),
    *(column.short_name for column in POSTURE_COLUMNS.values()),
    *QUALITY_COLUMNS,
)
_NO_VALUES: Final = np.zeros(0)
_OF_VOLUMES: Final = ("image", "structure", "level", "partial", "measure-note")


class GroupPageData:
    """The two tables of the group level, arranged by image, measure and level."""

    def __init__(self, images: pd.DataFrame, volumes: pd.DataFrame) -> None:
        table = clean_cells(images.reindex(columns=list(_OF_IMAGES)))
        self.images: list[dict[str, str]] = table.to_dict("records")  # type: ignore[assignment]
        rows = clean_cells(volumes.reindex(columns=list(_OF_VOLUMES)))
        at = pd.Index(table["image"]).get_indexer(pd.Index(rows["image"]))
        # Cord and canal as a whole have no level either, but they are named.
        self.unnamed_count = int(
            ((at >= 0) & (rows["level"] == "") & rows["structure"].isin(["vertebra", "disc"])).sum()
        )
        named = (at >= 0) & (rows["level"] != "").to_numpy()
        rows, volumes = rows[named].assign(number=at[named]), volumes[named]
        numbers = _numbers(volumes, ["confidence", *_COMPARABLE])
        cut = (rows["partial"] == "true").to_numpy()
        self.partial = Counter(rows["level"][cut])
        # A measured body is complete even if the posterior elements are cut off.
        arch_only = np.isfinite(numbers[:, 1 + _COMPARABLE.index("height-mm")])
        sure = np.clip(10 * np.nan_to_num(numbers[:, 0], nan=1.0), 0, 9).astype(int).astype(str)
        self.marks = rows[["number", "level"]].assign(mark=np.where(cut, np.where(arch_only, "a", "p"), sure))
        numbers[cut, 1 + _COMPARABLE.index("volume-mm3")] = np.nan
        self.values = _stack(rows, _COMPARABLE, numbers[:, 1:])
        depends = self.values["measure"].isin(SIGNALS).to_numpy()
        suffixes = table["suffix"].to_numpy(object)
        self.values["contrast"] = np.where(depends, suffixes[self.values["image"]], "")
        self.scores = _stack(rows, _COMPARABLE, _numbers(volumes, [f"z:{name}" for name in _COMPARABLE]))
        self.reasons = Counter(
            part.strip() for note in rows["measure-note"] for part in note.split(";") if part.strip()
        )
        whole = table.assign(number=range(len(table)), level="")
        self.quality = _stack(whole, QUALITY_COLUMNS, _numbers(table, QUALITY_COLUMNS))
        self.quality["contrast"] = suffixes[self.quality["image"]]
        self.listed = [split_list(text) for text in table["levels"]]
        found = {*self.values["level"], *self.partial, *(level for levels in self.listed for level in levels)}
        self.vertebrae = [level for level in VERTEBRA_LEVELS if level in found]
        self.discs = [level for level in DISC_LEVELS if level in found]

    def image_columns(self) -> dict[str, list[str]]:
        """Return the columns of the image table that the plots use."""
        names = ("participant", "session", "image", "report", "snr")
        columns = {name: [row[name] for row in self.images] for name in names}
        columns["report"] = [local_link(link) for link in columns["report"]]
        return columns

    @property
    def angles(self) -> dict[str, str]:
        """Map each measured alignment angle to its values in all images, separated by commas."""
        found = {}
        for entry in POSTURE_COLUMNS.values():
            values = _numbers(pd.DataFrame(self.images, columns=list(_OF_IMAGES)), [entry.short_name])[:, 0]
            if np.isfinite(values).any():
                found[entry.title] = ",".join("" if np.isnan(value) else f"{value:.1f}" for value in values)
        return found

    def participant_names(self) -> set[str]:
        """Return the labels of all participants with an image."""
        return {row["participant"] for row in self.images}

    def seen(self) -> list[str]:
        """Encode the levels of each image as a string with one character per vertebra and disc.

        ``.`` absent, ``p`` cut off by the field of view, ``a`` posterior elements cut off, 0 to 9 confidence in tenths.
        """
        levels = (*self.vertebrae, *self.discs)
        marks = [dict.fromkeys(levels, ".") | dict.fromkeys(set(listed) & set(levels), "9") for listed in self.listed]
        for number, level, mark in self.marks.itertuples(index=False):
            if level in levels:
                marks[number][level] = mark
        return ["".join(of_image.values()) for of_image in marks]

    def measure_list(self) -> list[dict[str, str]]:
        """Return key, name, unit and description of each measure with a value."""
        used = set(self.values["measure"])
        return [
            {"key": name, "name": entry.title, "unit": unit_symbol(entry.unit), "about": entry.description}
            for name, entry in COLUMNS.items()
            if name in used
        ]

    def left_out(self) -> list[tuple[str, int]]:
        """Return the reasons for which values are excluded from the statistics, with counts."""
        found = [
            ("volumes of levels cut by the field of view", self.partial.total()),
            ("components without a level", self.unnamed_count),
            *((f"levels without some measure: {reason}", n) for reason, n in self.reasons.most_common()),
        ]
        return [(reason, n) for reason, n in found if n]

    def series(self, values: pd.DataFrame, decimals: Mapping[str, int]) -> dict[str, dict[str, str]]:
        """Map measure and level to the values of all images, separated by commas; empty if missing."""
        found: dict[str, dict[str, str]] = {}
        for key, part in values.groupby(["measure", "level"], sort=False):
            measure, level = map(str, key)
            cells = [""] * len(self.images)
            for image, value in zip(part["image"], part["value"], strict=True):
                cells[image] = f"{value:.{decimals.get(measure, 1)}f}"
            found.setdefault(measure, {})[level] = ",".join(cells)
        return found

    def statistics(self) -> list[dict[str, Any]]:
        """Return counts, medians and quartiles of volume, mean height and canal area per level."""
        groups = {key: part.to_numpy() for key, part in self.values.groupby(["level", "measure"])["value"]}
        rows = []
        for level in (*self.vertebrae, *self.discs):
            shown = (("volume-mm3", 0), ("height-mm", 1), ("canal-area-mm2", 0))
            cells = [_quartiles(groups.get((level, measure), _NO_VALUES), decimals) for measure, decimals in shown]
            count = len(groups.get((level, "volume-mm3"), _NO_VALUES))
            rows.append({"level": level, "count": count, "partial": self.partial[level], "cells": cells})
        return rows

    def explain(self, outlier: Mapping[Hashable, Any]) -> dict[str, Any]:
        """Describe an outlier for the table of outliers."""
        row = self.images[outlier["image"]]
        entry = {**COLUMNS, **QUALITY_COLUMNS}[outlier["measure"]]
        unit = unit_symbol(entry.unit)
        decimals = 0 if outlier["measure"] == "volume-mm3" else 1 if entry.unit else min(2, entry.decimals)
        side = "above" if outlier["deviation"] > 0 else "below"
        return {
            **{name: row[name] for name in ("participant", "session", "image")},
            "index": outlier["image"],
            "report": local_link(row["report"]),
            "level": outlier["level"] or "image",
            "measure": entry.title,
            "value": f"{outlier['value']:.{decimals}f} {unit}".strip(),
            "deviation": f"{outlier['deviation']:+.1f}",
            "reason": f"{abs(outlier['deviation']):.1f} robust SD {side} the median of"
            f" {outlier['median']:.{decimals}f} {unit} ({outlier['count']} images)",
        }


def clean_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of text without spaces around its cells; missing ones are empty."""
    stripped: pd.DataFrame = table.astype(object).fillna("").apply(lambda cells: cells.str.strip())
    return stripped.replace(list(MISSING_CELLS), "")


def _numbers(table: pd.DataFrame, names: Collection[str]) -> NDArray[np.float64]:
    """Return columns as numbers, shape (rows, names); NaN where a cell holds none."""
    found = table.reindex(columns=list(names)).apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _stack(rows: pd.DataFrame, measures: Collection[str], numbers: NDArray[np.float64]) -> pd.DataFrame:
    """Arrange the numbers of rows and measures with one row per value that is there."""
    row, column = np.nonzero(np.isfinite(numbers))
    return pd.DataFrame(
        {
            "image": rows["number"].to_numpy()[row],
            "measure": np.array([*measures], object)[column],
            "level": rows["level"].to_numpy(object)[row],
            "value": numbers[row, column],
        }
    )


def split_list(text: str) -> list[str]:
    """Split a cell that lists values separated by commas or semicolons."""
    return [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]


def local_link(link: str) -> str:
    """Drop links that leave the folder of the page, such as ``javascript:`` or another host."""
    return "" if ":" in link or link.startswith(("/", "\\")) else link


def _quartiles(values: NDArray[np.float64], decimals: int) -> str:
    if len(values) == 0:
        return "–"
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:,.{decimals}f} ({low:,.{decimals}f}–{high:,.{decimals}f})".replace(",", "\u202f")
