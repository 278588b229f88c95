"""Areas of canal and cord along the column, one value per millimetre of the centreline.

Planes and areas are those of the levels (`section`). To compare curves between persons, each point has its place
within a vertebral level, which extends from the middle of one disc to that of the next, as in the Spinal Cord Toolbox
(De Leener et al., NeuroImage 2017, 145:24).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from totalspineseg_bids.imaging.centerline import Centerline, Vector
from totalspineseg_bids.measurement.levels import ProfilePoint
from totalspineseg_bids.measurement.sampling import LocalAxes
from totalspineseg_bids.measurement.section import CanalMasks

#: Planes, 1 mm apart, over which an area is averaged; as many as at the levels.
_PLANES = 5


def measure_profile(
    line: Centerline,
    canal: CanalMasks,
    spans: Mapping[str, tuple[float, float]],
    is_fine: Callable[[float, LocalAxes], bool],
) -> list[ProfilePoint]:
    """Measure the areas along the centreline.

    Parameters
    ----------
    line : Centerline
        Canal centreline.
    canal : CanalMasks
        Canal and cord.
    spans : mapping of str to (float, float)
        First and last place of each vertebral level on the centreline, mm.
    is_fine : callable
        Whether voxels are small enough for an area, given its area (mm²) and the axes of its plane.

    Returns
    -------
    list of ProfilePoint
        Points 1 mm apart, from the first to the last with an area.
    """
    places = np.arange(0.0, line.length, 1.0)
    areas = np.full((len(places), 2), np.nan)
    for number, index in enumerate(np.searchsorted(line.s, places - 1e-6)):
        frame = LocalAxes.build(line.points[index], line.front[index], line.direction(int(index)))
        for kind, area in enumerate(canal.areas(frame)):
            areas[number, kind] = area if area is not None and is_fine(area, frame) else np.nan
    smooth = np.stack([_running_mean(column) for column in areas.T], axis=1)
    seen = np.flatnonzero(np.isfinite(smooth).any(axis=1))
    points = []
    for number in range(seen[0], seen[-1] + 1) if len(seen) else ():
        place = float(places[number])
        level = next((name for name, (start, end) in spans.items() if start <= place < end), None)
        start, end = spans[level] if level else (0.0, 1.0)
        canal_area, cord_area = (float(area) if np.isfinite(area) else None for area in smooth[number])
        points.append(
            ProfilePoint(place, level, (place - start) / (end - start) if level else None, canal_area, cord_area)
        )
    return points


def _running_mean(values: Vector) -> Vector:
    """Average over `_PLANES` neighbouring values; NaN where one is missing."""
    half = _PLANES // 2
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    mean: Vector = np.lib.stride_tricks.sliding_window_view(padded, _PLANES).mean(axis=1)
    return mean
