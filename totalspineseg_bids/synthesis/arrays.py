"""Array libraries that compute synthetic images: numpy, or torch on any device.

Appearance, pose and acquisition use the operators that arrays and tensors share, and this module for the others. Random
choices (a contrast, a blur, a pose) come from a ``numpy.random.Generator`` with both libraries. Noise of the size of an
image is drawn on the device of the image, so that a GPU does not wait for the CPU.

With torch several images can be drawn at once, as a group of shape (N, X, Y, Z), because the time on a GPU depends on
the number of calls. A number for one image is an array of shape (N, 1, 1, 1) for a group (`Draws`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

#: A numpy array or a torch tensor.
Image = Any
ArrayShape = tuple[int, ...]
#: One value for all axes, or one per axis.
PerAxis = float | Sequence[float] | NDArray[np.floating[Any]]

_TRUNCATE = 2.5  # standard deviations


class Arrays:
    """Functions on arrays that appearance, pose and acquisition use in addition to operators, here in numpy.

    Images have the shape (X, Y, Z); with torch also groups, (N, X, Y, Z), whose images are processed separately.
    """

    #: The library, for functions that both have under one name.
    xp: Any = np
    #: Number of axial sheets of coordinates computed at a time; limits memory.
    sheets = 64

    def on(self, array: NDArray[Any]) -> Image:
        """Move an array to the device of the images."""
        return array

    def normal(self, shape: ArrayShape, rng: np.random.Generator) -> Image:
        """Draw standard normal values, 32-bit."""
        return rng.standard_normal(shape, dtype=np.float32)

    def lookup(self, table: NDArray[Any], labels: Image) -> Image:
        """Return ``table[labels]`` for uint8 labels; a group may have one table per image, shape (N, 256)."""
        return table[labels]

    def at(self, labels: Image, index: Image, inside: Image) -> Image:
        """Return ``labels.reshape(-1)[index]`` where ``inside``, else 0."""
        index[~inside] = 0
        return np.where(inside, labels.reshape(-1)[index], 0)

    def rounded(self, position: Image) -> Image:
        """Return the nearest integers."""
        return np.rint(position).astype(np.int32)

    def blend(self, image: Image, where: Image, strength: Any, value: Any) -> Image:  # noqa: ANN401
        """Blend an image with a value inside a mask; may change the image in place."""
        image[where] += strength * (value - image[where])
        return image

    def multiplied(self, image: Image, where: Image, factor: Image) -> Image:
        """Multiply an image inside a mask; may change the image in place."""
        image[where] *= factor[where]
        return image

    def blurred(self, image: Image, sigma: PerAxis) -> Image:
        """Smooth by a Gaussian, standard deviation in voxels; masks become 32-bit floats."""
        return ndimage.gaussian_filter(image.astype(np.float32), sigma, truncate=_TRUNCATE)

    def averaged(self, image: Image, width: float, axis: int) -> Image:
        """Return the moving average along an axis over a width in voxels; the outermost voxels count partially."""
        reach = int(np.ceil(width / 2))
        weights = _share(np.abs(np.arange(-reach, reach + 1)), width)
        return ndimage.convolve1d(image, weights / weights.sum(), axis)

    def resize(self, image: Image, shape: ArrayShape) -> Image:
        """Interpolate a 3D image linearly to a new shape (end points kept)."""
        if image.shape == shape:
            return image
        tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None]
        return functional.interpolate(tensor, shape, mode="trilinear", align_corners=True)[0, 0].numpy()

    def resize_axis(self, image: Image, length: int, axis: int) -> Image:
        """Interpolate an image linearly along one axis to a new length (end points kept)."""
        axis %= image.ndim
        old = image.shape[axis]
        if old == 1:
            return np.repeat(image, length, axis)
        low, weight = _between(old, length)
        weight = weight.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
        lower, upper = np.take(image, low, axis), np.take(image, low + 1, axis)
        return lower + weight * (upper - lower)

    def mean(self, values: Image) -> Any:  # noqa: ANN401
        """Return the mean of an image."""
        return values.mean()

    def spread(self, values: Image) -> Any:  # noqa: ANN401
        """Return the standard deviation of an image, at least 1e-6."""
        return max(float(values.std()), 1e-6)

    def quantile(self, values: Image, share: float) -> Any:  # noqa: ANN401
        """Return a quantile of an image."""
        return float(np.quantile(values, share))

    def magnitude(self, real: Image, imaginary: Image) -> Image:
        """Return the length of complex values."""
        return np.sqrt(real * real + imaginary * imaginary)

    def contiguous(self, image: Image) -> Image:
        """Return the image in C-contiguous memory."""
        return np.ascontiguousarray(image)


class TorchArrays(Arrays):
    """Images as torch tensors on a device; no call synchronizes with it.

    Parameters
    ----------
    device : torch.device or str
        Device of the tensors.
    seed : int
        Seed of the noise; equal seeds give equal noise on the same kind of device.
    """

    xp = torch
    #: A GPU has the memory for all sheets, and each part would need as many calls as the whole.
    sheets = 4096

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed)
        self._distances: dict[int, torch.Tensor] = {}

    def on(self, array: NDArray[Any]) -> Image:  # noqa: D102
        return torch.as_tensor(np.require(array, requirements=("C", "W"))).to(self.device)

    def normal(self, shape: ArrayShape, rng: np.random.Generator) -> Image:  # noqa: ARG002, D102
        return torch.randn(shape, generator=self._generator, device=self.device)

    def lookup(self, table: NDArray[Any], labels: Image) -> Image:  # noqa: D102
        index = labels.int()
        if table.ndim == 1:
            return self.on(table)[index]
        first = table.shape[1] * torch.arange(len(table), dtype=torch.int32, device=self.device)
        return self.on(table).flatten()[index + first.view(-1, 1, 1, 1)]

    def at(self, labels: Image, index: Image, inside: Image) -> Image:  # noqa: D102
        return labels.reshape(-1)[index * inside] * inside

    def rounded(self, position: Image) -> Image:  # noqa: D102
        return position.round().int()

    def blend(self, image: Image, where: Image, strength: Any, value: Any) -> Image:  # noqa: ANN401, D102
        return torch.where(where, image + strength * (value - image), image)

    def multiplied(self, image: Image, where: Image, factor: Image) -> Image:  # noqa: D102
        return torch.where(where, image * factor, image)

    def blurred(self, image: Image, sigma: PerAxis) -> Image:  # noqa: D102
        image = image.float()
        for axis, width in enumerate(np.broadcast_to(np.asarray(sigma, float), (3,)), image.ndim - 3):
            distance = np.arange(int(_TRUNCATE * width + 0.5) + 1)
            image = self._weighted(image, np.exp(-0.5 * (distance / max(float(width), 1e-6)) ** 2), axis)
        return image

    def averaged(self, image: Image, width: float, axis: int) -> Image:  # noqa: D102
        return self._weighted(image, _share(np.arange(int(np.ceil(width / 2)) + 1), width), axis)

    def _weighted(self, image: Image, weights: NDArray[np.floating[Any]], axis: int) -> Image:
        """Return the weighted mean of neighbours along an axis, without neighbours beyond the ends.

        Computed as a product with a matrix, which is faster on a GPU than a convolution.
        """
        axis %= image.ndim
        length = image.shape[axis]
        if length not in self._distances:
            place = torch.arange(length, device=self.device)
            self._distances[length] = (place[:, None] - place).abs()
        # A few numbers are copied without synchronization; copying a matrix would wait for all earlier calls.
        by_distance = np.zeros(max(length, len(weights)), np.float32)
        by_distance[: len(weights)] = weights
        matrix = self.on(by_distance)[self._distances[length]]
        matrix = matrix / matrix.sum(1, keepdim=True)
        if axis == image.ndim - 1:
            return image @ matrix.T
        if axis == image.ndim - 2:
            return matrix @ image
        return (matrix @ image.flatten(axis + 1)).view(image.shape)

    def resize(self, image: Image, shape: ArrayShape) -> Image:  # noqa: D102
        # The images of the group are the channels of one image for torch.
        channels = image.reshape(1, -1, *image.shape[-3:])
        resized = functional.interpolate(channels, shape[-3:], mode="trilinear", align_corners=True)
        return resized.view(shape)

    def resize_axis(self, image: Image, length: int, axis: int) -> Image:  # noqa: D102
        axis %= image.ndim
        old = image.shape[axis]
        if old == 1:
            return image.repeat_interleave(length, axis)
        low, weight = (self.on(values) for values in _between(old, length))
        weight = weight.view([-1 if i == axis else 1 for i in range(image.ndim)])
        return image.index_select(axis, low).lerp(image.index_select(axis, low + 1), weight)

    def mean(self, values: Image) -> Any:  # noqa: ANN401, D102
        return values.mean() if values.ndim <= 3 else values.mean((1, 2, 3), keepdim=True)

    def spread(self, values: Image) -> Any:  # noqa: ANN401, D102
        spread = values.std() if values.ndim <= 3 else values.std((1, 2, 3), keepdim=True)
        return spread.clip(1e-6)

    def quantile(self, values: Image, share: float) -> Any:  # noqa: ANN401, D102
        flat = values.flatten(max(0, values.ndim - 3))
        quantile = flat.kthvalue(1 + round(share * (flat.shape[-1] - 1)), -1).values
        return quantile if values.ndim <= 3 else quantile.view(-1, 1, 1, 1)

    def magnitude(self, real: Image, imaginary: Image) -> Image:  # noqa: D102
        return torch.hypot(real, imaginary)

    def contiguous(self, image: Image) -> Image:  # noqa: D102
        return image.contiguous()


NUMPY = Arrays()


def _share(distance: NDArray[np.intp], width: float) -> NDArray[np.float32]:
    """Return the fraction of voxels at the given distances that lies within half a width, 0 to 1."""
    # An even number of whole voxels would be shifted by half a voxel.
    share: NDArray[np.float32] = np.clip((width + 1.0) / 2.0 - distance, 0.0, 1.0).astype(np.float32)
    return share


def _between(old: int, new: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return for each position of a resized axis the preceding index on the old axis and the fraction beyond it."""
    position = np.linspace(0, old - 1, new, dtype=np.float32)
    low = np.minimum(position.astype(np.intp), old - 2)
    return low, (position - low).astype(np.float32)


class Draws:
    """Random numbers of an image, or one for each image of a group.

    Parameters
    ----------
    shape : ArrayShape
        Shape of the image, (X, Y, Z), or of the group, (N, X, Y, Z).
    rng : numpy.random.Generator
        Source of randomness.
    arrays : Arrays
        Array library of the images.
    """

    def __init__(self, shape: ArrayShape, rng: np.random.Generator, arrays: Arrays) -> None:
        self.rng = rng
        self.arrays = arrays
        self._size = None if len(shape) == 3 else (shape[0], 1, 1, 1)

    def table(self, columns: int) -> ArrayShape:
        """Return the shape of a row of numbers: one row, or one row per image."""
        return (columns,) if self._size is None else (self._size[0], columns)

    def column(self, values: Sequence[float]) -> Any:  # noqa: ANN401
        """Return one number per image, as ``numbers`` draws them."""
        return values[0] if self._size is None else np.reshape(values, self._size)

    def each(self, values: Any) -> Any:  # noqa: ANN401 - numbers or arrays of them
        """Move drawn numbers to the device of the images; for one image they are a plain number."""
        if self._size is None:
            return float(values)
        return self.arrays.on(np.broadcast_to(np.asarray(values, np.float32), self._size).copy())

    def numbers(self, low: float, high: float) -> Any:  # noqa: ANN401
        """Draw uniformly distributed numbers, which stay on the CPU."""
        return self.rng.uniform(low, high, self._size)

    def uniform(self, low: float, high: float) -> Any:  # noqa: ANN401
        """Draw uniformly distributed numbers."""
        return self.each(self.numbers(low, high))

    def normal(self, mean: float, spread: float) -> Any:  # noqa: ANN401
        """Draw normally distributed numbers."""
        return self.each(self.rng.normal(mean, spread, self._size))

    def factors(self, spread: float) -> Any:  # noqa: ANN401
        """Draw log-normally distributed factors around 1."""
        return self.each(np.exp(self.rng.normal(0.0, spread, self._size)))

    def either(self, share: float, one: Callable[[], Any], other: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Return one number for images chosen with probability ``share``, the other number for the rest."""
        first = self.rng.random(self._size) < share
        if np.all(first):
            return self.each(one())
        if not np.any(first):
            return self.each(other())
        return self.each(np.where(first, one(), other()))

    def some(self, share: float) -> Any:  # noqa: ANN401
        """Choose images with probability ``share``: 1 for those, 0 for the others; ``None`` if none is chosen."""
        chosen = self.rng.random(self._size) < share
        return self.each(chosen) if np.any(chosen) else None


def smooth_noise(
    shape: ArrayShape, scale: PerAxis, rng: np.random.Generator, cutoff: int = 2, arrays: Arrays = NUMPY
) -> Image:
    """Return smooth Gaussian noise of unit standard deviation.

    Parameters
    ----------
    shape : ArrayShape
        Shape of the array; the noise of the images of a group, (N, X, Y, Z), is independent.
    scale : PerAxis
        Distance between control points, voxels, for all (of a group: three) axes or for each; an axis below
        ``cutoff`` keeps full detail.
    rng : numpy.random.Generator
        Source of randomness.
    cutoff : int
        Distances of control points below this are replaced by 1.
    arrays : Arrays
        Array library.
    """
    group, shape = shape[:-3], shape[-3:]
    scales = np.broadcast_to(np.asarray(scale, float), (len(shape),))
    coarse = tuple(n if s < cutoff else max(2, int(np.ceil(n / s)) + 1) for n, s in zip(shape, scales, strict=True))
    noise = arrays.normal((*group, *coarse), rng)
    noise /= arrays.spread(noise)
    # Trilinear interpolation lowers the standard deviation between control points by (2/3)^(1/2) along each axis.
    gain = float(np.prod([1.0 if c == n else np.sqrt(1.5) for c, n in zip(coarse, shape, strict=True)]))
    if len(shape) == 3:
        return arrays.resize(noise * gain, (*group, *shape))
    for axis, n in enumerate(shape):
        noise = arrays.resize_axis(noise, n, axis)
    return noise * gain
