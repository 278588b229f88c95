"""Move images and label maps between grids: reorientation, isotropic resampling and their inverses.

The *working grid* of the program is canonical RAS with isotropic voxels. Axes are reordered and flipped to the nearest
RAS axes and resampled along themselves. An oblique image stays oblique, because removing the rotation would require
interpolation in all directions at once, which blurs the image.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray

from totalspineseg_bids.imaging.volume import Affine, Geometry, Volume

#: Voxels processed at a time when labels move to a general grid; limits memory to about 0.5 GB.
_SLAB_VOXELS = 4_000_000
#: Full width at half maximum of a Gaussian in standard deviations.
_FWHM_PER_SIGMA = 2.0 * float(np.sqrt(2.0 * np.log(2.0)))
_EPSILON = 1e-4
#: Smallest and largest margin, in logits, used to place a border between two voxels. Larger margins carry no more
#: information about the position of the border.
_MARGINS = (0.05, 8.0)

Box = tuple[slice, slice, slice]
VoxelValue = TypeVar("VoxelValue", bound=np.generic)


def to_canonical(volume: Volume) -> Volume:
    """Reorder and flip the axes to the nearest RAS axes; no value is interpolated.

    Parameters
    ----------
    volume : Volume
        Image of any orientation.

    Returns
    -------
    Volume
        The same voxels; the data may be a view of the input.

    Examples
    --------
    >>> to_canonical(Volume(np.zeros((2, 3, 4)), np.diag([-1.0, -1.0, 1.0, 1.0]))).geometry.orientation
    'RAS'
    """
    orientation = nib.orientations.io_orientation(volume.affine)
    if np.array_equal(orientation, [[0, 1], [1, 1], [2, 1]]):
        return volume
    data = nib.orientations.apply_orientation(volume.data, orientation)
    affine = volume.affine @ nib.orientations.inv_ornt_aff(orientation, volume.data.shape)
    return Volume(data, np.asarray(affine, np.float64))


def working_geometry(geometry: Geometry, spacing: float = 1.0) -> Geometry:
    """Return the canonical isotropic grid that covers the field of view of another grid.

    Both grids share the centre of the field of view, so that the result does not depend on the orientation in which
    the voxels are stored. The axes of the result are perpendicular; for a sheared grid they are the nearest ones that
    are.

    Parameters
    ----------
    geometry : Geometry
        Grid of the image.
    spacing : float
        Voxel size of the result, mm.

    Returns
    -------
    Geometry
        Grid whose axes are the image's own, reordered to RAS.

    Examples
    --------
    >>> working_geometry(Geometry((10, 20, 5), np.diag([1.0, 1.0, 3.0, 1.0]))).shape
    (10, 20, 15)
    """
    orientation = nib.orientations.io_orientation(geometry.affine)
    affine = geometry.affine @ nib.orientations.inv_ornt_aff(orientation, geometry.shape)
    source: list[int] = [0, 0, 0]
    for axis, (target, _) in enumerate(orientation):
        source[int(target)] = geometry.shape[axis]
    voxel = voxel_sizes(affine)
    if geometry.is_sheared:
        return _upright(affine, np.asarray(source), spacing)
    shape = [max(1, round(n * s / spacing - _EPSILON)) for n, s in zip(source, voxel, strict=True)]
    step = spacing / voxel
    if np.allclose(step, 1.0, atol=_EPSILON):
        return Geometry((source[0], source[1], source[2]), np.asarray(affine, np.float64))
    start = (np.asarray(source) - 1) / 2 - step * (np.asarray(shape) - 1) / 2
    result = np.eye(4)
    result[:3, :3] = affine[:3, :3] * step
    result[:3, 3] = apply_affine(affine, start)
    return Geometry((shape[0], shape[1], shape[2]), result)


def _upright(affine: Affine, shape: NDArray[np.int_], spacing: float) -> Geometry:
    """Return the isotropic grid with perpendicular axes around the field of view of a sheared one."""
    left, _, right = np.linalg.svd(affine[:3, :3] / voxel_sizes(affine))
    axes = left @ right
    corners = apply_affine(affine, np.array(list(np.ndindex(2, 2, 2))) * shape - 0.5) @ axes
    low, high = corners.min(axis=0), corners.max(axis=0)
    count = np.maximum(1, np.ceil((high - low) / spacing - _EPSILON).astype(int))
    result = np.eye(4)
    result[:3, :3] = axes * spacing
    result[:3, 3] = axes @ ((low + high - spacing * (count - 1)) / 2)
    return Geometry((int(count[0]), int(count[1]), int(count[2])), result)


def to_working_grid(volume: Volume, spacing: float = 1.0) -> Volume:
    """Resample an image to canonical RAS axes and isotropic voxels.

    Interpolation is linear, as in the training of the public models; it does not overshoot. Axes that become coarser
    are smoothed first with a Gaussian that widens a voxel's profile to the new voxel size,
    which prevents aliasing. An image that already is on such a grid is returned as float32 without interpolation.

    Parameters
    ----------
    volume : Volume
        3D image of any orientation and voxel size.
    spacing : float
        Voxel size of the result, mm.

    Returns
    -------
    Volume
        float32 image on the grid that `working_geometry` returns.

    Examples
    --------
    >>> image = Volume(np.zeros((4, 4, 2), np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
    >>> to_working_grid(image).data.shape
    (4, 4, 4)
    """
    from scipy import ndimage  # noqa: PLC0415 - takes 0.3 s

    target = working_geometry(volume.geometry, spacing)
    canonical = to_canonical(volume)
    data = np.ascontiguousarray(canonical.data, dtype=np.float32)
    if target.shape == data.shape and np.allclose(canonical.affine, target.affine, atol=1e-6):
        return Volume(data, target.affine)
    ratio = spacing / np.asarray(canonical.spacing)
    for axis in range(3):
        if ratio[axis] > 1.0 + 1e-3 and data.shape[axis] > 1:
            sigma = float(np.sqrt(ratio[axis] ** 2 - 1.0)) / _FWHM_PER_SIGMA
            data = ndimage.gaussian_filter1d(data, sigma, axis=axis, mode="nearest", truncate=3.0)
    matrix = np.linalg.inv(canonical.affine) @ target.affine
    if volume.geometry.is_sheared:
        # The corners of the new grid are outside of the image.
        resampled = ndimage.affine_transform(  # type: ignore[call-overload]
            data, matrix[:3, :3], matrix[:3, 3], target.shape, np.float32, order=1, cval=float(data.min())
        )
        return Volume(np.asarray(resampled, np.float32), target.affine)
    return Volume(_linear_axes(data, np.diag(matrix)[:3], matrix[:3, 3], target.shape), target.affine)


def _linear_axes(
    data: NDArray[np.float32], step: NDArray[np.float64], start: NDArray[np.float64], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Interpolate linearly along each axis in turn, the axes that shrink most first; edge values are repeated."""
    for axis in sorted(range(3), key=lambda k: shape[k] / data.shape[k]):
        count = data.shape[axis]
        position = np.clip(start[axis] + step[axis] * np.arange(shape[axis]), 0, count - 1)
        lower = np.floor(position).astype(np.intp)
        weight = (position - lower).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
        low = np.take(data, lower, axis=axis)
        if np.any(weight > _EPSILON):
            low += (np.take(data, np.minimum(lower + 1, count - 1), axis=axis) - low) * weight
        data = low
    return data


def restore_probability(p: NDArray[np.float32], affine: Affine, target: Geometry) -> NDArray[np.float32]:
    """Interpolate a probability map linearly on another grid.

    Parameters
    ----------
    p : (X, Y, Z) float32
        Probability map.
    affine : (4, 4) float
        Voxel index of ``p`` to scanner space (RAS+, mm).
    target : Geometry
        Grid of the result.

    Returns
    -------
    ndarray of float32
        Map on ``target``, 0 outside the field of view of ``p``. Edge values extend to the outer faces of the voxels.

    Examples
    --------
    >>> half = Geometry((3, 1, 1), np.diag([0.5, 1.0, 1.0, 1.0]))
    >>> restore_probability(np.array([0.0, 1.0], np.float32).reshape(2, 1, 1), np.eye(4), half).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    from scipy import ndimage  # noqa: PLC0415 - takes 0.3 s

    source = Geometry((p.shape[0], p.shape[1], p.shape[2]), affine)
    if source.same_grid(target):
        return p.astype(np.float32, copy=True)
    matrix = np.linalg.inv(affine) @ target.affine
    result = np.zeros(target.shape, np.float32)
    box = reachable_box(matrix, [(0, n) for n in p.shape], target.shape)
    if box is None:
        return result
    offset = matrix[:3, :3] @ np.asarray([s.start for s in box], np.float64) + matrix[:3, 3]
    shape = tuple(s.stop - s.start for s in box)
    values = ndimage.affine_transform(  # type: ignore[call-overload]
        p, matrix[:3, :3], offset, shape, np.float32, order=1, mode="nearest"
    )
    for part, coordinates in _slabs(matrix, box):
        inside = np.ones(np.broadcast_shapes(*(c.shape for c in coordinates)), bool)
        for axis in range(3):
            inside &= (coordinates[axis] >= -0.5 - _EPSILON) & (coordinates[axis] <= p.shape[axis] - 0.5 + _EPSILON)
        local = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(part, box, strict=True))
        result[part] = values[local] * inside
    return result


def restore_labels(
    labels: NDArray[np.uint8], affine: Affine, target: Geometry, *, margin: NDArray[np.float16] | None = None
) -> NDArray[np.uint8]:
    """Resample a label map: interpolate every label linearly and keep the greatest.

    Each voxel of the result sums the trilinear weights of the eight labels around it. This equals interpolating one
    map per label and taking the argmax, at a cost that does not depend on the number of labels. Only the box that the
    labels can reach is processed, slab by slab.

    With a margin, each weight is multiplied by the margin of its voxel. Between a voxel of one label with logit 3 and
    one of another with logit -1, the border then lies at three quarters of the distance, where the interpolated logit
    is 0, instead of at half of it.

    Parameters
    ----------
    labels : (X, Y, Z) uint8
        Label map, 0 is background.
    affine : (4, 4) float
        Voxel index of ``labels`` to scanner space (RAS+, mm).
    target : Geometry
        Grid of the result; any orientation, voxel size or rotation.
    margin : (X, Y, Z) float16, optional
        Confidence in the label of each voxel, logits, 0 or more. Without it all voxels have equal weight.

    Returns
    -------
    ndarray of uint8
        Label map on ``target``; 0 outside the field of view of ``labels``.

    Examples
    --------
    >>> labels = np.array([7, 7, 0], np.uint8).reshape(3, 1, 1)
    >>> restore_labels(labels, np.eye(4), Geometry((6, 1, 1), np.diag([0.5, 1.0, 1.0, 1.0]))).ravel().tolist()
    [7, 7, 7, 7, 0, 0]
    """
    source = Geometry((labels.shape[0], labels.shape[1], labels.shape[2]), affine)
    if source.same_grid(target):
        return labels.astype(np.uint8, copy=True)
    result = np.zeros(target.shape, np.uint8)
    extent = foreground_box(labels > 0)
    if extent is None:
        return result
    matrix = np.linalg.inv(affine) @ target.affine
    box = reachable_box(matrix, [(s.start, s.stop) for s in extent], target.shape)
    if box is None:
        return result
    flat = np.ascontiguousarray(labels).reshape(-1)
    sure = None if margin is None else np.ascontiguousarray(margin).reshape(-1)
    for part, coordinates in _slabs(matrix, box):
        result[part] = _vote(flat, sure, source.shape, coordinates)
    return result


def _vote(
    flat: NDArray[np.uint8],
    sure: NDArray[np.float16] | None,
    shape: tuple[int, int, int],
    coordinates: list[NDArray[np.float64]],
) -> NDArray[np.uint8]:
    """Return for each coordinate the label with the greatest weight among its eight neighbours."""
    lower, fraction = [], []
    inside = np.ones(np.broadcast_shapes(*(c.shape for c in coordinates)), bool)
    for axis, coordinate in enumerate(coordinates):
        inside &= (coordinate >= -0.5 - _EPSILON) & (coordinate <= shape[axis] - 0.5 + _EPSILON)
        clipped = np.clip(coordinate, 0, shape[axis] - 1)
        low = np.minimum(np.floor(clipped + _EPSILON / 10), max(shape[axis] - 2, 0))
        lower.append(low.astype(np.int64))
        fraction.append((clipped - low).astype(np.float32))
    strides = (shape[1] * shape[2], shape[2], 1)
    base = lower[0] * strides[0] + lower[1] * strides[1] + lower[2] * strides[2]
    jumps = [strides[k] if shape[k] > 1 else 0 for k in range(3)]
    steps = [sum(b * j for b, j in zip(bits, jumps, strict=True)) for bits in itertools.product((0, 1), repeat=3)]
    corners = [flat[base + step] for step in steps]
    winner = np.where(inside, corners[0], 0).astype(np.uint8)
    mixed = np.zeros(inside.shape, bool)
    for corner in corners[1:]:
        mixed |= corner != corners[0]
    mixed &= inside
    if mixed.any():
        around = np.stack([corner[mixed] for corner in corners])
        fractions = [np.broadcast_to(f, inside.shape)[mixed] for f in fraction]
        weights = np.stack(
            [
                np.prod([f if b else 1 - f for b, f in zip(bits, fractions, strict=True)], axis=0)
                for bits in itertools.product((0, 1), repeat=3)
            ]
        )
        if sure is not None:
            start = np.broadcast_to(base, inside.shape)[mixed]
            weights *= np.stack([np.clip(sure[start + step].astype(np.float32), *_MARGINS) for step in steps])
        best = np.full(around.shape[1], -1.0, np.float32)
        choice = np.zeros(around.shape[1], np.uint8)
        for corner in around:
            total = (weights * (around == corner)).sum(axis=0)
            # Ties go to the greater label, so that flips of the grid do not change the result.
            better = (total > best + 1e-5) | ((total > best - 1e-5) & (corner > choice))
            best = np.where(better, total, best)
            choice = np.where(better, corner, choice)
        winner[mixed] = choice
    return winner


def reachable_box(matrix: Affine, extent: Iterable[tuple[int, int]], shape: tuple[int, ...]) -> Box | None:
    """Return the box of target voxels that a box of source voxels can reach (with one voxel of margin).

    Parameters
    ----------
    matrix : (4, 4) float
        Voxel index of the target to that of the source.
    extent : iterable of (int, int)
        First source voxel along each axis, and the one after the last.
    shape : tuple of int
        Shape of the target.
    """
    ends = np.array(list(itertools.product(*((start - 1.0, stop) for start, stop in extent))))
    corners = apply_affine(np.linalg.inv(matrix), ends)
    low = np.maximum(np.floor(corners.min(axis=0) - _EPSILON), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(axis=0) + _EPSILON) + 1, shape).astype(int)
    if np.any(low >= high):
        return None
    return slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1])), slice(int(low[2]), int(high[2]))


def _slabs(matrix: Affine, box: Box) -> Iterator[tuple[Box, list[NDArray[np.float64]]]]:
    """Cut a target box into slabs; yield each with its source coordinates, in a form that broadcasts.

    Where the axes of the grids are parallel, each coordinate depends on one target axis only and stays one-dimensional.
    """
    plane = (box[1].stop - box[1].start) * (box[2].stop - box[2].start)
    rows = max(1, _SLAB_VOXELS // plane)
    linear = matrix[:3, :3]
    scale = np.abs(linear).max(axis=1, keepdims=True)
    for start in range(box[0].start, box[0].stop, rows):
        part = slice(start, min(start + rows, box[0].stop)), box[1], box[2]
        axes = [np.arange(s.start, s.stop, dtype=np.float64) for s in part]
        thin = [axis.reshape([-1 if k == n else 1 for k in range(3)]) for n, axis in enumerate(axes)]
        coordinates = []
        for row in range(3):
            used = [k for k in range(3) if abs(linear[row, k]) > 1e-9 * scale[row, 0]]
            value = np.full((1, 1, 1), matrix[row, 3])
            for k in used:
                value = value + linear[row, k] * thin[k]
            coordinates.append(value)
        full = np.broadcast_shapes(*(c.shape for c in coordinates), tuple(len(a) for a in axes))
        if all(c.size == max(c.shape) for c in coordinates):
            yield part, coordinates
        else:
            yield part, [np.ascontiguousarray(np.broadcast_to(c, full)) for c in coordinates]


def foreground_box(mask: NDArray[np.bool_], margin: int = 0) -> Box | None:
    """Return the bounding box of a mask, ``None`` if the mask is empty.

    Parameters
    ----------
    mask : (X, Y, Z) bool
        Mask.
    margin : int
        Voxels by which the box is widened on each side, within the array.

    Examples
    --------
    >>> mask = np.zeros((4, 4, 4), bool)
    >>> mask[1:3, 2, 0] = True
    >>> foreground_box(mask)
    (slice(1, 3, None), slice(2, 3, None), slice(0, 1, None))
    """
    limits: list[slice] = []
    plane = np.asarray(mask.any(axis=2))
    for profile in (np.any(plane, axis=1), np.any(plane, axis=0), np.any(mask, axis=(0, 1))):
        where = np.flatnonzero(profile)
        if len(where) == 0:
            return None
        limits.append(slice(max(int(where[0]) - margin, 0), min(int(where[-1]) + 1 + margin, np.size(profile))))
    return limits[0], limits[1], limits[2]


def paste(
    part: NDArray[VoxelValue], box: Box, shape: tuple[int, int, int], *, outside: float = 0
) -> NDArray[VoxelValue]:
    """Put the array of a box into an array of ``shape`` filled with ``outside``.

    Examples
    --------
    >>> paste(np.ones((1, 1, 1)), (slice(1, 2), slice(0, 1), slice(0, 1)), (3, 1, 1)).ravel().tolist()
    [0.0, 1.0, 0.0]
    """
    whole = np.full(shape, outside, part.dtype)
    whole[box] = part
    return whole
