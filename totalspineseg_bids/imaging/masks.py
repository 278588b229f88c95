"""Operations on masks of a whole field of view, several times faster than the general ones of numpy and scipy."""

from __future__ import annotations

import cc3d
import numpy as np
from numpy.typing import NDArray


def indices_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the indices of the voxels of a mask, shape (N, 3), in the order of ``numpy.argwhere``.

    numpy searches a one-dimensional array several times faster than a three-dimensional one.

    Examples
    --------
    >>> indices_of(np.eye(2, dtype=bool)[None]).tolist()
    [[0, 0, 0], [0, 1, 1]]
    """
    flat = np.flatnonzero(np.ascontiguousarray(mask))
    return np.stack(np.unravel_index(flat, mask.shape), axis=1)


def rows_by_value(values: NDArray[np.integer]) -> dict[int, NDArray[np.int64]]:
    """Return the rows of each value that occurs among values of 0 and more, shape (N,); values and rows ascend.

    Examples
    --------
    >>> {value: rows.tolist() for value, rows in rows_by_value(np.array([7, 2, 7])).items()}
    {2: [1], 7: [0, 2]}
    """
    counts = np.bincount(values)
    present = np.flatnonzero(counts)
    rows = np.split(np.argsort(values, kind="stable"), np.cumsum(counts[present])[:-1])
    return dict(zip(present.tolist(), rows, strict=False))  # without values, one empty group remains


def apply_table(labels: NDArray[np.uint8], table: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return ``table[labels]`` for a table of 256 bytes, in a tenth of the time that numpy needs.

    Examples
    --------
    >>> apply_table(np.array([0, 3], np.uint8), np.arange(256, dtype=np.uint8)[::-1]).tolist()
    [255, 252]
    """
    flat = bytearray(np.ascontiguousarray(labels)).translate(table.astype(np.uint8).tobytes())
    return np.frombuffer(flat, np.uint8).reshape(labels.shape)


def connected_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.integer], int]:
    """Label the parts of a mask that are connected through voxel faces.

    Returns
    -------
    labels : (X, Y, Z) int
        Number of the part of each voxel, from 1; 0 outside the mask.
    count : int
        Number of parts.

    Examples
    --------
    >>> labels, count = connected_parts(np.array([True, False, True]).reshape(3, 1, 1))
    >>> labels.ravel().tolist(), count
    ([1, 0, 2], 2)
    """
    if mask.size == 0:
        return np.zeros(mask.shape, np.uint16), 0
    numbered, number = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=6, return_N=True)
    return np.asarray(numbered), int(number)


def surface_of(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of a mask that have a face in common with a voxel outside it or with the end of the array.

    Examples
    --------
    >>> int(surface_of(np.ones((3, 3, 3), bool)).sum())
    26
    """
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, source = inner.swapaxes(0, axis), mask.swapaxes(0, axis)
        along[1:] &= source[:-1]
        along[:-1] &= source[1:]
        along[:1] = along[-1:] = False
    return mask & ~inner


def close_gaps(mask: NDArray[np.bool_], voxels: int) -> NDArray[np.bool_]:
    """Close gaps of up to twice ``voxels`` by a morphological closing with a cross; outside the array is empty.

    Examples
    --------
    >>> mask = np.ones((3, 3, 3), bool)
    >>> mask[1, 1, 1] = False
    >>> bool(close_gaps(mask, 1).all())
    True
    """
    padded = np.pad(mask, voxels + 1)
    for _ in range(voxels):
        padded = _grown(padded)
    np.logical_not(padded, out=padded)
    for _ in range(voxels):
        padded = _grown(padded)
    inner = (slice(voxels + 1, -(voxels + 1)),) * 3
    return np.logical_not(padded[inner])


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Dilate a mask by one voxel through faces."""
    grown = mask.copy()
    for axis in range(3):
        low = tuple(slice(None, -1) if k == axis else slice(None) for k in range(3))
        high = tuple(slice(1, None) if k == axis else slice(None) for k in range(3))
        grown[low] |= mask[high]
        grown[high] |= mask[low]
    return grown
