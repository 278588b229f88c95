"""Draw solids on a label grid, each in its bounding box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.imaging.volume import Volume

Vector3 = NDArray[np.float64]
FloatArray = NDArray[np.float32]
RealArray = NDArray[np.floating]

#: Labels below this are tissue around the spine; solids of the spine may replace them.
FIRST_SPINE_LABEL = 18


@dataclass(frozen=True, slots=True)
class LocalFrame:
    """Point with local axes."""

    origin: Vector3
    """Shape (3,), RAS mm."""
    axes: NDArray[np.float64]
    """Shape (3, 3), columns: right, anterior, up (unit vectors in RAS)."""

    def at(self, right: float, anterior: float, up: float) -> Vector3:
        """Return the RAS position of local coordinates (mm)."""
        place: Vector3 = self.origin + self.axes @ np.array([right, anterior, up])
        return place


@dataclass(frozen=True, slots=True)
class CanvasPart:
    """Part of a canvas: labels (a view, shape (Z, Y, X)) and voxel coordinates, mm."""

    labels: NDArray[np.uint8]
    x: FloatArray
    y: FloatArray
    z: FloatArray

    def along(self, direction: Vector3, origin: Vector3) -> FloatArray:
        """Return the coordinates of the voxels along a direction, relative to an origin; shape (Z, Y, X)."""
        dx, dy, dz = (np.float32(v) for v in direction)
        start = np.float32(direction @ origin)
        plane = (dz * self.z)[:, None] + (dy * self.y)[None, :] - start
        line: FloatArray = plane[:, :, None] + (dx * self.x)[None, None, :]
        return line


@dataclass(frozen=True, slots=True)
class Canvas:
    """Label map under construction."""

    labels: NDArray[np.uint8]
    """Labels, shape (Z, Y, X), uint8; slices and rows are contiguous, which makes drawing fast."""
    origin: Vector3
    """Shape (3,): RAS mm of the first voxel's centre."""
    spacing: float
    """Isotropic voxel size, mm."""

    @classmethod
    def empty(cls, low: Vector3, high: Vector3, spacing: float) -> Canvas:
        """Return a canvas of zeros from one corner to the other (RAS mm)."""
        x, y, z = (int(n) for n in np.ceil((high - low) / spacing) + 1)
        return cls(np.zeros((z, y, x), np.uint8), np.asarray(low, np.float64), spacing)

    def coordinates(self, axis: int) -> FloatArray:
        """Return the voxel centres along x (0), y (1) or z (2), mm."""
        size = self.labels.shape[2 - axis]
        line: FloatArray = (self.origin[axis] + self.spacing * np.arange(size)).astype(np.float32)
        return line

    def window(self, low: Vector3, high: Vector3) -> CanvasPart | None:
        """Return the part between two corners (RAS mm), or None if it lies outside."""
        shape = np.array(self.labels.shape[::-1])
        first = np.maximum(np.floor((low - self.origin) / self.spacing).astype(int), 0)
        last = np.minimum(np.ceil((high - self.origin) / self.spacing).astype(int) + 1, shape)
        if np.any(first >= last):
            return None
        x, y, z = ((self.origin[i] + self.spacing * np.arange(first[i], last[i])).astype(np.float32) for i in range(3))
        part = self.labels[first[2] : last[2], first[1] : last[1], first[0] : last[0]]
        return CanvasPart(part, x, y, z)

    def to_volume(self) -> Volume:
        """Return the label map as (X, Y, Z) RAS; the array is a view in Fortran order."""
        affine = np.diag([self.spacing, self.spacing, self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return Volume(self.labels.transpose(2, 1, 0), affine)


def fill(window: CanvasPart, inside: NDArray[np.bool_], label: int, replace: tuple[int, ...] | None = None) -> None:
    """Assign a label to the voxels inside a solid.

    Parameters
    ----------
    window : CanvasPart
        Part of a canvas that contains the solid.
    inside : ndarray of bool
        Mask of the solid, shape (Z, Y, X) of the window; changed in place.
    label : int
        Label of the solid.
    replace : tuple of int, optional
        Labels that may be replaced; by default all tissue labels (below 18).
    """
    if replace is None:
        inside &= window.labels < FIRST_SPINE_LABEL
    else:
        allowed = np.zeros(256, bool)
        allowed[list(replace)] = True
        inside &= allowed[window.labels]
    np.copyto(window.labels, np.uint8(label), where=inside)


def rod(  # noqa: PLR0917 - the solids are lists of these
    canvas: Canvas,
    start: Vector3,
    end: Vector3,
    radii: tuple[float, float],
    end_radii: tuple[float, float],
    label: int,
    *,
    across: Vector3 | None = None,
    cap: float | None = None,
    replace: tuple[int, ...] | None = None,
) -> None:
    """Draw a tapering elliptic rod with rounded ends; ``start == end`` gives an ellipsoid.

    Parameters
    ----------
    canvas : Canvas
        Canvas to draw on.
    start, end : Vector3
        Ends of the axis, RAS mm.
    radii, end_radii : tuple of 2 float
        Half axes of the cross-section at either end, mm: along ``across`` and perpendicular to it.
    label : int
        Label of the solid.
    across : Vector3, optional
        Direction of the first half axis (made perpendicular to the rod); by default left-right.
    cap : float, optional
        Half axis of the caps along the rod, mm; by default the mean of the radii.
    replace : tuple of int, optional
        Labels that may be replaced, see `fill`.
    """
    largest = max(*radii, *end_radii, cap or 0.0)
    window = canvas.window(np.minimum(start, end) - largest, np.maximum(start, end) + largest)
    if window is None:
        return
    axis = end - start
    length = float(np.linalg.norm(axis))
    direction = axis / length if length > 1e-6 else np.array([0.0, 0.0, 1.0])
    first = np.array([1.0, 0.0, 0.0]) if across is None else across
    first = first - direction * (first @ direction)
    if np.linalg.norm(first) < 1e-3:
        first = np.array([0.0, 1.0, 0.0]) - direction * direction[1]
    first = first / np.linalg.norm(first)
    second = np.cross(direction, first)
    depth = window.along(direction, start)
    part = np.clip(depth / np.float32(max(length, 1e-6)), 0.0, 1.0)
    height = np.float32(cap if cap is not None else 0.25 * (sum(radii) + sum(end_radii)))
    value = np.square((depth - part * np.float32(length)) / height)
    for way, r0, r1 in ((first, radii[0], end_radii[0]), (second, radii[1], end_radii[1])):
        value += np.square(window.along(way, start) / (np.float32(r0) + part * np.float32(r1 - r0)))
    fill(window, value <= 1.0, label, replace)


def polyline(
    canvas: Canvas,
    points: NDArray[np.float64],
    radii: NDArray[np.float64],
    label: int,
    *,
    across: NDArray[np.float64] | None = None,
    cap: float | None = None,
    replace: tuple[int, ...] | None = None,
) -> None:
    """Draw rods through points (N, 3) with half axes (N, 2) at each; ``across`` is one or one a rod; see `rod`."""
    for i in range(len(points) - 1):
        (a0, b0), (a1, b1) = radii[i], radii[i + 1]
        way = across if across is None or across.ndim == 1 else across[i]
        rod(
            canvas, points[i], points[i + 1], (float(a0), float(b0)), (float(a1), float(b1)), label,
            across=way, cap=cap, replace=replace,
        )  # fmt: skip


def rows(
    canvas: Canvas,
    low: FloatArray,
    high: FloatArray,
    label: int,
    replace: tuple[int, ...] | None = None,
) -> None:
    """Draw the interval ``low <= x <= high`` of every row.

    Parameters
    ----------
    canvas : Canvas
        Canvas to draw on.
    low, high : FloatArray
        Limits for the whole canvas, shape (Z, Y), mm; rows with ``low > high`` or NaN are skipped.
    label : int
        Label of the solid.
    replace : tuple of int, optional
        Labels that may be replaced; ``None`` replaces all.
    """
    size = canvas.labels.shape[2]
    with np.errstate(invalid="ignore"):
        valid = low <= high
        if not valid.any():
            return
        first = np.where(valid, np.ceil((low - canvas.origin[0]) / canvas.spacing).clip(0, size), size)
        last = np.where(valid, np.floor((high - canvas.origin[0]) / canvas.spacing).clip(-1, size - 1), -1)
    use = first <= last
    if not use.any():
        return
    zs, ys = np.flatnonzero(use.any(axis=1)), np.flatnonzero(use.any(axis=0))
    z, y = slice(zs[0], zs[-1] + 1), slice(ys[0], ys[-1] + 1)
    x = slice(int(first[use].min()), int(last[use].max()) + 1)
    index = np.arange(x.start, x.stop, dtype=np.int16)
    from_index, to_index = first[z, y].astype(np.int16)[..., None], last[z, y].astype(np.int16)[..., None]
    part = canvas.labels[z, y, x]
    inside = (index >= from_index) & (index <= to_index)
    if replace is not None:
        allowed = part == replace[0]
        for other in replace[1:]:
            allowed |= part == other
        inside &= allowed
    np.copyto(part, np.uint8(label), where=inside)


def ellipse_rows(
    y: FloatArray,
    center: tuple[RealArray, RealArray],
    half_width: RealArray,
    half_depth: RealArray,
    power: float = 2.0,
) -> tuple[FloatArray, FloatArray]:
    """Return the row intervals of an axial (super)ellipse that changes from slice to slice.

    Parameters
    ----------
    y : FloatArray
        Row coordinates, shape (Y,).
    center : tuple of 2 RealArray
        x and y of the centre for each slice, shape (Z,).
    half_width, half_depth : RealArray
        Half axes for each slice, shape (Z,); slices with values that are not positive are empty.
    power : float
        Exponent; 2 gives an ellipse, larger values approach a rectangle.

    Returns
    -------
    low, high : FloatArray
        Shape (Z, Y), for `rows`.
    """
    depth = np.maximum(half_depth, 1e-3)[:, None]
    rest = 1.0 - np.abs((y[None, :] - center[1][:, None]) / depth) ** power
    width = np.where(
        (rest > 0) & (half_depth > 0)[:, None] & (half_width > 0)[:, None],
        half_width[:, None] * np.maximum(rest, 0.0) ** (1.0 / power),
        np.nan,
    )
    middle = center[0][:, None]
    return (middle - width).astype(np.float32), (middle + width).astype(np.float32)
