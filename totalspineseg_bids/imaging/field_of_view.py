"""Acquired field of view of an image, and how it cuts structures at its edge.

The array of an image holds more than the field of view where images were rotated, stitched, corrected for distortion or
defaced: the voxels around it have one value. Lengths are voxels of the working grid (1 mm), and values are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.imaging.centerline import Centerline, Points, Vector
from totalspineseg_bids.imaging.masks import connected_parts
from totalspineseg_bids.imaging.volume import Geometry

#: Number of voxels at the edge of the field of view above which it cuts a structure.
CUT_VOXELS = 3
#: Cosine of the angle between the canal and the normal of an edge above which the edge cuts from above or below.
CUT_COSINE = 0.5
#: Edge length of the smallest block of equal values that counts as padding. Air in which noise was clipped at 0 has
#: smaller blocks.
_BLOCK = 5
#: Distance from padding within which a voxel lies at the edge: resampling mixes the outermost voxels with the padding.
_REACH = 2
#: Standard deviation of the Gaussian filter that smooths padding before its gradient gives the normal of its border.
_SMOOTHING = 1.5


class Cut(IntEnum):
    """Ways in which the field of view cuts a structure, from the least to the most harmful."""

    NONE = 0
    """Not at all."""
    SIDES = 1
    """At its sides only, as in a sagittal slab: its volume is that of the width in view."""
    ACROSS = 2
    """In front or behind, or on one side up to its middle: its volume is unknown."""
    ALONG = 3
    """From above or below: its position along the canal is uncertain too."""


def cut_kinds(normals: Points, up: Vector, front: Vector) -> NDArray[np.int64]:
    """Return the `Cut` by edges of the field of view from their direction.

    Parameters
    ----------
    normals : (N, 3) float
        Unit normals of the edges.
    up, front : (3,) or (N, 3) float
        Unit vectors along the canal and to the front.

    Examples
    --------
    >>> cut_kinds(np.eye(3), up=np.array([0.0, 0.0, 1.0]), front=np.array([0.0, 1.0, 0.0])).tolist()
    [1, 2, 3]
    """

    def cosine(axis: Vector) -> Vector:
        return np.asarray(np.abs((normals * axis).sum(axis=-1)))

    across = np.where(cosine(np.cross(front, up)) > cosine(front), Cut.SIDES, Cut.ACROSS)
    return np.asarray(np.where(cosine(up) > CUT_COSINE, Cut.ALONG, across), np.int64)


@dataclass(frozen=True)
class AcquiredRegion:
    """Acquired part of an array.

    Examples
    --------
    >>> field = AcquiredRegion(Geometry((9, 9, 9), np.eye(4)))
    >>> rows, normals = field.edges(np.array([[4, 4, 4], [4, 4, 8]]))
    >>> rows.tolist(), normals.tolist()
    ([1], [[0.0, 0.0, 1.0]])
    """

    geometry: Geometry
    """Grid of the array."""
    padding: NDArray[np.bool_] | None = None
    """Voxels outside the field of view, on that grid; ``None`` if there are none."""

    @cached_property
    def _near(self) -> NDArray[np.bool_]:
        return np.asarray(ndimage.maximum_filter(self._outside, 2 * _REACH + 1), np.bool_)

    @cached_property
    def _smooth(self) -> NDArray[np.float32]:
        return np.asarray(ndimage.gaussian_filter(self._outside.astype(np.float32), _SMOOTHING, mode="nearest"))

    @property
    def _outside(self) -> NDArray[np.bool_]:
        return np.zeros(self.geometry.shape, np.bool_) if self.padding is None else self.padding

    def _within(self, index: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return the nearest voxels of the array as an index."""
        return tuple(np.moveaxis(np.clip(index, 0, np.array(self.geometry.shape) - 1), -1, 0))

    def is_near_padding(self, index: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which voxels lie in the padding or beside it; ``index`` has the shape (..., 3)."""
        return np.zeros(index.shape[:-1], bool) if self.padding is None else self._near[self._within(index)]

    def edges(self, index: NDArray[np.int64], stride: int = 1) -> tuple[NDArray[np.int64], Points]:
        """Find the voxels at the edge of the field of view.

        Parameters
        ----------
        index : (N, 3) int
            Voxel indices.
        stride : int
            Step of the subsample that they come from.

        Returns
        -------
        rows : (M,) int
            Rows of ``index``; a voxel at several faces of the array occurs several times.
        normals : (M, 3) float
            Unit normals of the edges in the space of the affine, on either side.
        """
        faces = np.linalg.inv(self.geometry.affine[:3, :3])
        at_face = (index < stride) | (index >= np.array(self.geometry.shape) - stride)
        rows, axis = np.nonzero(at_face)
        beside = np.flatnonzero(self.is_near_padding(index))
        normals = faces[axis]
        if len(beside):
            ahead, behind = (
                self._smooth[self._within(index[beside, None] + n * np.eye(3, dtype=int))] for n in (1, -1)
            )
            normals = np.concatenate([normals, (ahead - behind).astype(np.float64) @ faces])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        return np.concatenate([rows, beside]), np.asarray(normals, np.float64)

    def cut_of(self, index: NDArray[np.int64], line: Centerline, center: Vector, stride: int = 1) -> Cut:
        """Return how the field of view cuts a structure.

        Parameters
        ----------
        index : (N, 3) int
            Its voxels.
        line : Centerline
            Centreline of the canal in the space of the affine.
        center : (3,) float
            Centre of the structure in that space.
        stride : int
            Step of the subsample that the voxels come from.

        Returns
        -------
        Cut
            The most harmful one that more than `CUT_VOXELS` voxels have, or have worse.
        """
        rows, normals = self.edges(index, stride)
        at = line.nearest(center)
        kinds = np.zeros(len(index), np.int64)
        np.maximum.at(kinds, rows, cut_kinds(normals, line.direction(at), line.front[at]))
        return Cut(sum(int(np.count_nonzero(kinds >= kind)) * stride**2 > CUT_VOXELS for kind in list(Cut)[1:]))


def find_padding(image: NDArray[np.float32]) -> NDArray[np.bool_] | None:
    """Find the voxels around the field of view: blocks of one value that are connected to a corner of the array.

    Parameters
    ----------
    image : (X, Y, Z) float32
        Intensities on the working grid.

    Returns
    -------
    (X, Y, Z) bool or None
        ``None`` if there is no padding.

    Examples
    --------
    >>> image = np.random.default_rng(0).random((20, 20, 20), np.float32)
    >>> find_padding(image) is None
    True
    >>> image[:, 12:, 15:] = 0
    >>> int(find_padding(image).sum())
    800
    """
    corners = list(product(*((0, n - 1) for n in image.shape)))
    half = _BLOCK // 2
    values = set()
    for corner in corners:
        block = image[tuple(slice(max(c - half, 0), c + half + 1) for c in corner)]
        if block.min() == block.max() < image.max():  # clipped bright voxels are no padding
            values.add(block.max())
    if not values:
        return None
    blocks = ndimage.minimum_filter(np.isin(image, list(values)), _BLOCK)
    parts, _ = connected_parts(ndimage.maximum_filter(blocks, _BLOCK))
    return np.asarray(np.isin(parts, [n for c in corners if (n := parts[c])]))
