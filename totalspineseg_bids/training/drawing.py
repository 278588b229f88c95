"""What a training image shows beside its tissues: the marks of an acquisition, and the faults of step 1."""

from __future__ import annotations

import numpy as np

from totalspineseg_bids.synthesis.appearance import CONTRASTS, Contrast
from totalspineseg_bids.synthesis.arrays import NUMPY, Arrays, Image, smooth_noise

#: Most draws resemble a sequence; the others make the network indifferent to contrast.
_CONTRAST_ODDS = {"T2w": 0.36, "T1w": 0.28, "STIR": 0.08, "T2starw": 0.08, "random": 0.20}


def draw_contrast_name(rng: np.random.Generator) -> Contrast:
    """Draw the contrast of a training patch: mostly that of a sequence."""
    name: Contrast = rng.choice(CONTRASTS, p=[_CONTRAST_ODDS[name] for name in CONTRASTS])
    return name


def acquire(
    image: Image, rng: np.random.Generator, spacing: tuple[float, float, float], arrays: Arrays = NUMPY
) -> Image:
    """Give intensities the marks of an acquisition: blur, thick slices, bias field, noise, gamma, z-score.

    Parameters
    ----------
    image
        Shape (X, Y, Z), any.
    rng
        Source of randomness.
    spacing
        Voxel size, mm.
    arrays
        Where it is computed; the image is there.

    Returns
    -------
    ndarray or Tensor
        float32, shape of ``image``.
    """
    shape = tuple(image.shape)
    image = arrays.blurred(image, rng.uniform(0.25, 1.3, 3) / spacing)
    thick = bool(rng.random() < 0.5)
    axis = int(rng.choice(3, p=(0.7, 0.1, 0.2)))
    if thick:
        factor = max(1.0, float(rng.uniform(2.5, 6.0)) / spacing[axis])
        slices = max(4, round(shape[axis] / factor))
        image = arrays.resize_axis(arrays.averaged(image, factor, axis), slices, axis)
    if rng.random() < 0.8:
        image = image * _sensitivity(tuple(image.shape), np.divide(shape, image.shape) * spacing, rng, arrays)
    top = arrays.quantile(image[::2, ::4, ::4], 0.99)
    image = (image / (top + 1e-3)).clip(0.0, 1.6)
    # A patch's voxels are no smaller than a scanner's; under more noise, thin arches and processes cannot be told from
    # muscle, and a network learns to paint a blurred band in their place.
    noise = 0.05 * rng.random() ** 2 if rng.random() < 0.92 else rng.uniform(0.05, 0.12)
    real, imaginary = (noise * arrays.normal(tuple(image.shape), rng) for _ in range(2))
    image = arrays.magnitude(image + real, imaginary) ** float(np.exp(rng.normal(0.0, 0.18)))
    if thick:
        # What lies between two slices is interpolated, noise too.
        image = arrays.resize_axis(image, shape[axis], axis)
    image = image - image.mean()
    image = image / arrays.spread(image)
    # At inference the z-score is that of the whole image, of which a patch is a part.
    return image * rng.uniform(0.8, 1.25) + rng.normal(0.0, 0.15)


def _sensitivity(
    shape: tuple[int, ...], spacing: tuple[float, float, float], rng: np.random.Generator, arrays: Arrays
) -> Image:
    """Draw the sensitivity of surface coils: smooth, bright behind, dark in front."""
    bias = rng.uniform(0.0, 0.3) * smooth_noise(shape, rng.uniform(44, 122, 3) / spacing, rng, arrays=arrays)
    slope = arrays.on(np.linspace(rng.uniform(-0.3, 1.6), 0.0, shape[1], dtype=np.float32))
    return arrays.exp(bias + slope[:, None])


def imperfect_discs(
    labels: Image, odd: list[int], rng: np.random.Generator, spacing: float, arrays: Arrays = NUMPY
) -> Image:
    """Give the odd discs of the truth the faults that step 1 has: swollen, eaten into, now and then missing.

    Parameters
    ----------
    labels
        Tissue label map, uint8.
    odd
        Labels of the odd discs.
    rng
        Source of randomness.
    spacing
        Voxel size, mm.
    arrays
        Where it is computed; the labels are there.

    Returns
    -------
    ndarray or Tensor
        float32, 0 or 1, shape of ``labels``.
    """
    seen = np.zeros(256, np.float32)
    for label_id in odd:
        seen[label_id] = rng.random() >= 0.04
    soft = arrays.blurred(arrays.lookup(seen, labels), rng.uniform(0.5, 1.6) / spacing)
    uneven = smooth_noise(tuple(labels.shape), 5.0 / spacing, rng, arrays=arrays)
    return arrays.as_float(soft + rng.uniform(0.0, 0.12) * uneven > rng.uniform(0.35, 0.6))
