"""Label maps in the conventions of the Spinal Cord Toolbox (https://spinalcordtoolbox.com).

Vertebral levels are C1 = 1, ... C7 = 7, T1 = 8, ... T12 = 19, L1 = 20, ... L5 = 24; disc points have the value of the
vertebra below them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import CORD_ID, REGULAR_DISCS
from totalspineseg_bids.imaging.centerline import Centerline, Points
from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.segmentation.disc_points import TOP_JOINT
from totalspineseg_bids.segmentation.result import LabelledSpine

#: Vertebral levels in the order of their values, from 1.
SCT_LEVELS: Final = ("C1", *(disc.split("-")[0] for disc in REGULAR_DISCS))
_LAST_THORACIC: Final = frozenset({"T11", "T12", "T13"})
_LAST_LUMBAR: Final = frozenset({"L4", "L5", "L6"})
#: Distance of samples along the centreline, mm; shorter than a voxel.
_STEP_MM: Final = 0.1


def vertebra_value(level: str) -> int | None:
    """Return the value of a vertebral level; ``None`` for those that the toolbox does not have (T13, L6).

    >>> vertebra_value("C1"), vertebra_value("T1"), vertebra_value("L5"), vertebra_value("T13")
    (1, 8, 24, None)
    """
    return SCT_LEVELS.index(level) + 1 if level in SCT_LEVELS else None


def label_cord(spine: LabelledSpine, labels: NDArray[np.uint8], grid: Geometry) -> NDArray[np.uint8]:
    """Label the cord by vertebral level, for ``-vertfile`` of ``sct_process_segmentation``.

    The cord is cut at the disc points, perpendicular to the centreline. Above the first and below the last disc point,
    and where a disc between two points was not found, the level is unknown and the cord has no label.

    Parameters
    ----------
    spine : LabelledSpine
        Labelled spine.
    labels : (X, Y, Z) uint8
        Canonical ids on the grid of the result.
    grid : Geometry
        Grid of the result.

    Examples
    --------
    >>> from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, vertebra
    >>> from totalspineseg_bids.segmentation.result import Component, DiscPoint, SpineStatus
    >>> labels = np.zeros((20, 40, 30), np.uint8)
    >>> labels[4:16, 4:14], labels[8:12, 7:11] = CANAL_ID, CORD_ID
    >>> labels[2:18, 16:36, 5:25] = vertebra("L3").id
    >>> body = Component(vertebra("L3").id, Structure.VERTEBRA, "L3", 1.0, None, None, False, 6400.0, (9.5, 25.5, 14.5))
    >>> points = DiscPoint("L2-L3", (9.5, 8.5, 26.0)), DiscPoint("L3-L4", (9.5, 8.5, 4.0))
    >>> spine = LabelledSpine(labels, np.eye(4), (body,), SpineStatus.LABELLED, disc_points=points)
    >>> np.unique(label_cord(spine, labels, Geometry(labels.shape, np.eye(4)))).tolist()
    [0, 22]
    """
    result = np.zeros(labels.shape, np.uint8)
    line = Centerline.from_polyline(spine.centerline_mm) or Centerline.from_labels(spine.labels, spine.affine)
    voxels = np.argwhere(labels == CORD_ID)
    if line is None or len(voxels) == 0 or len(spine.disc_points) < 2:
        return result
    cuts = line.project(np.array([point.position_mm for point in spine.disc_points])).s
    names = [_between(a.level, b.level) for a, b in zip(spine.disc_points, spine.disc_points[1:], strict=False)]
    values = np.array([0, *(vertebra_value(name or "") or 0 for name in names), 0], np.uint8)
    place = line.project(apply_affine(grid.affine, voxels)).s
    result[tuple(voxels.T)] = values[np.searchsorted(cuts, place)]
    return result


def _between(upper: str, lower: str) -> str | None:
    """Return the vertebra between two discs; ``None`` if they are not neighbours."""
    vertebra = "C2" if upper == TOP_JOINT else upper.split("-")[1]
    above = {"T12-L1": _LAST_THORACIC, "L5-S": _LAST_LUMBAR}.get(lower, frozenset({lower.split("-", maxsplit=1)[0]}))
    return vertebra if vertebra in above else None


def draw_centerline(spine: LabelledSpine, labels: NDArray[np.uint8], grid: Geometry) -> NDArray[np.uint8]:
    """Draw the centreline of the cord, one voxel in each slice across the craniocaudal axis of the image.

    Parameters
    ----------
    spine : LabelledSpine
        Labelled spine.
    labels : (X, Y, Z) uint8
        Canonical ids on the grid of the result.
    grid : Geometry
        Grid of the result.

    Examples
    --------
    >>> from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, vertebra
    >>> from totalspineseg_bids.segmentation.result import Component, DiscPoint, SpineStatus
    >>> labels = np.zeros((20, 40, 30), np.uint8)
    >>> labels[4:16, 4:14], labels[8:12, 7:11] = CANAL_ID, CORD_ID
    >>> labels[2:18, 16:36, 5:25] = vertebra("L3").id
    >>> body = Component(vertebra("L3").id, Structure.VERTEBRA, "L3", 1.0, None, None, False, 6400.0, (9.5, 25.5, 14.5))
    >>> spine = LabelledSpine(labels, np.eye(4), (body,), SpineStatus.LABELLED)
    >>> int(draw_centerline(spine, labels, Geometry(labels.shape, np.eye(4))).sum())
    30
    """
    result = np.zeros(labels.shape, np.uint8)
    points = _cord_centerline(spine, labels, grid)
    if points is None:
        return result
    steps = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.arange(0.0, steps[-1], _STEP_MM)
    dense = np.stack([np.interp(at, steps, points[:, k]) for k in range(3)], axis=1)
    voxels = apply_affine(np.linalg.inv(grid.affine), dense)
    axis = int(np.abs(grid.affine[2, :3] / grid.spacing).argmax())
    slices = np.rint(voxels[:, axis]).astype(int)
    for number in np.unique(slices):
        here = voxels[slices == number]
        voxel = np.rint(here[np.abs(here[:, axis] - number).argmin()]).astype(int)
        if (voxel >= 0).all() and (voxel < labels.shape).all():
            result[tuple(voxel)] = 1
    return result


def _cord_centerline(spine: LabelledSpine, labels: NDArray[np.uint8], grid: Geometry) -> Points | None:
    """Return the middle of the cord along the centreline of the canal, cranial to caudal, mm."""
    line = Centerline.from_polyline(spine.centerline_mm) or Centerline.from_labels(spine.labels, spine.affine)
    voxels = np.argwhere(labels == CORD_ID)
    if line is None or len(voxels) == 0:
        return None
    points = apply_affine(grid.affine, voxels)
    place = line.project(points).s
    length = max(grid.spacing)  # every bin has voxels, whatever the direction of the slices
    bins = np.floor((place - place.min()) / length).astype(int)
    count = np.bincount(bins)
    means = np.stack([np.bincount(bins, points[:, k]) for k in range(3)], axis=1)[count > 0] / count[count > 0, None]
    middle = Centerline.from_polyline(means)
    return None if middle is None else middle.seen
