"""Write the voxels of vertebrae, components, cord and canal into a label map.

Bodies are separated first, by their class or by the planes of the discs between them; the posterior elements follow by
their connection to the bodies (`posterior_elements`).
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.grid import foreground_box
from totalspineseg_bids.imaging.masks import close_gaps, connected_parts, indices_of
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling.instances.parameters import CANAL_SPECK_MM3
from totalspineseg_bids.segmentation.labelling.instances.posterior_elements import VertebraVoxels, assign
from totalspineseg_bids.segmentation.labelling.instances.voxel_graph import NEIGHBOURS
from totalspineseg_bids.segmentation.labelling.records import ComponentVoxels, SpineContext

_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1, :, 1] = _IN_PLANE[:, 1, 1] = True
#: Axial slices that are filled together.
_SLICES = 32


def _nearest(
    known: NDArray[np.float64], points: NDArray[np.float64], reach: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows of points with a known point within ``reach`` mm, and the nearest known point of each."""
    distance, nearest = cKDTree(known).query(points, distance_upper_bound=reach)
    near = np.flatnonzero(np.isfinite(distance))
    return near, np.asarray(nearest, np.intp)[near]


def draw_vertebrae(
    out: NDArray[np.uint8],
    values: NDArray[np.uint8],
    layout: ClassMap,
    seeds: NDArray[np.uint8],
    *,
    stride: int,
    context: SpineContext,
) -> None:
    """Write the vertebrae into ``out``.

    Parameters
    ----------
    out
        Label map to write to, shape (X, Y, Z).
    values
        Semantic map on the same grid.
    layout
        Meaning of the integers of the map.
    seeds
        Canonical id of the body cells on every ``stride``-th voxel, 0 elsewhere.
    stride
        Step of the subsample.
    context
        Grid and centreline.
    """
    mask = layout.kinds(values) == Structure.VERTEBRA
    coarse = values[::stride, ::stride, ::stride]
    cells = indices_of(mask[::stride, ::stride, ::stride])
    if len(cells) == 0:
        return
    at = cells[:, 0], cells[:, 1], cells[:, 2]
    bodies = seeds[at].astype(np.int64)
    bone = VertebraVoxels.relative_to_canal(
        cells, coarse[at], bodies, cell=stride * context.spacing, line=context.centerline
    )
    grid = np.zeros((2, *coarse.shape), np.uint8)
    grid[0][at], grid[1][at] = assign(bone, bodies, layout), bone.classes
    # Most voxels have the class of their cell; only the others are searched one by one.
    label, cell_class = (_upsample(part, stride, values.shape) for part in grid)
    astray = indices_of(mask & (cell_class != values))
    if len(astray):
        at = astray[:, 0], astray[:, 1], astray[:, 2]
        label[at] = _instance_of_strays(astray, values[at], grid, cells, stride=stride, spacing=context.spacing)
    np.copyto(out, label, where=mask)


def _upsample(grid: NDArray[np.uint8], stride: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Repeat the cells of a subsampled grid to fill a grid of ``shape``."""
    for axis in range(3):
        grid = grid.repeat(stride, axis)
    return np.ascontiguousarray(grid[: shape[0], : shape[1], : shape[2]])


def _instance_of_strays(
    astray: NDArray[np.int64],
    fine_class: NDArray[np.uint8],
    grid: NDArray[np.uint8],
    cells: NDArray[np.int64],
    *,
    stride: int,
    spacing: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Return the instance of voxels whose class differs from that of their cell; 0 if none is near."""
    label = _instance_of_neighbours(grid, tuple((astray // stride).T), fine_class)
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


def _instance_of_neighbours(
    grid: NDArray[np.uint8], cell: tuple[NDArray[np.int64], ...], classes: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the instance of the nearest neighbouring cell of the same class, 0 if there is none.

    Parameters
    ----------
    grid
        Instance and class of each cell, shape (2, X, Y, Z).
    cell
        Grid indices of N cells along each axis.
    classes
        Class to search for around each cell, shape (N,).
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


def draw_components(out: NDArray[np.uint8], parts: ComponentVoxels, ids: dict[int, int]) -> None:
    """Write components into ``out`` by the canonical id of each part; parts without an id are left out."""
    if not ids or len(parts.part) == 0:
        return
    table = np.zeros(max(int(parts.part.max()), *ids) + 2, np.uint8)
    for part, number in ids.items():
        table[part] = number
    label = table[parts.part]
    used = label > 0
    out[parts.index[used, 0], parts.index[used, 1], parts.index[used, 2]] = label[used]


def draw_canal(
    out: NDArray[np.uint8], kinds: NDArray[np.uint8], cord_id: int, canal_id: int, context: SpineContext
) -> None:
    """Write cord and canal (without the cord) into ``out`` and close gaps between cord and canal wall.

    Background that is enclosed by cord and canal becomes canal: in three dimensions after a closing by two voxels, and
    in each axial slice.
    """
    whole = (kinds == Structure.CANAL) | (kinds == Structure.CORD)
    box = foreground_box(whole, margin=3)
    if box is None:
        return
    whole = whole[box]
    numbered, number = connected_parts(whole)
    sizes = np.bincount(numbered[whole])[1:] * context.voxel_mm3
    speck = np.concatenate([[True], (sizes < CANAL_SPECK_MM3) & (sizes < sizes.max())])
    if number > 1 and speck[1:].any():
        whole = ~speck[numbered]
    filled = close_gaps(np.pad(whole, 1), 2)
    _fill_axial_slices(filled)
    filled = filled[1:-1, 1:-1, 1:-1]
    region, kind = out[box], kinds[box]
    cord = whole & (kind == Structure.CORD)
    free = (region == 0) & (kind == Structure.NONE)
    region[(whole & ~cord) | (filled & free)] = canal_id
    region[cord] = cord_id


def _fill_axial_slices(mask: NDArray[np.bool_]) -> None:
    """Fill background that is not connected to the border of the array within its axial slice.

    The box of a few slices is much smaller than that of a curved canal.
    """
    for start in range(0, mask.shape[2], _SLICES):
        slices = mask[:, :, start : start + _SLICES]
        box = foreground_box(slices, margin=1)
        if box is None:
            continue
        outside, number = ndimage.label(~slices[box], _IN_PLANE)
        at_border = np.zeros(number + 1, bool)
        for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
            at_border[edge.ravel()] = True
        slices[box] |= ~at_border[outside]
