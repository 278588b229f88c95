"""Artefacts of MR images: one transform each, with a probability and the range of its parameter.

Transforms along an axis (ringing, wrap-around, sharpening) are matrices, which numpy and torch multiply alike. All
expect images whose brightest tissue is around 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.synthesis.arrays import Draws, Image

#: Axes of (X, Y, Z), counted from the end, so that they are the same in a group of images.
LEFT_RIGHT, FRONT_BACK, UP_DOWN = -3, -2, -1


@dataclass(frozen=True, slots=True)
class Scan:
    """Voxel size, slices and random numbers of an image."""

    spacing: tuple[float, float, float]
    """Voxel size, mm."""
    slice_axis: int
    """Axis across the slices, counted from the end."""
    draws: Draws
    """Random numbers of the image, or of the images of a group."""

    def in_plane_axis(self) -> int:
        """Draw an axis of the slice plane."""
        axes = [axis for axis in (LEFT_RIGHT, FRONT_BACK, UP_DOWN) if axis != self.slice_axis]
        return axes[int(self.draws.rng.integers(2))]

    def per_slice(self, values: NDArray[np.float32]) -> Image:
        """Shape one value per slice so that it multiplies the image."""
        shape = [1, 1, 1]
        shape[self.slice_axis] = len(values)
        return self.draws.arrays.on(values.reshape(shape))


@dataclass(frozen=True, slots=True)
class Artefact:
    """One kind of artefact."""

    name: str
    """What radiologists call it."""
    probability: float
    """Share of images that have it."""
    bounds: tuple[float, float]
    """Range of the parameter of the transform; images of a group share it."""
    transform: Callable[[Image, float, Scan], Image]
    """Called with an image, the parameter and the scan; returns a new image."""


def add_artefacts(image: Image, artefacts: tuple[Artefact, ...], scan: Scan) -> Image:
    """Apply each artefact with its probability.

    Parameters
    ----------
    image : Image
        float32, brightest tissue around 1, shape (X, Y, Z), RAS; with torch also a group, (N, X, Y, Z).
    artefacts : tuple of Artefact
        Artefacts in the order of their origin.
    scan : Scan
        Voxel size, slices and random numbers.

    Returns
    -------
    ndarray or Tensor
        float32, shape of ``image``.

    Examples
    --------
    >>> from totalspineseg_bids.synthesis.arrays import NUMPY
    >>> image = np.ones((4, 8, 8), np.float32)
    >>> scan = Scan((4.0, 1.0, 1.0), LEFT_RIGHT, Draws(image.shape, np.random.default_rng(0), NUMPY))
    >>> always = Artefact("inversion", 1.0, (1.0, 1.0), invert)
    >>> float(add_artefacts(image, (always,), scan).max())
    0.0
    """
    for artefact in artefacts:
        chosen = scan.draws.some(artefact.probability)
        if chosen is not None:
            changed = artefact.transform(image, float(scan.draws.rng.uniform(*artefact.bounds)), scan)
            image = changed if isinstance(chosen, float) else image + chosen * (changed - image)
    return image


def surface_coil(image: Image, reach: float, scan: Scan) -> Image:
    """Darken the image with the distance from a coil behind the back, exponentially; ``reach`` in mm."""
    distance = scan.spacing[1] * np.arange(image.shape[FRONT_BACK], dtype=np.float32)
    gain = np.exp((0.4 * distance[-1] - distance) / reach).clip(0.0, 3.0)
    return image * scan.draws.arrays.on(gain[:, None].astype(np.float32))


def wrap_around(image: Image, share: float, scan: Scan) -> Image:
    """Fold the far end of an axis of the slice plane over the near end, on a share of the axis."""
    axis = scan.in_plane_axis()
    length = image.shape[axis]
    width = max(1, round(share * length))
    fold = np.eye(length)
    # Tissue outside the field of view is unknown: that of the opposite border stands for it, attenuated with depth.
    places = np.arange(width)
    fold[places, length - width + places] += np.linspace(0.6, 0.1, width)
    return _along(image, fold, axis, scan)


def ringing(image: Image, share: float, scan: Scan) -> Image:
    """Keep only a share of the spatial frequencies of an axis of the slice plane (truncation artefact)."""
    axis = scan.in_plane_axis()
    length = image.shape[axis]
    kept = np.abs(np.fft.fftfreq(length)) <= share / 2
    truncation = np.fft.ifft(kept[:, None] * np.fft.fft(np.eye(length), axis=0), axis=0).real
    return abs(_along(image, truncation, axis, scan))


def sharpen(image: Image, amount: float, scan: Scan) -> Image:
    """Enhance the edges within the slices, as the filters of scanners do, by unsharp masking."""
    for axis in (LEFT_RIGHT, FRONT_BACK, UP_DOWN):
        if axis != scan.slice_axis:
            place = np.arange(image.shape[axis]) * scan.spacing[axis]
            smooth = np.exp(-0.5 * ((place[:, None] - place) / 1.5) ** 2)
            smooth /= smooth.sum(axis=1, keepdims=True)
            image = _along(image, (1.0 + amount) * np.eye(len(place)) - amount * smooth, axis, scan)
    return image.clip(0.0)


def hot_pixels(image: Image, exponent: float, scan: Scan) -> Image:
    """Set a share of ``10 ** exponent`` of the voxels to values far above those of tissue."""
    rng, extent = scan.draws.rng, tuple(image.shape[-3:])
    count = max(1, round(10.0**exponent * int(np.prod(extent))))
    hot = np.zeros(extent, np.float32)
    hot.reshape(-1)[rng.integers(hot.size, size=count)] = rng.uniform(1.0, 5.0, count)
    return image + scan.draws.arrays.on(hot)


def invert(image: Image, top: float, scan: Scan) -> Image:  # noqa: ARG001 - the signature of a transform
    """Exchange bright and dark; ``top`` and what is brighter become black."""
    return (top - image).clip(0.0)


def slice_windows(image: Image, spread: float, scan: Scan) -> Image:
    """Scale and clip each slice on its own to 256 grey values, as in series exported as pictures."""
    slices = image.shape[scan.slice_axis]
    gains = scan.per_slice(np.exp(scan.draws.rng.normal(0.15, spread, slices)).astype(np.float32))
    return (255.0 * (image * gains).clip(0.0, 1.0)).round() / 255.0


def _along(image: Image, matrix: NDArray[np.float64], axis: int, scan: Scan) -> Image:
    """Multiply the lines of an image along an axis by a matrix."""
    arrays = scan.draws.arrays
    transposed = arrays.on(np.ascontiguousarray(matrix.T, np.float32))
    lines = arrays.contiguous(image.swapaxes(axis, -1))
    return (lines @ transposed).swapaxes(axis, -1)


#: Artefacts of the signal, before noise is added.
SIGNAL_ARTEFACTS: tuple[Artefact, ...] = (
    Artefact("surface coil", 0.25, (40.0, 150.0), surface_coil),
    Artefact("wrap-around", 0.05, (0.05, 0.4), wrap_around),
    Artefact("ringing", 0.15, (0.45, 0.8), ringing),
)
#: Artefacts of filters, conversion and storage, after noise is added.
STORED_ARTEFACTS: tuple[Artefact, ...] = (
    Artefact("edge enhancement", 0.15, (0.3, 1.5), sharpen),
    Artefact("hot pixels", 0.05, (-5.5, -3.7), hot_pixels),
    Artefact("inversion", 0.02, (1.0, 1.4), invert),
    Artefact("slice windows", 0.06, (0.05, 0.25), slice_windows),
)
