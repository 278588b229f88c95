"""Shape of a body between two surfaces: a vertebral body or a disc."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.imaging.centerline import Vector, unit
from totalspineseg_bids.measurement.sampling import LocalAxes, Mask, Samples, at_middle, outer_edges, run_edges

#: A fitted axis that deviates more than this from the direction of the centreline is rejected.
_MAX_TILT_DEG = 40.0
_MARGIN_MM = 2.0
_REACH_MM = (45.0, 70.0, 45.0)
_MIN_SAMPLES = 8
#: Lines within this share of the width on either side of the middle define where the middle line ends.
_MIDDLE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class BodyShape:
    """Measures of a body with an upper and a lower surface, in its own frame."""

    frame: LocalAxes
    """Axes with the origin in the middle of the body; ``up`` is the mean normal of both surfaces."""
    height: float
    """Mean height, mm. This and the other extents are defined in `levels.COLUMNS`; NaN where one cannot be
    measured."""
    anterior: float
    """Anterior height, mm."""
    middle: float
    """Middle height, mm."""
    posterior: float
    """Posterior height, mm."""
    depth: float
    """Anteroposterior extent, mm."""
    width: float
    """Left-right extent, mm; NaN if the image cuts the sides."""
    top_normal: Vector
    """Unit normal (cranial) of the plane fitted to the upper surface, shape (3,)."""
    bottom_normal: Vector
    """Unit normal (cranial) of the plane fitted to the lower surface, shape (3,)."""
    back_top: Vector
    """Point of the posterior wall near the upper surface, shape (3,), mm."""
    back_bottom: Vector
    """Point of the posterior wall near the lower surface, shape (3,), mm."""

    @property
    def wedge_deg(self) -> float:
        """Angle between the surfaces seen from the side, degrees; positive where the front is higher."""
        angles = [
            np.degrees(np.arctan2(-float(n @ self.frame.front), float(n @ self.frame.up)))
            for n in (self.top_normal, self.bottom_normal)
        ]
        return float(angles[0] - angles[1])


@dataclass(frozen=True, slots=True)
class _Grid:
    """Samples of a body in a frame, with the position of an index in that frame."""

    values: Samples
    start: Vector
    step: float

    def index(self, coordinate: float, axis: int) -> int:
        position = round((coordinate - float(self.start[axis])) / self.step)
        return int(np.clip(position, 0, self.values.shape[axis] - 1))

    def mm(self, position: Vector | float, axis: int) -> Vector:
        return np.asarray(self.start[axis] + np.asarray(position, np.float64) * self.step)

    def axis(self, axis: int) -> Vector:
        return self.mm(np.arange(self.values.shape[axis], dtype=np.float64), axis)


@dataclass(slots=True)
class _Extent:
    """Middle and size of the body in the frame (right, front, up), mm."""

    middle: Vector
    size: Vector


def fit_body_shape(mask: Mask, frame: LocalAxes, back: float) -> BodyShape | None:
    """Measure a vertebral body or a disc.

    The body is measured in a frame of its own: first along the centreline, then along the mean normal of the two
    planes fitted to its surfaces, so that neither the curvature of the spine nor the voxel grid affects the measures.
    Edges are where the linearly interpolated mask crosses 0.5.

    Parameters
    ----------
    mask : Mask
        The whole label.
    frame : LocalAxes
        Initial frame: origin on the centreline of the canal, ``front`` towards the body.
    back : float
        Coordinate along ``front`` (mm from the origin) of the posterior limit of the body.

    Returns
    -------
    BodyShape or None
        ``None`` if too little of the label lies in front of the canal.
    """
    points = mask.points()
    first = _resample_body(mask, points, frame, back)
    if first is None:
        return None
    grid, box = first
    up, _, _ = _surfaces(grid, box, frame)
    if up is not None and _angle_deg(up, frame.up) <= _MAX_TILT_DEG:
        centre = frame.point(*box.middle)
        turned = LocalAxes.build(centre, frame.front, up)
        # The cut behind the body stays where it was: a plane through the canal's front wall, seen from the new origin.
        second = _resample_body(mask, points, turned, back - float(box.middle[1]))
        if second is not None:
            frame, (grid, box) = turned, second
    return _measure(grid, box, frame)


def _resample_body(mask: Mask, points: Vector, frame: LocalAxes, back: float) -> tuple[_Grid, _Extent] | None:
    local = frame.coordinates(points)
    kept = local[(local[:, 1] >= back) & (np.abs(local) <= _REACH_MM).all(axis=1)]
    if len(kept) < _MIN_SAMPLES:
        return None
    step = float(np.clip(mask.spacing, 0.5, 1.0))
    start = kept.min(axis=0) - _MARGIN_MM
    start[1] = max(start[1], back)
    nr, nf, nu = (int(n) for n in np.ceil((kept.max(axis=0) + _MARGIN_MM - start) / step) + 1)
    grid = _Grid(_largest(mask.sample(frame, start, (nr, nf, nu), step)), start, step)
    inside = np.argwhere(grid.values >= 0.5)
    if len(inside) < _MIN_SAMPLES:
        return None
    middle = start + inside.mean(axis=0) * step
    size = np.array([8.0, 8.0, 4.0])
    for _ in range(3):
        box = _bounds(grid, _Extent(middle, size))
        if box is None:
            return None
        middle, size = box.middle, box.size
    return grid, _Extent(middle, size)


def _largest(values: Samples) -> Samples:
    parts, count = ndimage.label(values >= 0.5)
    if count <= 1:
        return values
    main = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.where((parts == main) | (parts == 0), values, np.float32(0))


def _window(grid: _Grid, box: _Extent, axis: int, share: float, least: float) -> slice:
    """Return the indices within ``share`` of the size (at least ``least`` mm) to either side of the middle."""
    half = max(least, share * float(box.size[axis]))
    low = grid.index(float(box.middle[axis]) - half, axis)
    return slice(low, grid.index(float(box.middle[axis]) + half, axis) + 1)


def _bounds(grid: _Grid, box: _Extent) -> _Extent | None:
    """Measure height, depth and width through the middle in turn, each with the results of the others."""
    middle, size = box.middle.copy(), box.size.copy()
    current = _Extent(middle, size)
    right, front = _window(grid, current, 0, 0.15, 1.5), _window(grid, current, 1, 0.15, 1.5)
    low, high = outer_edges(grid.values[right, front])
    if not np.isfinite(low).any():
        return None
    low_mm, high_mm = grid.mm(float(np.nanmean(low)), 2), grid.mm(float(np.nanmean(high)), 2)
    middle[2], size[2] = (low_mm + high_mm) / 2, high_mm - low_mm
    for axis in (1, 0):
        other = 1 - axis
        up = _window(grid, current, 2, 0.15, 0.5)
        across = _window(grid, current, other, _MIDDLE_SHARE, 2.0)
        block = grid.values[across, :, up] if axis == 1 else grid.values[:, across, up]
        lines = np.moveaxis(block, axis, -1)
        low, high = run_edges(lines, grid.index(float(middle[axis]), axis))
        offsets = grid.axis(other)[across] - float(middle[other])
        ends = [at_middle(offsets, _median(edge)) for edge in (low, high)]
        if not np.isfinite(ends).all():
            return None
        start, stop = (float(grid.mm(end, axis)) for end in ends)
        middle[axis], size[axis] = (start + stop) / 2, stop - start
    return current


def _median(edges: Vector) -> Vector:
    """Return the median of the finite values along the last axis; NaN if there are none."""
    # A third of the time of np.nanmedian, which takes masked arrays for short lines.
    count = np.isfinite(edges).sum(axis=-1, keepdims=True)
    ordered = np.sort(edges, axis=-1)  # NaN last
    middle = [np.take_along_axis(ordered, np.maximum(at, 0), axis=-1) for at in ((count - 1) // 2, count // 2)]
    median: Vector = ((middle[0] + middle[1]) / 2)[..., 0]
    return np.where(count[..., 0] == 0, np.nan, median)


def _columns(grid: _Grid, box: _Extent) -> tuple[Vector, Vector, Vector, Vector]:
    """Return (right, front) of every column relative to the middle, in sizes, and its two edges in mm."""
    low, high = outer_edges(grid.values)
    right = (grid.axis(0) - box.middle[0]) / max(float(box.size[0]), 1e-6)
    front = (grid.axis(1) - box.middle[1]) / max(float(box.size[1]), 1e-6)
    r, f = np.meshgrid(right, front, indexing="ij")
    return r, f, grid.mm(low, 2), grid.mm(high, 2)


def _surfaces(grid: _Grid, box: _Extent, frame: LocalAxes) -> tuple[Vector | None, Vector, Vector]:
    """Fit planes to both surfaces over the inner part of the footprint."""
    r, f, low, high = _columns(grid, box)
    inner = (np.abs(r) <= 0.32) & (np.abs(f) <= 0.42) & np.isfinite(low)
    if inner.sum() < _MIN_SAMPLES:
        return None, frame.up, frame.up
    at = np.stack([np.ones(int(inner.sum())), r[inner] * box.size[0], f[inner] * box.size[1]], axis=1)
    normals = [_plane_normal(at, edge[inner], frame) for edge in (high, low)]
    return unit(normals[0] + normals[1]), normals[0], normals[1]


def _plane_normal(at: Vector, height: Vector, frame: LocalAxes) -> Vector:
    keep = np.ones(len(height), bool)
    fit: Vector = np.zeros(3)
    for _ in range(3):
        fit = np.asarray(np.linalg.lstsq(at[keep], height[keep], rcond=None)[0], np.float64)
        residual = np.abs(height - at @ fit)
        # Outliers (osteophytes, a hole in the surface) must not tilt the plane.
        keep = residual <= max(1.0, 2.5 * float(np.median(residual)))
    return unit(frame.up - fit[1] * frame.right - fit[2] * frame.front)


def _measure(grid: _Grid, box: _Extent, frame: LocalAxes) -> BodyShape | None:
    r, f, low, high = _columns(grid, box)
    height = high - low
    _, top, bottom = _surfaces(grid, box, frame)
    central = np.abs(r) <= 0.15
    # Narrow bodies still need a few columns.
    central |= np.abs(r * box.size[0]) <= grid.step

    def mean(where: NDArray[np.bool_]) -> float:
        values = height[where & np.isfinite(height)]
        return float(values.mean()) if len(values) else float("nan")

    walls = []
    for share in (0.3, -0.3):
        at = float(box.middle[2] + share * box.size[2])
        up = slice(grid.index(at - 1.0, 2), grid.index(at + 1.0, 2) + 1)
        lines = np.moveaxis(grid.values[_window(grid, box, 0, 0.15, 1.5), :, up], 1, -1)
        wall, _ = run_edges(lines, grid.index(float(box.middle[1]), 1))
        front = float(grid.mm(np.nanmedian(wall), 1)) if np.isfinite(wall).any() else float("nan")
        walls.append(frame.point(float(box.middle[0]), front, at))
    return BodyShape(
        frame=LocalAxes.build(frame.point(*box.middle), frame.front, frame.up),
        height=mean((2 * r) ** 2 + (2 * f) ** 2 <= 0.8**2),
        anterior=mean(central & (f >= 0.30) & (f <= 0.45)),
        middle=mean(central & (np.abs(f) <= 0.075)),
        posterior=mean(central & (f >= -0.45) & (f <= -0.30)),
        depth=float(box.size[1]),
        width=float(box.size[0]),
        top_normal=top,
        bottom_normal=bottom,
        back_top=walls[0],
        back_bottom=walls[1],
    )


def _angle_deg(a: Vector, b: Vector) -> float:
    return float(np.degrees(np.arccos(np.clip(float(a @ b), -1.0, 1.0))))
