"""Steps between the networks: keep the spine, crop to it, merge results."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.grid import Box, foreground_box
from totalspineseg_bids.segmentation.class_map import ClassMap

_STRIDE = 4
_JOIN_CELLS = 2
_SHARE_OF_LARGEST = 0.1
_SMALLEST_SPINE_MM3 = 300.0


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
        The map without what is far; all zero if there is neither canal nor disc.
    """
    kinds = class_map.kinds(semantic)
    core = (kinds == Structure.DISC) | (kinds == Structure.CANAL) | (kinds == Structure.CORD)
    if np.count_nonzero(core) < _SMALLEST_SPINE_MM3:
        return np.zeros_like(semantic)
    counts, any_class = _blocks(core), _blocks(kinds > 0) > 0
    # A few scattered voxels in a block neither found nor join a part.
    joined = ndimage.binary_dilation(any_class, ndimage.generate_binary_structure(3, 2), _JOIN_CELLS)
    numbered, number = ndimage.label(joined, np.ones((3, 3, 3), bool))
    weight = ndimage.sum_labels(counts, numbered, np.arange(number + 1))
    weight[0] = 0
    kept = weight >= max(_SHARE_OF_LARGEST * float(weight.max()), 1.0)
    mask = kept[numbered]
    for axis in range(3):
        mask = np.repeat(mask, _STRIDE, axis=axis)
    mask = mask[: semantic.shape[0], : semantic.shape[1], : semantic.shape[2]]
    return np.where(mask, semantic, np.uint8(0))


def _blocks(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the voxels of a mask in blocks of ``_STRIDE``³."""
    sums = mask.astype(np.int64)
    for axis in range(3):
        sums = np.add.reduceat(sums, np.arange(0, mask.shape[axis], _STRIDE), axis=axis)
    return sums


def spine_box(semantic: NDArray[np.uint8], margin_mm: float, spacing_mm: float) -> Box | None:
    """Return the box of all classes with a margin; ``None`` if there is nothing."""
    return foreground_box(semantic > 0, margin=round(margin_mm / spacing_mm))


def probability_roles(labels: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """List those of cord and canal whose probability a model outputs."""
    return tuple(role for role in ("cord", "canal") if role in labels)
