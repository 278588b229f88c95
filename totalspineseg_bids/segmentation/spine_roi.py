"""Steps between the networks: keep the spine, crop to it, merge results."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.grid import Box, foreground_box
from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LevelPrior

_STRIDE = 4
_JOIN_CELLS = 2
_SHARE_OF_LARGEST = 0.1
_SMALLEST_SPINE_MM3 = 300.0
#: Probability of spine, in a voxel of the level prior, from which it belongs to the region and from which it counts as
#: certain; smallest volume that has to be certain, and its smallest share of the region (assumed).
_POSSIBLE, _CERTAIN = 0.1, 0.5
_LEAST_REGION_MM3 = 5000.0
_LEAST_CERTAIN = 0.4
#: A map within so many voxels of the end of a region may go on beyond it.
_NEAR_END = 3


def keep_spine(semantic: NDArray[np.uint8], class_map: ClassMap) -> NDArray[np.uint8]:
    """Erase components far from the spine.

    Components are joined over gaps of about 16 voxels. A joined component stays if it has at least a tenth of the canal
    and disc voxels of the component with the most of them, so that a column with a gap keeps both ends.

    Parameters
    ----------
    semantic
        Map of a model on the working grid (1 mm), uint8, shape (X, Y, Z).
    class_map
        Meaning of its integers.

    Returns
    -------
    NDArray[np.uint8]
        The map with the spine only (the same array if nothing else is in it); all zero without canal and disc.
    """
    core = class_map.select(semantic, Structure.DISC, Structure.CANAL, Structure.CORD)
    if np.count_nonzero(core) < _SMALLEST_SPINE_MM3:
        return np.zeros_like(semantic)
    counts, any_class = _blocks(core), _blocks(class_map.kinds(semantic) > 0) > 0
    # A few scattered voxels in a block neither found nor join a part.
    joined = ndimage.binary_dilation(any_class, ndimage.generate_binary_structure(3, 2), _JOIN_CELLS)
    numbered, number = ndimage.label(joined, np.ones((3, 3, 3), bool))
    weight = ndimage.sum_labels(counts, numbered, np.arange(number + 1))
    weight[0] = 0
    kept = weight >= max(_SHARE_OF_LARGEST * float(weight.max()), 1.0)
    mask = kept[numbered]
    if mask[any_class].all():
        return semantic
    for axis in range(3):
        mask = np.repeat(mask, _STRIDE, axis=axis)
    mask = mask[: semantic.shape[0], : semantic.shape[1], : semantic.shape[2]]
    return np.where(mask, semantic, np.uint8(0))


def _blocks(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the voxels of a mask in blocks of ``_STRIDE``³."""
    sums = mask.view(np.uint8)  # which holds 4 x 4 x 4
    for axis in range(3):
        along = sums.swapaxes(0, axis)
        first = along[::_STRIDE].copy()
        for offset in range(1, _STRIDE):
            further = along[offset::_STRIDE]
            first[: len(further)] += further
        sums = first.swapaxes(0, axis)
    return sums.astype(np.int64)


def spine_box(semantic: NDArray[np.uint8], margin_mm: float, spacing_mm: float) -> Box | None:
    """Return the box of all classes with a margin; ``None`` if there is nothing."""
    return foreground_box(semantic > 0, margin=round(margin_mm / spacing_mm))


def locate_spine(prior: LevelPrior, geometry: Geometry) -> NDArray[np.bool_] | None:
    """Return the region in which a level prior sees a spine.

    Parameters
    ----------
    prior : LevelPrior
        Probabilities of a coarse network on a grid with the axes of the image.
    geometry : Geometry
        Grid of the image.

    Returns
    -------
    (X, Y, Z) bool or None
        On the grid of the image; None if the network sees no spine. Where it is not certain, the region is limited from
        front to back only.
    """
    spine = [row for row, meaning in enumerate(prior.meanings) if meaning is not None]
    probability = prior.probabilities[spine].sum(axis=0)
    likely, certain = probability > _POSSIBLE, probability > _CERTAIN
    volume = float(np.count_nonzero(certain)) * abs(np.linalg.det(prior.affine[:3, :3]))
    if volume < _LEAST_REGION_MM3:
        return None
    numbered, number = ndimage.label(likely, np.ones((3, 3, 3), bool))
    held = ndimage.sum_labels(certain, numbered, np.arange(number + 1))
    held[0] = 0
    coarse = (held >= _SHARE_OF_LARGEST * held.max())[numbered]
    if np.count_nonzero(certain) < _LEAST_CERTAIN * np.count_nonzero(likely):
        coarse = np.broadcast_to(coarse.any(axis=(0, 2), keepdims=True), coarse.shape)
    to_prior = np.linalg.inv(prior.affine) @ geometry.affine
    for axis in range(3):
        place = np.rint(to_prior[axis, axis] * np.arange(geometry.shape[axis]) + to_prior[axis, 3]).astype(np.intp)
        inside = (place >= 0) & (place < coarse.shape[axis])
        shape = [-1 if k == axis else 1 for k in range(3)]
        coarse = np.take(coarse, np.where(inside, place, 0), axis=axis) & inside.reshape(shape)
    return coarse if coarse.any() else None


def is_cut(semantic: NDArray[np.uint8], region: NDArray[np.bool_], margin: int) -> bool:
    """Return whether a map made in the box of a region, with a margin, reaches the end of the box or is empty.

    Examples
    --------
    >>> region = np.zeros((40, 40, 40), bool)
    >>> region[20:30, 20:30, :30] = True
    >>> is_cut(region.astype(np.uint8), region, margin=5), is_cut(region.astype(np.uint8), region, margin=1)
    (False, True)
    """
    box, found = foreground_box(region, margin), foreground_box(semantic > 0, _NEAR_END)
    if box is None or found is None:
        return box is not None
    ends = zip(box, found, semantic.shape, strict=True)
    return any(
        (part.start > 0 and there.start <= part.start) or (part.stop < length and there.stop >= part.stop)
        for part, there, length in ends
    )
