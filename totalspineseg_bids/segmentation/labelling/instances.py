"""Voxels to instances: every voxel of a vertebra is given to one of the levels that were found.

Bodies are told apart first (by their class, or by the planes of the discs between them); the posterior elements follow
the bone: each voxel belongs to the body that is nearest *through* bone of its class (`bone_graph.py`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.masks import closed, connected_parts, indices_of
from totalspineseg_bids.segmentation.labelling.bone_graph import NEIGHBOURS, BoneGraph
from totalspineseg_bids.segmentation.labelling.components import in_front
from totalspineseg_bids.segmentation.labelling.observation import Parts, Scene
from totalspineseg_bids.segmentation.labelling.slope import body_height
from totalspineseg_bids.segmentation.layout import Kind, Layout

_REGION_OF_ID = {
    label.id: label.level[0] for label in anatomy.LABELS if label.structure is Structure.VERTEBRA and label.level
}
#: Bone further than this from every body that was found is left out, mm.
_LOOSE_MM = 18.0
#: Bone behind whose height (`slope.py`) is this much above or below those of a body, and nearer to another, may be of
#: the other's vertebra, and beyond the second number is not of the first one's, mm.
_OUT_OF_HEIGHT_MM = (5.0, 8.0)
_CANAL_SPECK_MM3 = 100.0
#: Bone of another class than the vertebra beside it is a slip of that class up to this size, mm³.
_SLIP_MM3 = 800.0
_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1, :, 1] = _IN_PLANE[:, 1, 1] = True


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

    def taken_back(self, instance: NDArray[np.int64], most_mm: float) -> NDArray[np.int64]:
        """Return the instances without the cells that do not fit them."""
        return np.where((instance == 0) | self.fits(instance, most_mm), instance, 0)


def adopt_rest(
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
    nearest = np.full(len(instance), _LOOSE_MM)
    for number in np.unique(instance[instance > 0]):
        rest = left & heights.fits(number, _OUT_OF_HEIGHT_MM[0])
        for group in np.unique(groups[rest]):
            known = np.flatnonzero((instance == number) & (groups == group))
            wanted = np.flatnonzero(rest & (groups == group))
            if len(known):
                distance = np.asarray(cKDTree(points[known]).query(points[wanted], distance_upper_bound=_LOOSE_MM)[0])
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
    result[rows] = np.bincount(piece)[piece] * cell_mm3 > _SLIP_MM3
    return result


def _nearest(
    known: NDArray[np.float64], points: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which points have a known one within reach, and the nearest known one of each of these."""
    distance, nearest = cKDTree(known).query(points, distance_upper_bound=reach)
    near = np.flatnonzero(np.isfinite(distance))
    return near, np.asarray(nearest, np.intp)[near]


@dataclass(frozen=True, slots=True)
class _Bone:
    """The bone of an image on a subsampled grid.

    Attributes
    ----------
    cells
        Grid indices, shape (N, 3).
    points
        The same in local mm.
    classes
        Value of the semantic map, shape (N,).
    height, behind
        Of the body that each is likely to belong to, mm along the canal, and whether it lies behind the bodies.
    cell_mm
        Size of a cell.
    """

    cells: NDArray[np.int64]
    points: NDArray[np.float64]
    classes: NDArray[np.uint8]
    height: NDArray[np.float64]
    behind: NDArray[np.bool_]
    cell_mm: float


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


def _shared_out(bone: _Bone, seeds: NDArray[np.int64], layout: Layout) -> NDArray[np.int64]:
    """Give every bone cell to one of the instances whose bodies are the seeds, or to none (0)."""
    meanings = layout.meanings
    loose = np.array([v for v, m in meanings.items() if m.kind is Kind.VERTEBRA and not m.parity and not m.level])
    heights = _Heights(seeds, bone.height, bone.behind)
    near, far = _OUT_OF_HEIGHT_MM
    ways = BoneGraph(bone.cells, bone.classes, loose, bone.height / bone.cell_mm)
    first = ways.spread(seeds)
    instance = heights.taken_back(first, near)
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
        instance = adopt_rest(bone.points, groups, instance, left, heights)
        instance = heights.taken_back(ways.spread(instance), near)
    # What no other vertebra took stays with the first one, unless it is far from it.
    return np.where(instance == 0, heights.taken_back(first, far), instance)


def paint_vertebrae(
    out: NDArray[np.uint8],
    values: NDArray[np.uint8],
    layout: Layout,
    seeds: NDArray[np.uint8],
    *,
    stride: int,
    scene: Scene,
) -> None:
    """Write the vertebrae into ``out``.

    Parameters
    ----------
    out
        Label map to write to, shape (X, Y, Z).
    values
        Semantic map on the same grid.
    layout
        Its layout.
    seeds
        Canonical id of the body cells on every ``stride``-th voxel, 0 elsewhere.
    stride
        Step of the subsample.
    scene
        Grid and centreline.
    """
    mask = layout.kinds(values) == Kind.VERTEBRA
    coarse = values[::stride, ::stride, ::stride]
    cells = indices_of(mask[::stride, ::stride, ::stride])
    if len(cells) == 0:
        return
    at = cells[:, 0], cells[:, 1], cells[:, 2]
    points, bodies = cells * (stride * scene.spacing), seeds[at].astype(np.int64)
    place = scene.line.project(points)
    height, behind = body_height(place, _regions(place.s, bodies))
    bone = _Bone(cells, points, coarse[at], height, behind, stride * float(scene.spacing.mean()))
    grid = np.zeros((2, *coarse.shape), np.uint8)
    grid[0][at], grid[1][at] = _shared_out(bone, bodies, layout), bone.classes
    # Most voxels have the class of the cell they lie in; few are looked up one by one.
    label, cell_class = (_refined(part, stride, values.shape) for part in grid)
    astray = indices_of(mask & (cell_class != values))
    if len(astray):
        at = astray[:, 0], astray[:, 1], astray[:, 2]
        label[at] = _of_strays(astray, values[at], grid, cells, stride=stride, spacing=scene.spacing)
    np.copyto(out, label, where=mask)


def _refined(grid: NDArray[np.uint8], stride: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Give every voxel the value of the cell of the subsampled grid that it lies in."""
    for axis in range(3):
        grid = grid.repeat(stride, axis)
    return np.ascontiguousarray(grid[: shape[0], : shape[1], : shape[2]])


def _of_strays(
    astray: NDArray[np.int64],
    fine_class: NDArray[np.uint8],
    grid: NDArray[np.uint8],
    cells: NDArray[np.int64],
    *,
    stride: int,
    spacing: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Return the instance of voxels whose class is not that of the cell they lie in; 0 where there is none near."""
    label = _of_neighbours(grid, tuple((astray // stride).T), fine_class)
    at = cells[:, 0], cells[:, 1], cells[:, 2]
    instance, classes = grid[0][at], grid[1][at]
    left = np.flatnonzero(label == 0)
    for value in np.unique(fine_class[left]):
        mine = left[fine_class[left] == value]
        same = np.flatnonzero((classes == value) & (instance > 0))
        pool = same if len(same) else np.flatnonzero(instance > 0)
        if len(pool) == 0:
            continue
        reach = 4.0 * stride * float(spacing.max())
        near, nearest = _nearest(cells[pool] * (stride * spacing), astray[mine] * spacing, reach)
        label[mine[near]] = instance[pool[nearest]]
    return label


def _of_neighbours(
    grid: NDArray[np.uint8], cell: tuple[NDArray[np.int64], ...], classes: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the instance of a neighbouring cell of the same class, the nearest kind of neighbour first; 0 without.

    Parameters
    ----------
    grid
        Instance and class of each cell, shape (2, X, Y, Z).
    cell, classes
        Where to look from, and the class to look for, N each.
    """
    padded = np.pad(grid, ((0, 0), (1, 1), (1, 1), (1, 1)))
    result = np.zeros(len(classes), np.uint8)
    left = np.arange(len(classes))
    steps = [*NEIGHBOURS, *itertools.product((-1, 1), repeat=3)]
    for step in sorted({*steps, *(tuple(-k for k in s) for s in steps)}, key=lambda s: sum(map(abs, s))):
        at = tuple(c[left] + 1 + k for c, k in zip(cell, step, strict=True))
        same = padded[1][at] == classes[left]
        result[left[same]] = padded[0][at][same]
        left = left[result[left] == 0]
    return result


def body_cells(points: NDArray[np.float64], scene: Scene) -> NDArray[np.bool_]:
    """Tell which points lie where vertebral bodies do: in front of the canal and near the midline."""
    return in_front(scene.line.project(points))


def paint_parts(out: NDArray[np.uint8], parts: Parts, ids: dict[int, int]) -> None:
    """Write components into ``out`` by the canonical id of each part; parts without an id are left out."""
    if not ids or len(parts.part) == 0:
        return
    table = np.zeros(max(int(parts.part.max()), *ids) + 2, np.uint8)
    for part, number in ids.items():
        table[part] = number
    label = table[parts.part]
    used = label > 0
    out[parts.index[used, 0], parts.index[used, 1], parts.index[used, 2]] = label[used]


def paint_canal(out: NDArray[np.uint8], kinds: NDArray[np.uint8], cord_id: int, canal_id: int, scene: Scene) -> None:
    """Write cord and canal (canal without cord) into ``out`` and close what lies between cord and canal wall.

    A voxel that is nothing becomes canal where it is enclosed by cord and canal, in three dimensions after a closing
    by two voxels and in each axial slice.
    """
    whole = (kinds == Kind.CANAL) | (kinds == Kind.CORD)
    slices = ndimage.find_objects(whole.astype(np.uint8))
    if not slices or slices[0] is None:
        return
    box = tuple(slice(max(s.start - 3, 0), min(s.stop + 3, n)) for s, n in zip(slices[0], whole.shape, strict=True))
    whole = whole[box]
    numbered, number = connected_parts(whole)
    sizes = np.bincount(numbered.ravel())[1:] * scene.voxel_mm3
    speck = np.concatenate([[True], (sizes < _CANAL_SPECK_MM3) & (sizes < sizes.max())])
    if number > 1 and speck[1:].any():
        whole = ~speck[numbered]
    filled = closed(np.pad(whole, 1), 2)
    # Holes of all axial slices at once: what is not joined to the border within its slice.
    outside, _ = ndimage.label(~filled, _IN_PLANE)
    at_border = np.zeros(int(outside.max()) + 1, bool)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        at_border[edge.ravel()] = True
    filled |= ~at_border[outside]
    filled = filled[1:-1, 1:-1, 1:-1]
    region, kind = out[box], kinds[box]
    cord = whole & (kind == Kind.CORD)
    free = (region == 0) & (kind == Kind.NONE)
    region[(whole & ~cord) | (filled & free)] = canal_id
    region[cord] = cord_id
