"""Resample masks to local axes, and find their edges with sub-voxel precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.imaging.centerline import Vector, orthogonal, unit
from totalspineseg_bids.imaging.volume import Affine

Samples = NDArray[np.float32]

_LINES_OF_A_PARABOLA = 5


@dataclass(frozen=True, slots=True)
class LocalAxes:
    """Local axes in scanner space."""

    origin: Vector
    """Point in scanner space, shape (3,), mm."""
    right: Vector
    """Unit vector along the left-right axis of the patient, towards +R when the patient stands straight, shape (3,)."""
    front: Vector
    """Unit vector pointing anteriorly, shape (3,)."""
    up: Vector
    """Unit vector pointing cranially, shape (3,)."""

    @classmethod
    def build(cls, origin: Vector, front: Vector, up: Vector) -> LocalAxes:
        """Make the axes orthogonal; ``up`` keeps its direction."""
        up = unit(up)
        front = orthogonal(front, up)
        return cls(origin, unit(np.cross(front, up)), front, up)

    def coordinates(self, points: Vector) -> Vector:
        """Return (right, front, up) coordinates of points of shape (..., 3), in mm."""
        local: Vector = (points - self.origin) @ np.stack([self.right, self.front, self.up], axis=1)
        return local

    def point(self, right: float, front: float, up: float) -> Vector:
        """Return the scanner-space point at local coordinates."""
        return self.origin + right * self.right + front * self.front + up * self.up


@dataclass(frozen=True, slots=True)
class Mask:
    """Binary region cropped from its image, with a margin of zeros."""

    data: NDArray[np.uint8]
    """Region as 0 and 1, shape (X, Y, Z)."""
    affine: Affine
    """Voxel index of ``data`` to scanner space (RAS+, mm), shape (4, 4)."""

    @classmethod
    def cut(cls, region: NDArray[np.bool_], box: tuple[slice, ...], affine: Affine) -> Mask:
        """Crop a region: ``region`` is the content of ``box`` in an image with ``affine``."""
        start = np.array([s.start for s in box], np.float64) - 1.0
        shifted = affine.copy()
        shifted[:3, 3] += affine[:3, :3] @ start
        return cls(np.pad(region.astype(np.uint8), 1), shifted)

    @property
    def spacing(self) -> float:
        """The smallest voxel edge, mm."""
        return float(voxel_sizes(self.affine).min())

    def points(self) -> Vector:
        """Return the voxel centres of the region, shape (N, 3), mm."""
        mm: Vector = apply_affine(self.affine, np.argwhere(self.data))
        return mm

    def sample(self, frame: LocalAxes, start: Vector, shape: tuple[int, int, int], step: float) -> Samples:
        """Interpolate linearly on a regular grid of a frame.

        Parameters
        ----------
        frame : LocalAxes
            Axes; array axes of the result are right, front, up.
        start : Vector
            Local coordinates of the first sample, mm.
        shape : tuple of 3 int
            Samples along each axis.
        step : float
            Distance of samples, mm.

        Returns
        -------
        Samples
            float32 of ``shape``, 0 to 1.
        """
        inverse = np.linalg.inv(self.affine)
        axes = np.stack([frame.right, frame.front, frame.up], axis=1)
        first = frame.origin + axes @ start
        matrix = inverse[:3, :3] @ (axes * step)
        offset = inverse[:3, :3] @ first + inverse[:3, 3]
        sampled: Samples = ndimage.affine_transform(
            self.data, matrix, offset, output_shape=shape, output=np.float32, order=1, mode="constant", prefilter=False
        )
        return sampled


def outer_edges(values: Samples) -> tuple[Vector, Vector]:
    """Find the outermost crossings of 0.5 along the last axis.

    Returns
    -------
    tuple of ndarray
        First and last crossing in samples (sub-sample, linear), NaN where the line is empty.
    """
    inside = values >= 0.5
    count = values.shape[-1]
    low = np.argmax(inside, axis=-1)
    high = count - 1 - np.argmax(inside[..., ::-1], axis=-1)
    empty = ~inside.any(axis=-1)
    first = low - _fraction(values, low, low - 1)
    last = high + _fraction(values, high, high + 1)
    return np.where(empty, np.nan, first), np.where(empty, np.nan, last)


def run_edges(values: Samples, centre: int) -> tuple[Vector, Vector]:
    """Find the ends of the run of values ≥ 0.5 through ``centre`` along the last axis.

    Returns
    -------
    tuple of ndarray
        Ends in samples (sub-sample, linear), NaN where the line is empty at ``centre``.
    """
    outside = values < 0.5
    count = values.shape[-1]
    ahead, behind = outside[..., centre:], outside[..., centre::-1]
    high = np.where(ahead.any(axis=-1), centre + np.argmax(ahead, axis=-1) - 1, count - 1)
    low = np.where(behind.any(axis=-1), centre - np.argmax(behind, axis=-1) + 1, 0)
    empty = outside[..., centre]
    first = low - _fraction(values, low, low - 1)
    last = high + _fraction(values, high, high + 1)
    return np.where(empty, np.nan, first), np.where(empty, np.nan, last)


def _fraction(values: Samples, inside: NDArray[np.intp], outside: NDArray[np.intp]) -> Vector:
    """Interpolate where values fall to 0.5 between an inner and the next outer sample (0 to 1; 0.5 at the border)."""
    count = values.shape[-1]
    inner = np.take_along_axis(values, np.clip(inside, 0, count - 1)[..., None], axis=-1)[..., 0].astype(np.float64)
    valid = (outside >= 0) & (outside < count)
    outer = np.take_along_axis(values, np.clip(outside, 0, count - 1)[..., None], axis=-1)[..., 0]
    drop = np.maximum(inner - outer, 1e-6)
    return np.where(valid, np.clip((inner - 0.5) / drop, 0.0, 1.0), 0.5)


def at_middle(offsets: Vector, values: Vector) -> float:
    """Evaluate a profile across a rounded body at its middle.

    A chord beside the middle of a round body is too short, and the single chord through the middle depends on one
    voxel. The value at offset 0 of a parabola fitted to all chords near the middle avoids both.

    Parameters
    ----------
    offsets : Vector
        Distance of each line from the middle, any unit, shape (N,).
    values : Vector
        Value of each line, shape (N,); NaN if missing.

    Returns
    -------
    float
        Value of the parabola at 0; the median of fewer than five values, NaN without values.
    """
    seen = np.isfinite(values)
    if not seen.any():
        return float("nan")
    x, y = offsets[seen], values[seen]
    if len(x) < _LINES_OF_A_PARABOLA or x.min() > 0 or x.max() < 0:
        return float(np.median(y))
    terms = np.stack([np.ones(len(x)), x, x**2], axis=1)
    return float(np.linalg.lstsq(terms, y, rcond=None)[0][0])
