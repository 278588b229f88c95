"""The canal centreline as a smooth curve with directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID
from totalspineseg_bids.imaging.volume import Affine

Vector = NDArray[np.float64]

#: Smoothing of the curve, mm (standard deviation): less than a vertebra, more than the steps of the voxels.
_SMOOTHING_MM = 4.0
#: The curve is prolonged straight by this much at both ends, mm, for levels just beyond the visible canal.
_EXTENSION_MM = 40
_MIN_POINTS = 2


def unit(vector: Vector) -> Vector:
    """Return a vector of length 1 (a null vector stays null)."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector


def orthogonal(vector: Vector, axis: Vector) -> Vector:
    """Return the unit vector along the part of ``vector`` that is perpendicular to the unit vector ``axis``."""
    return unit(vector - float(vector @ axis) * axis)


@dataclass(frozen=True, slots=True)
class SmoothCenterline:
    """Curve sampled every millimetre, from cranial to caudal.

    Attributes
    ----------
    points
        Shape (N, 3), scanner space (RAS+, mm).
    up
        Shape (N, 3), unit vectors along the curve, pointing cranially.
    """

    points: Vector
    up: Vector

    @classmethod
    def from_points(cls, points_mm: Vector) -> SmoothCenterline | None:
        """Smooth and resample a polyline of shape (N, 3), in mm; ``None`` where it has no length."""
        points = np.asarray(points_mm, np.float64).reshape(-1, 3)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) < _MIN_POINTS:
            return None
        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        points = points[np.concatenate([[True], steps > 1e-6])]
        arc = np.concatenate([[0.0], np.cumsum(steps[steps > 1e-6])])
        if len(points) < _MIN_POINTS or arc[-1] < 2.0:
            return None
        at = np.arange(0.0, arc[-1] + 1e-9, 1.0)
        curve = np.stack([np.interp(at, arc, points[:, axis]) for axis in range(3)], axis=1)
        return cls._smooth(curve)

    @classmethod
    def from_labels(cls, labels: NDArray[np.uint8], affine: Affine) -> SmoothCenterline | None:
        """Follow the canal and cord of a label map (shape (X, Y, Z), canonical ids) from slab to slab.

        Used where no centreline is known; slabs are 2 mm high along the body axis (z of scanner space).
        """
        voxels = np.argwhere((labels == CANAL_ID) | (labels == CORD_ID))
        if len(voxels) == 0:
            return None
        points = voxels @ affine[:3, :3].T + affine[:3, 3]
        slab = np.floor((points[:, 2] - points[:, 2].min()) / 2.0).astype(np.intp)
        count = np.bincount(slab)
        centres = np.stack([np.bincount(slab, points[:, axis]) for axis in range(3)], axis=1)[count > 0]
        return cls.from_points((centres / count[count > 0, None])[::-1])

    @classmethod
    def _smooth(cls, curve: Vector) -> SmoothCenterline:
        pad = min(len(curve) - 1, int(3 * _SMOOTHING_MM))
        # Mirrored through the end points, so that smoothing neither shortens nor bends the ends.
        head = 2 * curve[0] - curve[pad:0:-1]
        tail = 2 * curve[-1] - curve[-2 : -pad - 2 : -1]
        padded = np.concatenate([head, curve, tail])
        smooth = ndimage.gaussian_filter1d(padded, min(_SMOOTHING_MM, pad / 3), axis=0, mode="nearest")
        smooth = smooth[pad : pad + len(curve)]
        reach = min(10, len(smooth) - 1)
        first, last = unit(smooth[0] - smooth[reach]), unit(smooth[-1] - smooth[-1 - reach])
        ahead = np.arange(1, _EXTENSION_MM + 1, dtype=np.float64)[:, None]
        extended = np.concatenate([smooth[0] + ahead[::-1] * first, smooth, smooth[-1] + ahead * last])
        gradient = np.gradient(extended, axis=0)
        up = -gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-9)
        return cls(extended, up)

    def nearest(self, point: Vector) -> int:
        """Return the index of the sample nearest to a point (mm)."""
        return int(np.argmin(((self.points - point) ** 2).sum(axis=1)))

    def direction(self, index: int, half_window: int = 6) -> Vector:
        """Return the mean cranial direction around a sample."""
        low, high = max(0, index - half_window), min(len(self.up), index + half_window + 1)
        return unit(self.up[low:high].mean(axis=0))
