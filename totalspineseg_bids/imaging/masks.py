"""Work on masks of a whole field of view, several times faster than the general functions of numpy and scipy."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray


def indices_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the indices of the voxels of a mask, shape (N, 3), in the order of ``numpy.argwhere``.

    A search in one dimension is what numpy does fast; its search in three costs as much a voxel whether set or not.
    """
    flat = np.flatnonzero(np.ascontiguousarray(mask))
    return np.stack(np.unravel_index(flat, mask.shape), axis=1)


def looked_up(labels: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``table[labels]`` for a table of 256 bytes; Python's own byte translation takes a tenth of the time."""
    flat = bytearray(np.ascontiguousarray(labels)).translate(table.astype(np.uint8).tobytes())
    return np.frombuffer(flat, np.uint8).reshape(labels.shape)


def connected_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.integer], int]:
    """Find the parts of a mask that are connected through faces, and give them numbers.

    Returns
    -------
    tuple
        The part of each voxel from 1, 0 outside, and how many there are.
    """
    if mask.size == 0:
        return np.zeros(mask.shape, np.uint16), 0
    numbered, number = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=6, return_N=True)
    return np.asarray(numbered), int(number)


def closed(mask: NDArray[np.bool_], voxels: int) -> NDArray[np.bool_]:
    """Close gaps of up to twice ``voxels`` between faces (dilate, then erode, by a cross); outside counts as empty."""
    padded = np.pad(mask, voxels + 1)
    for _ in range(voxels):
        padded = _grown(padded)
    np.logical_not(padded, out=padded)
    for _ in range(voxels):
        padded = _grown(padded)
    inner = (slice(voxels + 1, -(voxels + 1)),) * 3
    return np.logical_not(padded[inner])


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    grown = mask.copy()
    for axis in range(3):
        low = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        high = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        grown[low] |= mask[high]
        grown[high] |= mask[low]
    return grown
