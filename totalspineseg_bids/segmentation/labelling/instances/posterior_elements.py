"""BoneVoxels to vertebrae, cell by cell: every piece of bone is given to one of the bodies that were found, or to none.

First along the ways through bone (`voxel_graph.py`), then, what no way reaches, to the nearest vertebra. Both mind the
height at which a body's arches and processes lie (`posterior_profile`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.centerline import Centerline
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling.instances.parameters import (
    HEIGHT_TOLERANCE_MM,
    LARGEST_DISTANCE_MM,
    LARGEST_SLIP_MM3,
)
from totalspineseg_bids.segmentation.labelling.instances.posterior_profile import body_height
from totalspineseg_bids.segmentation.labelling.instances.voxel_graph import VoxelGraph

_REGION_OF_ID = {
    label.id: label.level[0] for label in anatomy.LABELS if label.structure is Structure.VERTEBRA and label.level
}


@dataclass(frozen=True, slots=True)
class BoneVoxels:
    """The bone of an image on a subsampled grid."""

    cells: NDArray[np.int64]
    """Grid indices, shape (N, 3)."""
    points: NDArray[np.float64]
    """The same in local mm."""
    classes: NDArray[np.uint8]
    """Value of the semantic map, shape (N,)."""
    height: NDArray[np.float64]
    behind: NDArray[np.bool_]
    """[[height, behind]] Of the body that each is likely to belong to, mm along the canal, and whether it lies behind
    the bodies.
    """
    cell_mm: float
    """Size of a cell."""

    @classmethod
    def relative_to_canal(
        cls,
        cells: NDArray[np.int64],
        classes: NDArray[np.uint8],
        seeds: NDArray[np.int64],
        *,
        cell: NDArray[np.float64],
        line: Centerline,
    ) -> BoneVoxels:
        """Place bone cells against the canal.

        Parameters
        ----------
        cells, classes
            As the attributes.
        seeds
            Instance number of each cell of a body, 0 for others, shape (N,).
        cell
            Size of a cell along each axis, mm.
        line
            Curve along the middle of the canal.
        """
        points = cells * cell
        place = line.project(points)
        return cls(cells, points, classes, *body_height(place, _regions(place.s, seeds)), float(cell.mean()))


def _regions(s: NDArray[np.float64], seeds: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the region of the body that is nearest along the canal; empty where it has no name."""
    numbers = np.unique(seeds[seeds > 0])
    if len(numbers) == 0:
        return np.full(len(s), "", "<U1")
    middle = np.array([s[seeds == number].mean() for number in numbers])
    names = np.array([_REGION_OF_ID.get(int(number), "") for number in numbers], "<U1")
    order = np.argsort(middle)
    borders = (middle[order][1:] + middle[order][:-1]) / 2
    return np.asarray(names[order][np.searchsorted(borders, s)])


def assign(bone: BoneVoxels, seeds: NDArray[np.int64], layout: ClassMap) -> NDArray[np.int64]:
    """Give every bone cell to one of the instances whose bodies are the seeds, or to none (0).

    Parameters
    ----------
    bone
        BoneVoxels of an image.
    seeds
        Instance number of each cell of a body, 0 for others, shape (N,).
    layout
        Meaning of the classes.
    """
    meanings = layout.meanings
    loose = np.array([v for v, m in meanings.items() if m.kind is Structure.VERTEBRA and not m.parity and not m.level])
    heights = _Heights(seeds, bone.height, bone.behind)
    near, far = HEIGHT_TOLERANCE_MM
    ways = VoxelGraph(bone.cells, bone.classes, loose, bone.height / bone.cell_mm)
    first = ways.grow(seeds)
    instance = heights.reject_distant(first, near)
    for same_class in (True, False):
        # Pieces cut off from their body, such as a spinous process whose lamina was missed, follow the nearest bone.
        left = instance == 0
        if not left.any():
            break
        if not same_class and layout.separates_vertebrae:
            # What its class joins to a body is not of one whose class is another.
            slip = (first == 0) & ~_large_pieces(bone.cells, bone.classes, left, bone.cell_mm**3)
            left &= np.isin(bone.classes, loose) | slip
        groups = bone.classes if same_class else np.zeros_like(bone.classes)
        instance = _assign_to_nearest(bone.points, groups, instance, left, heights)
        instance = heights.reject_distant(ways.grow(instance), near)
    # What no other vertebra took stays with the first one, unless it is far from it.
    return np.where(instance == 0, heights.reject_distant(first, far), instance)


class _Heights:
    """Heights of the bodies that were found, against those of bone behind them.

    Parameters
    ----------
    seeds
        Instance number of each cell of a body, 0 for others, shape (N,).
    height
        Of the body that each cell is likely to belong to, mm, shape (N,).
    behind
        Whether it lies behind the bodies; only there heights tell anything.
    """

    def __init__(self, seeds: NDArray[np.int64], height: NDArray[np.float64], behind: NDArray[np.bool_]) -> None:
        seeded = np.flatnonzero(seeds)
        self._low, self._high = np.full(256, np.inf), np.full(256, -np.inf)
        np.minimum.at(self._low, seeds[seeded], height[seeded])
        np.maximum.at(self._high, seeds[seeded], height[seeded])
        self._height, self._behind = height, behind
        found = np.isfinite(self._low)
        there = height[:, None]
        #: How far each cell is out of the heights of the body to whose it is nearest.
        self._least = np.maximum(self._low[found] - there, there - self._high[found]).min(axis=1, initial=np.inf)

    def fits(self, instance: NDArray[np.int64], most_mm: float) -> NDArray[np.bool_]:
        """Tell which cells may be of an instance (one each, or one for all): none at another height, nearer to another.

        What does not fit is of a vertebra whose body is out of view or was missed, and only its class, which every
        second vertebra has, led past its neighbour to the instance.
        """
        off = np.maximum(self._low[instance] - self._height, self._height - self._high[instance])
        return np.asarray(~self._behind | (off <= most_mm) | (off <= self._least))

    def reject_distant(self, instance: NDArray[np.int64], most_mm: float) -> NDArray[np.int64]:
        """Return the instances without the cells that do not fit them."""
        return np.where((instance == 0) | self.fits(instance, most_mm), instance, 0)


def _assign_to_nearest(
    points: NDArray[np.float64],
    groups: NDArray[np.uint8],
    instance: NDArray[np.int64],
    left: NDArray[np.bool_],
    heights: _Heights,
) -> NDArray[np.int64]:
    """Give cells that no seed reached to the nearest instance in whose height they are, within about 18 mm.

    Parameters
    ----------
    points
        Local mm, shape (N, 3).
    groups, instance
        Number of the group, within which an instance is looked for, and of the instance (0 for none) of each cell.
    left
        Cells to give away.
    heights
        Of the bodies.
    """
    result = instance.copy()
    nearest = np.full(len(instance), LARGEST_DISTANCE_MM)
    for number in np.unique(instance[instance > 0]):
        rest = left & heights.fits(number, HEIGHT_TOLERANCE_MM[0])
        for group in np.unique(groups[rest]):
            known = np.flatnonzero((instance == number) & (groups == group))
            wanted = np.flatnonzero(rest & (groups == group))
            if len(known):
                distance = np.asarray(
                    cKDTree(points[known]).query(points[wanted], distance_upper_bound=LARGEST_DISTANCE_MM)[0]
                )
                closer = distance < nearest[wanted]
                result[wanted[closer]] = number
                nearest[wanted[closer]] = distance[closer]
    return result


def _large_pieces(
    cells: NDArray[np.int64], classes: NDArray[np.uint8], left: NDArray[np.bool_], cell_mm3: float
) -> NDArray[np.bool_]:
    """Tell which cells belong to a connected piece of one class that is too large to be a slip of that class.

    It is of a vertebra whose body is out of view or was missed; its neighbours have the other class.
    """
    result = np.zeros(len(cells), bool)
    rows = np.flatnonzero(left)
    if len(rows) == 0:
        return result
    low = cells[rows].min(axis=0)
    at = tuple((cells[rows] - low).T)
    grid = np.zeros(cells[rows].max(axis=0) - low + 1, np.uint8)
    grid[at] = classes[rows]
    piece = cc3d.connected_components(grid, connectivity=26)[at]
    result[rows] = np.bincount(piece)[piece] * cell_mm3 > LARGEST_SLIP_MM3
    return result
