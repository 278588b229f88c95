"""Position of the body around a column in each slice, and functions to draw it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, zoom

from totalspineseg_bids.synthesis.curve import SpinalColumn
from totalspineseg_bids.synthesis.rasterize import Canvas, FloatArray, ellipse_rows, rows

#: Labels of the tissues around the spine.
SOFT, MUSCLE, BONE, LUNG, GAS, VESSEL, ORGAN, BRAIN, FAT, ENDPLATE = range(1, 11)


@dataclass(frozen=True, slots=True)
class BodyProfile:
    """Positions of column and trunk in each slice."""

    z: FloatArray
    """Slice coordinates, mm."""
    y: FloatArray
    """Row coordinates, mm."""
    x_column: FloatArray
    """x of the centre of the vertebral bodies in each slice, mm."""
    y_column: FloatArray
    """y of the centre of the vertebral bodies in each slice, mm."""
    y_smooth: FloatArray
    """``y_column`` smoothed: the course of the trunk, mm."""
    height: dict[str, float]
    """z of the middle of each level, mm."""
    size: float
    """Scale of the subject."""

    def interpolate(self, knots: list[tuple[str, float]]) -> FloatArray:
        """Interpolate values given at levels (``"T4"``, ``"T4+20"``: 20 mm above it) to every slice."""
        at, values = [], []
        for name, value in knots:
            level, _, up = name.partition("+")
            at.append(self.height[level] + float(up or 0) * self.size)
            values.append(value * self.size)
        order = np.argsort(at)
        line = np.interp(self.z, np.array(at)[order], np.array(values)[order])
        return gaussian_filter1d(line, 3.0 * self.size).astype(np.float32)

    def point(self, level: str, right: float, front: float, up: float = 0.0) -> NDArray[np.float64]:
        """Return the position beside a level, mm from the centre of its body along the body's axes."""
        z = self.height[level] + up * self.size
        x, y = (float(np.interp(z, self.z, line)) for line in (self.x_column, self.y_column))
        return np.array([x + right * self.size, y + front * self.size, z])

    def path(self, *places: tuple[str, float, float] | tuple[str, float, float, float]) -> NDArray[np.float64]:
        """Return the positions of several places, each given as for `point`, shape (N, 3)."""
        return np.array([self.point(*place) for place in places])


def measure_body_profile(canvas: Canvas, column: SpinalColumn, scale: float) -> BodyProfile:
    """Measure the position of the column in all slices of a canvas."""
    z, y = canvas.coordinates(2), canvas.coordinates(1)
    line = column.points[::-1]
    x_column = np.interp(z, line[:, 2], line[:, 0]).astype(np.float32)
    y_column = np.interp(z, line[:, 2], line[:, 1]).astype(np.float32)
    smooth = gaussian_filter1d(y_column, 22.0 * scale / canvas.spacing, mode="nearest").astype(np.float32)
    height = {level.name: float(level.frame.origin[2]) for level in column.levels}
    last = [level.name for level in column.levels if level.region == "T"][-1]
    lumbar = [level.name for level in column.levels if level.region == "L"]
    # Names that spines of all variants have.
    height |= {"T12": height[last], "L4": height[lumbar[-2]], "L5": height[lumbar[-1]]}
    height.setdefault("L3", height[lumbar[len(lumbar) // 2]])
    return BodyProfile(z, y, x_column, y_column, smooth, height, scale)


def smooth_sheet(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float], amplitude: float
) -> FloatArray:
    """Draw a smooth random field; ``cell`` is the size of its features in voxels."""
    coarse = [max(2, int(np.ceil(n / c)) + 1) for n, c in zip(shape, cell, strict=True)]
    field = zoom(
        rng.standard_normal(coarse),
        [n / c for n, c in zip(shape, coarse, strict=True)],
        order=1,
        grid_mode=True,
        mode="nearest",
    )
    return (amplitude * field[: shape[0], : shape[1]]).astype(np.float32)


def draw_blob(
    canvas: Canvas, center: NDArray[np.float64], radii: tuple[float, float, float], label: int, replace: tuple[int, ...]
) -> None:
    """Draw an ellipsoid given by its half axes right, front, up."""
    rise = (canvas.coordinates(2) - center[2]) / radii[2]
    shrink = np.sqrt(np.maximum(1.0 - np.square(rise), 0.0)).astype(np.float32)
    middle = np.full_like(shrink, center[0]), np.full_like(shrink, center[1])
    low, high = ellipse_rows(canvas.coordinates(1), middle, shrink * radii[0], shrink * radii[1])
    rows(canvas, low, high, label, replace)
