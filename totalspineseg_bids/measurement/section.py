"""Cross-sections of cord and canal perpendicular to the centreline.

Areas (mm²) are taken in planes perpendicular to the centreline, as is usual for the cord (De Leener et al., NeuroImage
2017, 145:24). Diameters (mm) are chords through the middle; the anteroposterior one corresponds to a mid-sagittal image
(Pavlov et al., Radiology 1987, 164:771). The cord-canal ratio is the quotient of both areas.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID
from totalspineseg_bids.imaging.field_of_view import AcquiredRegion
from totalspineseg_bids.imaging.volume import Affine
from totalspineseg_bids.measurement.sampling import LocalAxes, Mask, Samples, at_middle, run_edges

_RADIUS_MM = 24.0
_STEP_MM = 0.5
_PLANES = 5
#: Chords within this share of the width on either side of the middle define the one through the middle.
_MIDDLE_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Section:
    """Area and chords of one region in a plane."""

    area: float
    """Area, mm²."""
    ap: float
    """Chord through the centre along the ``front`` axis, mm."""
    lr: float
    """Chord through the centre along the ``right`` axis, mm."""


@dataclass(frozen=True, slots=True)
class CanalMasks:
    """Masks of cord and canal, cropped once for all levels."""

    canal: Mask | None
    """Canal including the cord; ``None`` without canal and cord."""
    cord: Mask | None
    """Cord, cropped to the same box."""
    field_of_view: AcquiredRegion
    """Field of view of the image."""

    @classmethod
    def from_labels(cls, labels: NDArray[np.uint8], affine: Affine, field_of_view: AcquiredRegion) -> CanalMasks:
        """Crop cord (200) and canal (201) from a label map of shape (X, Y, Z), itself part of a larger image."""
        canal = (labels == CANAL_ID) | (labels == CORD_ID)
        boxes = ndimage.find_objects(canal.view(np.uint8))
        if not boxes or boxes[0] is None:
            return cls(None, None, field_of_view)
        box = boxes[0]
        cord = labels[box] == CORD_ID
        cord_mask = Mask.cut(cord, box, affine) if cord.any() else None
        return cls(Mask.cut(canal[box], box, affine), cord_mask, field_of_view)

    def front_wall(self, frame: LocalAxes) -> float | None:
        """Return the distance (mm) from the origin to the front wall of the canal; ``None`` without canal."""
        if self.canal is None:
            return None
        line = self.canal.sample(frame, np.array([-1.0, 0.0, -1.0]), (3, 61, 3), 0.5 if self.canal.spacing < 1 else 1.0)
        profile = np.median(line, axis=(0, 2)) >= 0.5
        # Voxels beyond the first gap do not belong to the wall.
        run = np.argmin(profile) if not profile.all() else len(profile)
        return float(run) * (0.5 if self.canal.spacing < 1 else 1.0) if run else None

    def cuts(self, frame: LocalAxes) -> tuple[Section | None, Section | None, bool]:
        """Measure canal and cord in the plane through the frame's origin perpendicular to its ``up``.

        Returns
        -------
        tuple
            Canal, cord (``None`` where absent) and whether the edge of the image cuts the canal there.
        """
        if self.canal is None:
            return None, None, False
        canal = _sample(self.canal, frame, _PLANES)
        middle = canal[:, :, _PLANES // 2] >= 0.5
        if not middle.any():
            return None, None, False
        cord = _sample(self.cord, frame, _PLANES) if self.cord is not None else None
        return _section(canal), None if cord is None else _section(cord), self._cut_off(middle, frame)

    def areas(self, frame: LocalAxes) -> tuple[float | None, float | None]:
        """Return the areas (mm²) of canal and cord in one plane; ``None`` where absent or cut off by the image."""
        canal = None if self.canal is None else _sample(self.canal, frame, 1)[:, :, 0]
        if canal is None or not (canal >= 0.5).any() or self._cut_off(canal >= 0.5, frame):
            return None, None
        cord = None if self.cord is None else _sample(self.cord, frame, 1)[:, :, 0]
        cord_area = float(cord.sum()) * _STEP_MM**2 if cord is not None and (cord >= 0.5).any() else None
        return float(canal.sum()) * _STEP_MM**2, cord_area

    def _cut_off(self, middle: NDArray[np.bool_], frame: LocalAxes) -> bool:
        at = np.argwhere(middle) * _STEP_MM - _RADIUS_MM
        grid = self.field_of_view.geometry
        voxels = grid.index_of(frame.origin + at[:, :1] * frame.right + at[:, 1:] * frame.front)
        at_face = (voxels < 0.25) | (voxels > np.array(grid.shape) - 1.25)
        return bool(at_face.any() or self.field_of_view.is_near_padding(np.rint(voxels).astype(np.int64)).any())


def _sample(mask: Mask, frame: LocalAxes, planes: int) -> Samples:
    """Sample planes 1 mm apart, perpendicular to ``up``, the middle one through the origin."""
    n = round(2 * _RADIUS_MM / _STEP_MM) + 1
    start = np.array([-_RADIUS_MM, -_RADIUS_MM, -(planes - 1) / 2])
    # Every second plane of a 0.5 mm grid.
    return mask.sample(frame, start, (n, n, 2 * planes - 1), _STEP_MM)[:, :, ::2]


def _section(values: Samples) -> Section | None:
    """Return area and chords averaged over the planes; partial volumes are weighted."""
    sections = []
    for index in range(values.shape[2]):
        plane = values[:, :, index]
        inside = plane >= 0.5
        if not inside.any():
            # The tip of the cord is too small for a cross-section.
            return None
        right, front = (float(c) for c in np.argwhere(inside).mean(axis=0))
        sections.append(
            (
                float(plane.sum()) * _STEP_MM**2,
                _chord(plane, right, front, float(inside[:, round(front)].sum())),
                _chord(plane.T, front, right, float(inside[round(right)].sum())),
            )
        )
    area, ap, lr = np.mean(sections, axis=0)
    return Section(float(area), float(ap), float(lr))


def _chord(plane: Samples, across: float, along: float, width: float) -> float:
    """Return the length (mm) along the second axis through the middle of a region of given width (samples)."""
    half = max(2.0, _MIDDLE_SHARE * width)
    low, high = max(0, math.ceil(across - half)), min(len(plane) - 1, math.floor(across + half))
    first, last = run_edges(plane[low : high + 1], round(along))
    length = at_middle(np.arange(low, high + 1, dtype=np.float64) - across, last - first)
    return length * _STEP_MM
