"""Curved-planar reformats of a spine.

A reformat is a grid of points at which an image is sampled. Curved planes follow the canal and the vertebral bodies, so
that a scoliotic spine stays in view; both axes of a picture are in millimetres whatever the voxels of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import BY_ID, CANAL_ID, CORD_ID, Structure
from totalspineseg_bids.imaging.centerline import Centerline, Points, orthogonal
from totalspineseg_bids.imaging.volume import Affine, Geometry

_BIN_MM = 3.0
_SMOOTH_BINS = 3.0
_CANAL_TO_BODY_MM = 22.0
#: Extent of a picture beyond the spine, mm: in front, behind, to either side.
_FRONT_MM, _BEHIND_MM, _SIDE_MM = 75.0, 75.0, 75.0
#: Width reserved for level names, pixels.
_NAME_PX = 62.0
#: Axial planes of an image with labels, at most, and of one without.
_MAX_AXIAL, _PLAIN_AXIAL = 8, 4


@dataclass(frozen=True, slots=True)
class Reformat:
    """A sampling grid for one picture."""

    points: Points
    """(rows, columns, 3) position of each pixel, RAS mm."""
    scale: float
    """Pixels per mm."""
    left: str
    """Orientation letter at the left border."""
    right: str
    """Orientation letter at the right border."""
    title: str = ""
    """Text in the corner; empty for none."""


@dataclass(frozen=True, slots=True)
class CurvedPlane:
    """Midlines of canal and vertebral bodies, sampled every few millimetres along z, and the labelled extent."""

    z: Points
    """(N,) heights, ascending, mm."""
    canal: Points
    """(N, 2) x and y of the centre of the canal, RAS mm."""
    body: Points
    """(N, 2) x and y of the centre of vertebral bodies and discs, RAS mm."""
    low: Points
    """(3,) lower corner of the labelled box, RAS mm."""
    high: Points
    """(3,) upper corner of the labelled box, RAS mm."""

    def canal_at(self, z: Points) -> tuple[Points, Points]:
        """Interpolate x and y of the canal at heights ``z``; constant beyond the ends."""
        return np.interp(z, self.z, self.canal[:, 0]), np.interp(z, self.z, self.canal[:, 1])

    def body_at(self, z: Points) -> tuple[Points, Points]:
        """Interpolate x and y of the vertebral bodies at heights ``z``; constant beyond the ends."""
        return np.interp(z, self.z, self.body[:, 0]), np.interp(z, self.z, self.body[:, 1])


def curved_plane(labels: NDArray[np.uint8], affine: Affine) -> CurvedPlane | None:
    """Trace canal and vertebral bodies through a label map of canonical ids; ``None`` if it is empty.

    Examples
    --------
    >>> labels = np.zeros((8, 8, 9), np.uint8)
    >>> curved_plane(labels, np.eye(4)) is None
    True
    >>> labels[3:6, 1:3] = CANAL_ID
    >>> curved_plane(labels, np.eye(4)).canal_at(np.array([4.0]))
    (array([4.]), array([1.5]))
    """
    voxels = np.argwhere(labels)
    if len(voxels) == 0:
        return None
    ids = labels[tuple(voxels.T)]
    mm = apply_affine(affine, voxels)
    structures = anatomy.STRUCTURES[ids]
    is_canal = (ids == CANAL_ID) | (ids == CORD_ID)
    is_disc = structures == Structure.DISC
    of_column = is_disc | np.isin(structures, (Structure.VERTEBRA, Structure.SACRUM))
    base = float(mm[:, 2].min())
    bins = np.floor((mm[:, 2] - base) / _BIN_MM).astype(np.intp)
    count = int(bins.max()) + 1
    z: Points = base + (np.arange(count, dtype=np.float64) + 0.5) * _BIN_MM
    canal = _track(mm[is_canal], bins[is_canal], z) if is_canal.any() else None
    if canal is not None:
        in_front = of_column & (mm[:, 1] > np.interp(mm[:, 2], z, canal[:, 1]) + 7.0)
        near = np.abs(mm[:, 0] - np.interp(mm[:, 2], z, canal[:, 0])) < 30.0
        chosen = in_front & near
    else:
        chosen = is_disc if is_disc.any() else of_column
    between = np.array([0.0, _CANAL_TO_BODY_MM])
    body = canal + between if canal is not None and not chosen.any() else _track(mm[chosen], bins[chosen], z)
    if canal is None:
        canal = body - between
    return CurvedPlane(z, canal, body, mm.min(axis=0), mm.max(axis=0))


def _track(mm: Points, bins: NDArray[np.intp], z: Points) -> Points:
    counts = np.bincount(bins, minlength=len(z)).astype(np.float64)
    seen = counts > 0
    track = np.empty((len(z), 2))
    for axis in range(2):
        means = np.bincount(bins, mm[:, axis], minlength=len(z))[seen] / counts[seen]
        filled = np.interp(z, z[seen], means)
        track[:, axis] = ndimage.gaussian_filter1d(filled, _SMOOTH_BINS, mode="nearest")
    return track


def bounds_mm(geometry: Geometry) -> tuple[Points, Points]:
    """Return the lower and upper corner of the box around a field of view, RAS mm."""
    last = np.array(geometry.shape) - 0.5
    corners = np.stack(np.meshgrid(*[(-0.5, float(n)) for n in last], indexing="ij"), axis=-1).reshape(-1, 3)
    mm = apply_affine(geometry.affine, corners)
    return mm.min(axis=0), mm.max(axis=0)


def _steps(low: float, high: float, scale: float) -> Points:
    steps: Points = low + (np.arange(max(2, round((high - low) * scale)), dtype=np.float64) + 0.5) / scale
    return steps


def fitting_scale(extent_mm: float, pixels: int) -> float:
    """Return the scale, pixels per mm, at which an extent has about ``pixels``; limited to 0.8 to 6."""
    return float(np.clip(pixels / max(extent_mm, 1.0), 0.8, 6.0))


def sagittal_reformat(field: Geometry, plane: CurvedPlane | None, pixels: int) -> Reformat:
    """Curve a sagittal plane through canal and vertebral bodies; anterior is on the left."""
    low, high = bounds_mm(field)
    scale = fitting_scale(float(high[2] - low[2]), pixels)
    z = _steps(float(low[2]), float(high[2]), scale)[::-1]
    if plane is None:
        y = _steps(float(low[1]), float(high[1]), scale)[::-1]
        x = np.full((len(z), len(y)), (low[0] + high[0]) / 2)
    else:
        front = min(float(high[1]), float(plane.body[:, 1].max()) + _FRONT_MM)
        behind = max(float(low[1]), float(plane.canal[:, 1].min()) - _BEHIND_MM)
        # Reserve space for level names, if necessary outside the field of view.
        front = max(front, float(plane.body[:, 1].max()) + 20.0 + 0.6 * _NAME_PX / scale)
        behind = min(behind, float(plane.low[1]) - _NAME_PX / scale)
        y = _steps(behind, front, scale)[::-1]
        (canal_x, canal_y), (body_x, body_y) = plane.canal_at(z), plane.body_at(z)
        # The plane passes through canal and body also where a vertebra is rotated.
        share = np.clip((y[None, :] - canal_y[:, None]) / np.maximum(body_y - canal_y, 5.0)[:, None], 0.0, 1.0)
        x = canal_x[:, None] + share * (body_x - canal_x)[:, None]
    rows, columns = np.broadcast_arrays(z[:, None], y[None, :])
    return Reformat(np.stack([x, columns, rows], axis=-1), scale, "A", "P")


def coronal_reformat(field: Geometry, plane: CurvedPlane | None, pixels: int) -> Reformat:
    """Curve a coronal plane through the vertebral bodies; the patient's right is on the left."""
    low, high = bounds_mm(field)
    scale = fitting_scale(float(high[2] - low[2]), pixels)
    z = _steps(float(low[2]), float(high[2]), scale)[::-1]
    left, right = float(low[0]), float(high[0])
    if plane is None:
        depth = np.full(len(z), (low[1] + high[1]) / 2)
    else:
        left = max(left, float(plane.body[:, 0].min()) - _SIDE_MM)
        right = min(right, float(plane.body[:, 0].max()) + _SIDE_MM)
        left = min(left, float(plane.low[0]) - _NAME_PX / scale)
        right = max(right, float(plane.high[0]) + _NAME_PX / scale)
        depth = plane.body_at(z)[1]
    x = _steps(left, right, scale)[::-1]
    rows, columns = np.broadcast_arrays(z[:, None], x[None, :])
    y = np.broadcast_to(depth[:, None], rows.shape)
    return Reformat(np.stack([columns, y, rows], axis=-1), scale, "R", "L")


def straight_reformat(plane: CurvedPlane, centerline: Centerline, pixels: int) -> Reformat | None:
    """Straighten a sagittal plane: rows follow the canal and are perpendicular to it; ``None`` below 10 mm."""
    inside = (centerline.points[:, 2] >= plane.z[0] - 15) & (centerline.points[:, 2] <= plane.z[-1] + 15)
    line, up = centerline.points[inside], centerline.up[inside]
    if len(line) < 10:
        return None
    body = np.stack([*plane.body_at(line[:, 2]), line[:, 2]], axis=1)
    front = np.stack([orthogonal(b - p, u) for b, p, u in zip(body, line, up, strict=True)])
    front = ndimage.gaussian_filter1d(front, 10.0, axis=0, mode="nearest")
    front /= np.linalg.norm(front, axis=1, keepdims=True)
    scale = fitting_scale(float(len(line)), pixels)
    rows = np.arange(round(len(line) * scale)) / scale
    at = np.arange(len(line), dtype=np.float64)
    line, front = (np.stack([np.interp(rows, at, v[:, i]) for i in range(3)], axis=1) for v in (line, front))
    ahead = _steps(-55.0, 65.0, scale)[::-1]
    return Reformat(line[:, None] + ahead[None, :, None] * front[:, None], scale, "A", "P")


def axial_reformats(
    labels: NDArray[np.uint8],
    affine: Affine,
    plane: CurvedPlane,
    centerline: Centerline | None,
    *,
    pixels: int,
) -> list[Reformat]:
    """Place axial planes perpendicular to the canal, through up to eight discs (or vertebrae without any disc)."""
    chosen = _evenly(_centres(labels, affine), _MAX_AXIAL)
    scale = pixels / 90.0
    side = _steps(-45.0, 45.0, scale)
    views = []
    for label_id, centre in chosen:
        if centerline is not None:
            index = centerline.nearest(centre)
            up, origin = centerline.direction(index), centerline.points[index]
        else:
            x, y = plane.canal_at(centre[2:])
            up, origin = np.array([0.0, 0.0, 1.0]), np.array([float(x[0]), float(y[0]), float(centre[2])])
        front = orthogonal(np.array([0.0, 1.0, 0.0]), up)
        right = np.cross(front, up)
        middle = origin + 0.35 * float((centre - origin) @ front) * front
        points = middle + side[::-1][None, :, None] * right + side[::-1][:, None, None] * front
        views.append(Reformat(points, scale, "R", "L", BY_ID[label_id].abbreviation))
    return views


def plain_axial_reformats(field: Geometry, pixels: int) -> list[Reformat]:
    """Place evenly spaced axial planes in an image without labels."""
    low, high = bounds_mm(field)
    centre = (low + high) / 2
    half = float(min(90.0, max(high[0] - low[0], high[1] - low[1]) / 2))
    scale = pixels / (2 * half)
    side = _steps(-half, half, scale)[::-1]
    x, y = np.meshgrid(centre[0] + side, centre[1] + side)
    heights = np.linspace(high[2], low[2], _PLAIN_AXIAL + 2)[1:-1]
    return [Reformat(np.stack([x, y, np.full_like(x, z)], axis=-1), scale, "R", "L") for z in heights]


def _centres(labels: NDArray[np.uint8], affine: Affine) -> list[tuple[int, Points]]:
    """Return ids and centres (RAS mm) of the discs, or without any the vertebrae, craniocaudally."""
    boxes = {i: box for i, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None and i in BY_ID}
    chosen = [i for i in boxes if BY_ID[i].structure is Structure.DISC]
    chosen = chosen or [i for i in boxes if BY_ID[i].structure is Structure.VERTEBRA]
    centres = []
    for label_id in chosen:
        box = boxes[label_id]
        middle = np.argwhere(labels[box] == label_id).mean(axis=0) + [s.start for s in box]
        centres.append((label_id, apply_affine(affine, middle)))
    return sorted(centres, key=lambda item: -float(item[1][2]))


def _evenly(items: Sequence[tuple[int, Points]], limit: int) -> list[tuple[int, Points]]:
    if len(items) <= limit:
        return list(items)
    picks = np.unique(np.round(np.linspace(0, len(items) - 1, limit)).astype(int))
    return [items[i] for i in picks]
