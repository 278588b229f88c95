"""Curves of canal and cord area along the column, as a drawing of the page of a participant."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np

from totalspineseg_bids.columns import short_name
from totalspineseg_bids.measurement.levels import AREAS, PROFILE_COLUMNS
from totalspineseg_bids.report.environment import number, present, unit_symbol

_Row = Mapping[str, str]
_Line = list[tuple[float, float]]

_WIDTH, _HEIGHT = 1000.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 8.0, 10.0, 30.0
#: Fewer images have no band.
_MIN_IMAGES: Final = 3
_TICKS: Final = 4


def draw_profile(rows: Sequence[_Row], band: Sequence[_Row] = ()) -> dict[str, Any] | None:
    """Return paths, labels and ticks of the drawing; ``None`` without an area.

    Parameters
    ----------
    rows : sequence of mapping of str to str
        Rows of the table of areas along the column.
    band : sequence of mapping of str to str
        Rows of the table of a group (``level``, ``position``, ``measure``, ``images``, ``median``, ``p5``, ``p95``).
    """
    lines = {name: _runs([(number(r.get("distance-mm")), number(r.get(name))) for r in rows]) for name in AREAS}
    bands = {name: list(_band_runs(rows, band, short_name(name))) for name in AREAS}
    areas = [y for runs in lines.values() for run in runs for _, y in run]
    if not areas:
        return None
    areas += [high for runs in bands.values() for run in runs for _, _, _, high in run]
    places = [x for runs in lines.values() for run in runs for x, _ in run]
    first, span = min(places), max(max(places) - min(places), 1.0)
    step = _round_step(max(areas) / _TICKS)
    top = step * math.ceil(max(areas) / step)

    def x(place: float) -> float:
        return round(_LEFT + (place - first) / span * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(area: float) -> float:
        return round(_TOP + (1 - area / top) * (_HEIGHT - _TOP - _BOTTOM), 1)

    def path(run: _Line) -> str:
        return "M" + "L".join(f"{x(place)},{y(area)}" for place, area in run)

    curves = [
        {
            "kind": short_name(name).split("-", maxsplit=1)[0],
            "name": PROFILE_COLUMNS[name].title,
            "lines": [path(run) for run in lines[name]],
            "medians": [path([(p, middle) for p, _, middle, _ in run]) for run in bands[name]],
            "bands": [
                path([(p, high) for p, *_, high in run] + [(p, low) for p, low, *_ in run[::-1]]) + "Z"
                for run in bands[name]
            ],
        }
        for name in AREAS
        if lines[name]
    ]
    levels = [
        {
            "name": level,
            "x": x(inside[0][0]),
            "width": round(x(inside[-1][0]) - x(inside[0][0]), 1),
            "about": "; ".join([level, *_means([row for _, row in inside])]),
        }
        for level, points in groupby(_placed(rows), key=lambda item: present(item[1].get("level")))
        if level and (inside := [point for point in points if first <= point[0] <= first + span])
    ]
    ticks = [{"y": y(value), "text": f"{value:g}"} for value in np.arange(0.0, top + step / 2, step)]
    images = max((int(number(row.get("images")) or 0) for row in band), default=0) if any(bands.values()) else 0
    return {"curves": curves, "levels": levels, "ticks": ticks, "images": images, "box": (_WIDTH, _HEIGHT)}


def _placed(rows: Sequence[_Row]) -> Iterator[tuple[float, _Row]]:
    for row in rows:
        place = number(row.get("distance-mm"))
        if place is not None:
            yield place, row


def _means(rows: Sequence[_Row]) -> Iterator[str]:
    for name in AREAS:
        values = [value for row in rows if (value := number(row.get(name))) is not None]
        if values:
            column = PROFILE_COLUMNS[name]
            yield f"{column.title} {np.mean(values):.0f} {unit_symbol(column.unit)}"


def _runs(points: Sequence[tuple[float | None, float | None]]) -> list[_Line]:
    """Split a curve where a value is missing."""
    runs = []
    for there, run in groupby(points, key=lambda point: None not in point):
        if there:
            runs.append([(place, area) for place, area in run if place is not None and area is not None])
    return [run for run in runs if len(run) > 1]


def _band_runs(rows: Sequence[_Row], band: Sequence[_Row], measure: str) -> Iterator[list[tuple[float, ...]]]:
    """Place the band of a measure on the centreline of the image: (mm, low, median, high), without gaps."""
    known: dict[str, list[tuple[float, ...]]] = {}
    for row in band:
        values = [number(row.get(key)) for key in ("position", "p5", "median", "p95")]
        if row.get("measure") == measure and (number(row.get("images")) or 0) >= _MIN_IMAGES and None not in values:
            known.setdefault(present(row.get("level")), []).append(
                tuple(value for value in values if value is not None)
            )
    run: list[tuple[float, ...]] = []
    for level, points in groupby(_placed(rows), key=lambda item: present(item[1].get("level"))):
        inside = [(place, at) for place, row in points if (at := number(row.get("position"))) is not None]
        found = known.get(level, [])
        if len(inside) < 2 or not found:
            yield from [run] if len(run) > 1 else []
            run = []
            continue
        (start, low), (end, high) = inside[0], inside[-1]
        length = (end - start) / max(high - low, 1e-6)
        run += [(start + (at - low) * length, *areas) for at, *areas in found if low <= at <= high]
    yield from [run] if len(run) > 1 else []


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... that is not below a number."""
    power = 10.0 ** np.floor(np.log10(max(least, 1e-9)))
    return float(next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= least))
