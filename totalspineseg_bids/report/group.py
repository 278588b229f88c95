"""The page of a group, from the tables of the group level alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from totalspineseg_bids.anatomy import DISC_LEVELS, VERTEBRA_LEVELS
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.measurement.levels import COLUMNS, MEASURES
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS
from totalspineseg_bids.report.environment import (
    asset,
    environment,
    is_bundled,
    is_true,
    json_block,
    levels_range,
    number,
    present,
    unit_symbol,
)
from totalspineseg_bids.report.outliers import MIN_COUNT, THRESHOLD, Outlier, Value, find_outliers
from totalspineseg_bids.report.thumbnails import inline_thumbnails

_STATUSES: Final = ("labelled", "abstained", "no-spine", "failed")
_SHOWN_OUTLIERS: Final = 200
#: Decimals on the page: enough for a plot, and the page stays small.
_DECIMALS: Final = {"height-index": 3, "cord-canal-ratio": 3, "volume-mm3": 0, "canal-area-mm2": 0}
_SCORE_DECIMALS: Final = dict.fromkeys(COLUMNS, 2)
_PARTICIPANT_COLUMNS: Final = 24

Row = Mapping[str, str]


def write_group_report(
    path: Path,
    images: Sequence[Row],
    volumes: Sequence[Row],
    *,
    dataset_name: str,
    participants: Sequence[Row] = (),
    self_contained: bool = False,
) -> None:
    """Write the page of a group.

    Parameters
    ----------
    path
        The page; written atomically.
    images
        One row an image, as text: ``participant``, ``session``, ``image``, ``status``, ``reason``, ``levels`` and
        ``flags`` (comma separated), ``model``, ``report`` and ``thumbnail`` (paths relative to the page), and columns
        of ``measurement.POSTURE_COLUMNS``, with or without the unit in their name; ``rating`` and ``rating-note`` of an
        earlier page.
    volumes
        One row a structure of an image: ``participant``, ``session``, ``image``, ``structure``, ``level``,
        ``confidence`` and the columns of ``measurement.COLUMNS``; ``z:<column>`` for z-scores.
    dataset_name
        Title of the page.
    participants
        Rows of ``participants.tsv``, to compare by; empty where there is none.
    self_contained
        Put the thumbnails into the page instead of linking to them; many of them are made smaller for that.

    Notes
    -----
    Every cell may be missing, empty or ``n/a``. Values of levels that the field of view cuts are counted and left out
    of statistics, plots and outliers.

    Raises
    ------
    OSError
        If the page cannot be written.
    """
    table = _Tables(images, volumes)
    counts = Counter(present(row.get("status")) or "unknown" for row in images)
    data = {
        "dataset": dataset_name,
        "images": table.image_columns(),
        "vertebrae": table.vertebrae,
        "discs": table.discs,
        "alignment": list(table.angles),
        "seen": table.seen(),
        "measures": table.measure_list(),
        "values": {**table.series(table.values, _DECIMALS), "angle": table.angles},
        "scores": table.series(table.scores, _SCORE_DECIMALS),
        "participants": _participant_columns(participants, table.participant_names()),
        "ratings": _ratings(images),
    }
    pictures: Sequence[str] = [_relative(present(row.get("thumbnail"))) for row in images]
    if self_contained:
        pictures = inline_thumbnails(path.parent, pictures)
    outliers = find_outliers(table.values)
    text = (
        environment()
        .get_template("group.html.j2")
        .render(
            title=f"{dataset_name}: spine report",
            dataset_name=dataset_name,
            bundled=any(is_bundled({"model": row.get("model", "")}) for row in images),
            models=sorted({present(row.get("model")) for row in images} - {""}),
            tiles=_tiles(images, counts, table),
            images=[_image_row(index, row, pictures[index]) for index, row in enumerate(images)],
            statuses=sorted(counts, key=lambda s: (_STATUSES.index(s) if s in _STATUSES else len(_STATUSES), s)),
            outliers=[table.explain(outlier) for outlier in outliers[:_SHOWN_OUTLIERS]],
            outlier_count=len(outliers),
            threshold=THRESHOLD,
            min_count=MIN_COUNT,
            statistics=table.statistics(),
            left_out=table.left_out(),
            dictionary=[(n, {"Units": "", **COLUMNS[n].describe()}) for n in MEASURES],
            has_thumbnails=any(pictures),
            data=json_block(data),
            script=asset("group.js"),
        )
    )
    write_bytes(path, text.encode())


class _Tables:
    """The two tables, arranged by image, measure and level."""

    def __init__(self, images: Sequence[Row], volumes: Sequence[Row]) -> None:
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
            self._add(row, MEASURES)
        found = {value.level for value in self.values} | {level for _, level in self.partial}
        for row in images:
            found |= set(_split(row.get("levels")))
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
            self.values.append(Value(index, measure, level, value))
            score = number(row.get(f"z:{measure}"))
            if score is not None:
                self.scores.append(Value(index, measure, level, score))

    def image_columns(self) -> dict[str, list[str]]:
        """Columns of the image table that the plots need."""
        names = ("participant", "session", "image", "report")
        columns = {name: [present(row.get(name)) for row in self.images] for name in names}
        columns["participant"] = [_participant(row) for row in self.images]
        columns["report"] = [_relative(link) for link in columns["report"]]
        return columns

    @property
    def angles(self) -> dict[str, str]:
        """Angle of the column -> values of all images, comma separated; angles that no image has are left out."""
        found = {}
        for column, entry in POSTURE_COLUMNS.items():
            values = [number(row.get(column) or row.get(column.removesuffix("-deg"))) for row in self.images]
            if any(value is not None for value in values):
                found[entry.title] = ",".join("" if value is None else f"{value:.1f}" for value in values)
        return found

    def participant_names(self) -> set[str]:
        return {_participant(row) for row in self.images}

    def seen(self) -> list[str]:
        """One string an image, a character a vertebra and disc.

        ``.`` is absent, ``p`` cut by the field of view, ``a`` cut but for its body, 0 to 9 the confidence.
        """
        levels = (*self.vertebrae, *self.discs)
        strings = []
        for index, row in enumerate(self.images):
            listed = set(_split(row.get("levels")))
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
        """Return what statistics leave out, in words, and how many."""
        found = [
            ("volumes of levels cut by the field of view", self.partial_count),
            ("components without a level", self.unnamed_count),
            *((f"levels without some measure: {reason}", n) for reason, n in self.reasons.most_common()),
        ]
        return [(reason, n) for reason, n in found if n]

    def series(self, values: Sequence[Value], decimals: Mapping[str, int]) -> dict[str, dict[str, str]]:
        """Measure -> level -> values of all images, comma separated, empty where there is none."""
        cells: dict[str, dict[str, list[str]]] = {}
        for value in values:
            column = cells.setdefault(value.measure, {}).setdefault(value.level, [""] * len(self.images))
            column[value.image] = f"{value.value:.{decimals.get(value.measure, 1)}f}"
        return {m: {level: ",".join(column) for level, column in levels.items()} for m, levels in cells.items()}

    def statistics(self) -> list[dict[str, Any]]:
        """Per level: how many, how many left out, and median and quartiles of volume and mean height."""
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
        """Put an outlier into words."""
        value, row = outlier.value, self.images[outlier.value.image]
        entry = COLUMNS[value.measure]
        unit = unit_symbol(entry.unit)
        decimals = {"height-index": 2, "cord-canal-ratio": 2, "volume-mm3": 0}.get(value.measure, 1)
        side = "above" if outlier.deviation > 0 else "below"
        return {
            "index": value.image,
            "participant": _participant(row),
            "session": present(row.get("session")),
            "image": present(row.get("image")),
            "report": _relative(present(row.get("report"))),
            "level": value.level,
            "measure": entry.title,
            "value": f"{value.value:.{decimals}f} {unit}".strip(),
            "deviation": f"{outlier.deviation:+.1f}",
            "reason": f"{abs(outlier.deviation):.1f} robust SD {side} the median of"
            f" {outlier.median:.{decimals}f} {unit} ({outlier.count} images)",
        }


def _key(row: Row) -> tuple[str, str, str]:
    return _participant(row), present(row.get("session")), present(row.get("image"))


def _participant(row: Row) -> str:
    return present(row.get("participant")) or present(row.get("participant_id"))


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in present(text).replace(";", ",").split(",") if part.strip()]


def _relative(link: str) -> str:
    """Keep links that stay beside the page; a table could carry anything (``javascript:``, another host)."""
    return "" if ":" in link or link.startswith(("/", "\\")) else link


def _quartiles(values: Sequence[float], decimals: int) -> str:
    if not values:
        return "–"
    low, middle, high = np.percentile(values, (25, 50, 75))
    return f"{middle:,.{decimals}f} ({low:,.{decimals}f}–{high:,.{decimals}f})".replace(",", "\u202f")


def _tiles(images: Sequence[Row], counts: Counter[str], table: _Tables) -> list[dict[str, Any]]:
    tiles: list[dict[str, Any]] = [
        {"value": len(table.participant_names()), "name": "participants", "status": ""},
        {"value": len(images), "name": "images", "status": ""},
    ]
    shown = [status for status in (*_STATUSES, *sorted(set(counts) - set(_STATUSES))) if counts[status]]
    tiles += [{"value": counts[status], "name": status, "status": status} for status in shown]
    tiles.append({"value": sum(bool(_split(row.get("flags"))) for row in images), "name": "with flags", "status": ""})
    return tiles


def _ratings(images: Sequence[Row]) -> dict[str, dict[str, str]]:
    rated = (
        (present(row.get("image")), row)
        for row in images
        if present(row.get("rating")) or present(row.get("rating-note"))
    )
    return {
        image: {"rating": present(row.get("rating")), "note": present(row.get("rating-note"))} for image, row in rated
    }


def _image_row(index: int, row: Row, picture: str) -> dict[str, Any]:
    levels = _split(row.get("levels"))
    return {
        "index": index,
        "participant": _participant(row),
        "session": present(row.get("session")),
        "image": present(row.get("image")),
        "status": present(row.get("status")) or "unknown",
        "reason": present(row.get("reason")),
        "levels": levels_range(levels) or ", ".join(levels[:3]),
        "count": len(levels),
        "flags": _split(row.get("flags")),
        "report": _relative(present(row.get("report"))),
        "thumbnail": picture,
    }


def _participant_columns(participants: Sequence[Row], names: set[str]) -> dict[str, Any]:
    """Arrange participants.tsv as name -> values, for the columns that can be compared by."""
    rows = {present(row.get("participant_id")): row for row in participants}
    rows = {**rows, **{f"sub-{name}": row for name, row in rows.items() if name and not name.startswith("sub-")}}
    columns = list(dict.fromkeys(column for row in participants for column in row if column != "participant_id"))
    kept = [c for c in columns if len({present(row.get(c)) for row in participants} - {""}) > 1][:_PARTICIPANT_COLUMNS]
    found = {}
    for name in sorted(names):
        row = rows.get(name) or rows.get(f"sub-{name}")
        if row is not None:
            found[name] = [present(row.get(column)) for column in kept]
    return {"columns": kept, "rows": found}
