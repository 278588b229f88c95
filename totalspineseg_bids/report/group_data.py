"""Rows of the image and volume tables, arranged by image, measure and level for the page of a group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from totalspineseg_bids.anatomy import DISC_LEVELS, VERTEBRA_LEVELS
from totalspineseg_bids.measurement.levels import ARBITRARY, COLUMNS, MEASURES, SIGNALS
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS
from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS
from totalspineseg_bids.report.environment import is_true, number, present, unit_symbol
from totalspineseg_bids.report.outliers import Outlier, Value

Row = Mapping[str, str]
#: Decimals on the page: enough for a plot, and the page stays small.
DECIMALS: Final = {
    **{name: column.decimals for name, column in COLUMNS.items() if not column.unit},
    "volume-mm3": 0,
    "canal-area-mm2": 0,
}
#: Measures that compare between images.
_COMPARABLE: Final = tuple(name for name in MEASURES if COLUMNS[name].unit != ARBITRARY)


class GroupPageData:
    """The two tables of the group level, arranged by image, measure and level."""

    def __init__(self, images: Sequence[Row], volumes: Iterable[Row]) -> None:
        self.images = images
        self.index = {_key(row): i for i, row in enumerate(images)}
        self.values: list[Value] = []
        self.confidence: dict[tuple[int, str], float] = {}
        self.partial: set[tuple[int, str]] = set()
        self.arch_only: set[tuple[int, str]] = set()
        self.scores: list[Value] = []
        self.partial_count = self.unnamed_count = 0
        self.reasons: Counter[str] = Counter()
        for row in volumes:
            self._add(row, _COMPARABLE)
        self.quality = [
            Value(index, name, "", value, present(row.get("suffix")))
            for index, row in enumerate(images)
            for name in QUALITY_COLUMNS
            if (value := number(row.get(name))) is not None
        ]
        found = {value.level for value in self.values} | {level for _, level in self.partial}
        for row in images:
            found |= set(split_list(row.get("levels")))
        self.vertebrae = [level for level in VERTEBRA_LEVELS if level in found]
        self.discs = [level for level in DISC_LEVELS if level in found]

    def _add(self, row: Row, measures: Sequence[str]) -> None:
        index, level = self.index.get(_key(row)), present(row.get("level"))
        if index is None:
            return
        if not level:
            # Cord and canal as a whole have no level either, but they are named.
            self.unnamed_count += present(row.get("structure")) in {"vertebra", "disc"}
            return
        confidence = number(row.get("confidence"))
        self.confidence[index, level] = 1.0 if confidence is None else confidence
        if is_true(row.get("partial")):
            self.partial.add((index, level))
            self.partial_count += 1
            if number(row.get("height-mm")) is not None:
                self.arch_only.add((index, level))
        self.reasons.update(reason.strip() for reason in present(row.get("measure-note")).split(";") if reason.strip())
        for measure in measures:
            value = number(row.get(measure))
            if value is None or (measure == "volume-mm3" and (index, level) in self.partial):
                continue
            contrast = present(self.images[index].get("suffix")) if measure in SIGNALS else ""
            self.values.append(Value(index, measure, level, value, contrast))
            score = number(row.get(f"z:{measure}"))
            if score is not None:
                self.scores.append(Value(index, measure, level, score))

    def image_columns(self) -> dict[str, list[str]]:
        """Return the columns of the image table that the plots use."""
        names = ("participant", "session", "image", "report", "snr")
        columns = {name: [present(row.get(name)) for row in self.images] for name in names}
        columns["report"] = [local_link(link) for link in columns["report"]]
        return columns

    @property
    def angles(self) -> dict[str, str]:
        """Map each measured alignment angle to its values in all images, separated by commas."""
        found = {}
        for entry in POSTURE_COLUMNS.values():
            values = [number(row.get(entry.short_name)) for row in self.images]
            if any(value is not None for value in values):
                found[entry.title] = ",".join("" if value is None else f"{value:.1f}" for value in values)
        return found

    def participant_names(self) -> set[str]:
        """Return the labels of all participants with an image."""
        return {row["participant"] for row in self.images}

    def seen(self) -> list[str]:
        """Encode the levels of each image as a string with one character per vertebra and disc.

        ``.`` absent, ``p`` cut off by the field of view, ``a`` posterior elements cut off, 0 to 9 confidence in tenths.
        """
        levels = (*self.vertebrae, *self.discs)
        strings = []
        for index, row in enumerate(self.images):
            listed = set(split_list(row.get("levels")))
            marks = []
            for level in levels:
                confidence = self.confidence.get((index, level), 1.0 if level in listed else None)
                if (index, level) in self.partial:
                    marks.append("a" if (index, level) in self.arch_only else "p")
                else:
                    marks.append("." if confidence is None else str(int(np.clip(10 * confidence, 0, 9))))
            strings.append("".join(marks))
        return strings

    def measure_list(self) -> list[dict[str, str]]:
        """Return key, name, unit and description of each measure with a value."""
        used = {value.measure for value in self.values}
        return [
            {
                "key": name,
                "name": entry.title,
                "unit": unit_symbol(entry.unit),
                "about": entry.description,
            }
            for name, entry in COLUMNS.items()
            if name in used
        ]

    def left_out(self) -> list[tuple[str, int]]:
        """Return the reasons for which values are excluded from the statistics, with counts."""
        found = [
            ("volumes of levels cut by the field of view", self.partial_count),
            ("components without a level", self.unnamed_count),
            *((f"levels without some measure: {reason}", n) for reason, n in self.reasons.most_common()),
        ]
        return [(reason, n) for reason, n in found if n]

    def series(self, values: Sequence[Value], decimals: Mapping[str, int]) -> dict[str, dict[str, str]]:
        """Map measure and level to the values of all images, separated by commas; empty if missing."""
        cells: dict[str, dict[str, list[str]]] = {}
        for value in values:
            column = cells.setdefault(value.measure, {}).setdefault(value.level, [""] * len(self.images))
            column[value.image] = f"{value.value:.{decimals.get(value.measure, 1)}f}"
        return {m: {level: ",".join(column) for level, column in levels.items()} for m, levels in cells.items()}

    def statistics(self) -> list[dict[str, Any]]:
        """Return counts, medians and quartiles of volume, mean height and canal area per level."""
        grouped: dict[tuple[str, str], list[float]] = {}
        for value in self.values:
            if value.measure in {"volume-mm3", "height-mm", "canal-area-mm2"}:
                grouped.setdefault((value.level, value.measure), []).append(value.value)
        left_out = Counter(level for _, level in self.partial)
        rows = []
        for level in (*self.vertebrae, *self.discs):
            shown = (("volume-mm3", 0), ("height-mm", 1), ("canal-area-mm2", 0))
            cells = [_quartiles(grouped.get((level, measure), []), decimals) for measure, decimals in shown]
            count = len(grouped.get((level, "volume-mm3"), []))
            rows.append({"level": level, "count": count, "partial": left_out[level], "cells": cells})
        return rows

    def explain(self, outlier: Outlier) -> dict[str, Any]:
        """Describe an outlier for the table of outliers."""
        value, row = outlier.value, self.images[outlier.value.image]
        entry = {**COLUMNS, **QUALITY_COLUMNS}[value.measure]
        unit = unit_symbol(entry.unit)
        decimals = 0 if value.measure == "volume-mm3" else 1 if entry.unit else min(2, entry.decimals)
        side = "above" if outlier.deviation > 0 else "below"
        return {
            "index": value.image,
            "participant": row["participant"],
            "session": present(row.get("session")),
            "image": present(row.get("image")),
            "report": local_link(present(row.get("report"))),
            "level": value.level or "image",
            "measure": entry.title,
            "value": f"{value.value:.{decimals}f} {unit}".strip(),
            "deviation": f"{outlier.deviation:+.1f}",
            "reason": f"{abs(outlier.deviation):.1f} robust SD {side} the median of"
            f" {outlier.median:.{decimals}f} {unit} ({outlier.count} images)",
        }


def _key(row: Row) -> tuple[str, str, str]:
    return row["participant"], present(row.get("session")), present(row.get("image"))


def split_list(text: str | None) -> list[str]:
    """Split a cell that lists values separated by commas or semicolons."""
    return [part.strip() for part in present(text).replace(";", ",").split(",") if part.strip()]


def local_link(link: str) -> str:
    """Drop links that leave the folder of the page, such as ``javascript:`` or another host."""
    return "" if ":" in link or link.startswith(("/", "\\")) else link


def _quartiles(values: Sequence[float], decimals: int) -> str:
    if not values:
        return "–"
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:,.{decimals}f} ({low:,.{decimals}f}–{high:,.{decimals}f})".replace(",", "\u202f")
