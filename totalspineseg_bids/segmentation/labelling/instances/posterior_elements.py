"""Assign each voxel of the class vertebra to one of the vertebral bodies found, or to none.

Voxels follow the shortest path through bone (`voxel_graph`); what no path reaches is assigned to the nearest vertebra.
Both take into account the height at which the posterior elements of a body are expected (`body_height`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.centerline import Centerline, Projection
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling.instances import parameters
from totalspineseg_bids.segmentation.labelling.instances.voxel_graph import VoxelGraph


def body_height(place: Projection, region: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the expected height of the body that bone at each point belongs to.

    Parameters
    ----------
    place
        N points relative to the centreline of the canal.
    region
        Region of the column at each point: ``C``, ``T``, ``L``, or empty if unknown, shape (N,).

    Returns
    -------
    height
        Arc length along the centreline, mm, caudal is larger, shape (N,).
    behind
        Whether the point lies behind the bodies, shape (N,).
    """
    below = np.zeros(len(region))
    for name, profile in parameters.PROFILE_BELOW_BODY_MM.items():
        here = region == name
        below[here] = np.interp(place.anterior[here], parameters.PROFILE_ANTERIOR_MM, profile)
    return place.s - below, place.anterior < parameters.POSTERIOR_FROM_MM


_REGION_OF_ID = {
    label.id: label.level[0] for label in anatomy.LABELS if label.structure is Structure.VERTEBRA and label.level
}


@dataclass(frozen=True, slots=True)
class VertebraVoxels:
    """Voxels of all vertebrae of an image on a subsampled grid, called cells."""

    cells: NDArray[np.int64]
    """Grid indices, shape (N, 3)."""
    points: NDArray[np.float64]
    """The same in local mm."""
    classes: NDArray[np.uint8]
    """Value of the semantic map, shape (N,)."""
    height: NDArray[np.float64]
    """Expected height of the body of each cell, mm along the canal, shape (N,)."""
    behind: NDArray[np.bool_]
    """Whether the cell lies behind the bodies, shape (N,)."""
    cell_mm: float
    """Mean edge length of a cell, mm."""

    @classmethod
    def relative_to_canal(
        cls,
        cells: NDArray[np.int64],
        classes: NDArray[np.uint8],
        seeds: NDArray[np.int64],
        *,
        cell: NDArray[np.float64],
        line: Centerline,
    ) -> VertebraVoxels:
        """Locate cells relative to the canal.

        Parameters
        ----------
        cells
            Grid indices, shape (N, 3).
        classes
            Value of the semantic map, shape (N,).
        seeds
            Instance number of each cell of a body, 0 for others, shape (N,).
        cell
            Size of a cell along each axis, mm.
        line
            Centreline of the canal.
        """
        points = cells * cell
        place = line.project(points)
        return cls(cells, points, classes, *body_height(place, regions_along_canal(place.s, seeds)), float(cell.mean()))


def regions_along_canal(s: NDArray[np.float64], seeds: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the region (C, T, L) of the nearest body along the canal for each ``s``; empty for an unnamed body."""
    numbers = np.unique(seeds[seeds > 0])
    if len(numbers) == 0:
        return np.full(len(s), "", "<U1")
    middle = np.array([s[seeds == number].mean() for number in numbers])
    names = np.array([_REGION_OF_ID.get(int(number), "") for number in numbers], "<U1")
    order = np.argsort(middle)
    borders = (middle[order][1:] + middle[order][:-1]) / 2
    return np.asarray(names[order][np.searchsorted(borders, s)])


def assign(bone: VertebraVoxels, seeds: NDArray[np.int64], layout: ClassMap) -> NDArray[np.int64]:
    """Assign every cell to one of the instances whose bodies are the seeds, or to none (0).

    Parameters
    ----------
    bone
        Voxels of all vertebrae on the subsampled grid.
    seeds
        Instance number of each cell of a body, 0 for others, shape (N,).
    layout
        Meaning of the classes.

    Returns
    -------
    NDArray[np.int64]
        Instance number of each cell, shape (N,).
    """
    meanings = layout.meanings
    loose = np.array([v for v, m in meanings.items() if m.kind is Structure.VERTEBRA and not m.parity and not m.level])
    heights = _Heights(seeds, bone.height, bone.behind)
    near, far = parameters.HEIGHT_TOLERANCE_MM
    graph = VoxelGraph(bone.cells, bone.classes, loose, bone.height / bone.cell_mm)
    first = graph.grow(seeds)
    instance = heights.reject_distant(first, near)
    for same_class in (True, False):
        # Pieces without a connection to a body, such as a spinous process whose lamina was missed, follow the nearest
        # bone.
        left = instance == 0
        if not left.any():
            break
        if not same_class and layout.separates_vertebrae:
            # A cell connected to a body through its class does not belong to a body of another class.
            slip = (first == 0) & ~_large_pieces(bone.cells, bone.classes, left, bone.cell_mm**3)
            left &= np.isin(bone.classes, loose) | slip
        groups = bone.classes if same_class else np.zeros_like(bone.classes)
        instance = _assign_to_nearest(bone.points, groups, instance, left, heights)
        instance = heights.reject_distant(graph.grow(instance), near)
    # Cells that were assigned to no other vertebra return to the first one unless they are far from it.
    return np.where(instance == 0, heights.reject_distant(first, far), instance)


class _Heights:
    """Heights of the bodies found, compared with the expected heights of the cells behind them.

    Parameters
    ----------
    seeds
        Instance number of each cell of a body, 0 for others, shape (N,).
    height
        Expected height of the body of each cell, mm along the canal, shape (N,).
    behind
        Whether the cell lies behind the bodies, where heights separate neighbours, shape (N,).
    """

    def __init__(self, seeds: NDArray[np.int64], height: NDArray[np.float64], behind: NDArray[np.bool_]) -> None:
        seeded = np.flatnonzero(seeds)
        self._low, self._high = np.full(256, np.inf), np.full(256, -np.inf)
        np.minimum.at(self._low, seeds[seeded], height[seeded])
        np.maximum.at(self._high, seeds[seeded], height[seeded])
        self._height, self._behind = height, behind
        found = np.isfinite(self._low)
        # C1 has no body; the dens of C2 lies inside its ring.
        bodies = np.setdiff1d(np.flatnonzero(found), anatomy.vertebra("C1").id)
        middles = np.sort((self._low[bodies] + self._high[bodies]) / 2)
        #: Number of middles of bodies above each cell, and above both ends of each instance.
        self._above, self._above_low, self._above_high = (
            np.searchsorted(middles, heights) for heights in (height, self._low, self._high)
        )
        #: Distance of each cell from the height range of the nearest body, mm.
        self._least = np.full(len(height), np.inf)
        for low, high in zip(self._low[found], self._high[found], strict=True):
            np.minimum(self._least, np.maximum(low - height, height - high), out=self._least)

    def fits(self, instance: NDArray[np.int64], most_mm: float) -> NDArray[np.bool_]:
        """Return which cells may belong to an instance by their height, shape (N,).

        A cell that does not fit belongs to a vertebra whose body is out of view or was missed. A path within its class,
        which it shares with every second vertebra, led past its neighbour to the instance.

        Parameters
        ----------
        instance
            Instance number of each cell, shape (N,), or one number for all.
        most_mm
            Largest distance from the height range of the instance, unless no other body is nearer, mm.
        """
        off = np.maximum(self._low[instance] - self._height, self._height - self._high[instance])
        posterior = (off <= most_mm) | (off <= self._least)
        return np.asarray(np.where(self._behind, posterior, ~self._beyond_another(instance)))

    def _beyond_another(self, instance: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which cells have the middle of another body between them and their instance, shape (N,)."""
        return np.asarray((self._above_low[instance] > self._above) | (self._above_high[instance] < self._above))

    def reject_distant(self, instance: NDArray[np.int64], most_mm: float) -> NDArray[np.int64]:
        """Set the instance of cells that do not fit it to 0; ``most_mm`` as in `fits`."""
        return np.where((instance == 0) | self.fits(instance, most_mm), instance, 0)


def _assign_to_nearest(
    points: NDArray[np.float64],
    groups: NDArray[np.uint8],
    instance: NDArray[np.int64],
    left: NDArray[np.bool_],
    heights: _Heights,
) -> NDArray[np.int64]:
    """Assign cells to the nearest instance that fits their height, within `LARGEST_DISTANCE_MM`.

    Parameters
    ----------
    points
        Local mm, shape (N, 3).
    groups
        Group of each cell; a cell is assigned to an instance of its group only, shape (N,).
    instance
        Instance number of each cell, 0 for none, shape (N,).
    left
        Cells to assign, shape (N,).
    heights
        Heights of the bodies.
    """
    result = instance.copy()
    nearest = np.full(len(instance), parameters.LARGEST_DISTANCE_MM)
    for number in np.unique(instance[instance > 0]):
        rest = left & heights.fits(number, parameters.HEIGHT_TOLERANCE_MM[0])
        for group in np.unique(groups[rest]):
            known = np.flatnonzero((instance == number) & (groups == group))
            candidates = np.flatnonzero(rest & (groups == group))
            if len(known):
                distance = np.asarray(
                    cKDTree(points[known]).query(
                        points[candidates], distance_upper_bound=parameters.LARGEST_DISTANCE_MM
                    )[0]
                )
                closer = distance < nearest[candidates]
                result[candidates[closer]] = number
                nearest[candidates[closer]] = distance[closer]
    return result


def _large_pieces(
    cells: NDArray[np.int64], classes: NDArray[np.uint8], left: NDArray[np.bool_], cell_mm3: float
) -> NDArray[np.bool_]:
    """Return which cells belong to a connected piece of one class that is too large for a classification error.

    Such a piece belongs to a vertebra whose body is out of view or was missed; its neighbours have the other class.
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
    result[rows] = np.bincount(piece)[piece] * cell_mm3 > parameters.LARGEST_SLIP_MM3
    return result
