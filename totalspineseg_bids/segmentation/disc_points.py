"""Points at which discs of a label map meet the centreline of the canal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.centerline import Centerline, Points
from totalspineseg_bids.imaging.volume import Affine, Geometry
from totalspineseg_bids.segmentation.result import DiscPoint

#: Joint between atlas and axis, which has a point but no disc.
TOP_JOINT: Final = "C1-C2"
#: Share of a disc, from behind, whose mean height is that of the disc at the canal, percent.
POSTERIOR_PERCENT: Final = 33


def locate_discs(
    labels: NDArray[np.uint8], affine: Affine, centerline_mm: Points, levels: Mapping[int, str]
) -> list[DiscPoint]:
    """Return the point of each disc at the height of its posterior third.

    Parameters
    ----------
    labels : (X, Y, Z) uint8
        Canonical ids.
    affine : (4, 4) float
        Voxel index to scanner space (RAS+, mm).
    centerline_mm : (N, 3) float
        Centreline of the canal, cranial to caudal, scanner space (mm); if empty, it follows the canal of the map.
    levels : mapping of int to str
        Level by id of the discs to locate; ids of other structures are ignored.
    """
    line = Centerline.from_polyline(centerline_mm) or Centerline.from_labels(labels, affine)
    points = []
    for label, level in levels.items():
        voxels = np.argwhere(labels == label) if anatomy.BY_ID[label].structure is Structure.DISC else ()
        if line is None or len(voxels) == 0:
            continue
        place = line.project(apply_affine(affine, np.asarray(voxels)))
        hind = place.anterior <= np.percentile(place.anterior, POSTERIOR_PERCENT)
        x, y, z = (float(v) for v in line.at(float(place.s[hind].mean())))
        points.append(DiscPoint(level, (x, y, z)))
    return points


def sort_points(points: Iterable[DiscPoint]) -> tuple[DiscPoint, ...]:
    """Return disc points in craniocaudal order."""
    order = {level: n for n, level in enumerate((TOP_JOINT, *anatomy.DISC_LEVELS))}
    return tuple(sorted(points, key=lambda point: order[point.level]))


def draw_disc_points(points: Sequence[DiscPoint], geometry: Geometry) -> NDArray[np.uint8]:
    """Return an image with one voxel per disc level; levels outside the grid or without a value are omitted.

    Parameters
    ----------
    points : sequence of DiscPoint
        Points at which the disc levels meet the centreline of the canal.
    geometry : Geometry
        Grid of the image.
    """
    image = np.zeros(geometry.shape, np.uint8)
    inverse = np.linalg.inv(geometry.affine)
    for point in points:
        value = anatomy.level_point_value(point.level)
        if value is None:
            continue
        voxel = np.rint(inverse[:3, :3] @ np.asarray(point.position_mm) + inverse[:3, 3]).astype(int)
        if (voxel >= 0).all() and (voxel < geometry.shape).all():
            image[tuple(voxel)] = value
    return image
