"""Augmentation of training patches: acquisition artefacts and errors of step 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from totalspineseg_bids.synthesis.appearance import CONTRASTS, Contrast
from totalspineseg_bids.synthesis.arrays import NUMPY, Arrays, Draws, Image, smooth_noise
from totalspineseg_bids.synthesis.artefacts import SIGNAL_ARTEFACTS, STORED_ARTEFACTS, Scan, add_artefacts

#: Most draws resemble a sequence; the others make the network indifferent to contrast.
_CONTRAST_ODDS = {"T2w": 0.36, "T1w": 0.28, "STIR": 0.08, "T2starw": 0.08, "random": 0.20}


def draw_contrast_name(rng: np.random.Generator) -> Contrast:
    """Draw the contrast of a training patch: mostly that of a sequence."""
    name: Contrast = rng.choice(CONTRASTS, p=[_CONTRAST_ODDS[name] for name in CONTRASTS])
    return name


def acquire(
    image: Image, rng: np.random.Generator, spacing: tuple[float, float, float], arrays: Arrays = NUMPY
) -> Image:
    """Simulate an acquisition: blur, thick slices, bias field, artefacts, noise, gamma, z-score.

    Parameters
    ----------
    image : Image
        Shape (X, Y, Z), any; with torch also a group, (N, X, Y, Z), whose images have blur and slices in common.
    rng : np.random.Generator
        Source of randomness.
    spacing : tuple of 3 float
        Voxel size, mm.
    arrays : Arrays, optional
        Where it is computed; the image is there.

    Returns
    -------
    ndarray or Tensor
        float32, shape of ``image``.
    """
    shape = tuple(image.shape)
    extent = shape[-3:]
    draws = Draws(shape, rng, arrays)
    image = arrays.blurred(image, rng.uniform(0.25, 1.3, 3) / spacing)
    thick = bool(rng.random() < 0.6)
    axis = int(rng.choice(3, p=(0.75, 0.05, 0.2)))
    if thick:
        factor = max(1.0, float(rng.uniform(2.8, 5.5)) / spacing[axis])
        slices = max(4, round(extent[axis] / factor))
        # Slices of 2D sequences are excited with gaps of up to a quarter of their distance.
        profile = max(1.0, factor * float(rng.uniform(0.75, 1.0)))
        image = arrays.resize_axis(arrays.averaged(image, profile, axis - 3), slices, axis - 3)
    size = np.divide(extent, image.shape[-3:]) * spacing
    if (coils := draws.some(0.8)) is not None:
        image = image * _sensitivity(tuple(image.shape), size, coils, draws)
    scan = Scan((float(size[0]), float(size[1]), float(size[2])), axis - 3 if thick else -3, draws)
    image = add_artefacts(image, SIGNAL_ARTEFACTS, scan)
    top = arrays.quantile(image[..., ::2, ::4, ::4], 0.99)
    image = (image / (top + 1e-3)).clip(0.0, 1.6)
    # With more noise, thin arches and processes are indistinguishable from muscle, and the network learns to predict
    # a blurred band there.
    noise = draws.either(0.92, lambda: 0.05 * draws.numbers(0.0, 1.0) ** 2, lambda: draws.numbers(0.05, 0.12))
    real, imaginary = (noise * arrays.normal(tuple(image.shape), rng) for _ in range(2))
    image = arrays.magnitude(image + real, imaginary) ** draws.factors(0.18)
    image = add_artefacts(image, STORED_ARTEFACTS, scan)
    if thick:
        # What lies between two slices is interpolated, noise too.
        image = arrays.resize_axis(image, extent[axis], axis - 3)
    image = image - arrays.mean(image)
    image = image / arrays.spread(image)
    # At inference the z-score is that of the whole image, of which a patch is a part.
    return image * draws.uniform(0.8, 1.25) + draws.normal(0.0, 0.15)


def _sensitivity(shape: tuple[int, ...], spacing: tuple[float, float, float], coils: Any, draws: Draws) -> Image:  # noqa: ANN401
    """Draw the sensitivity of surface coils: smooth, bright behind, dark in front; even where ``coils`` is 0."""
    rng, arrays = draws.rng, draws.arrays
    scale = draws.uniform(0.0, 0.3)
    bias = scale * smooth_noise(shape, rng.uniform(44, 122, 3) / spacing, rng, arrays=arrays)
    slope = draws.uniform(-0.3, 1.6) * arrays.on(np.linspace(1.0, 0.0, shape[-2], dtype=np.float32))[:, None]
    return arrays.xp.exp(coils * (bias + slope))


def imperfect_discs(
    labels: Image, odd: Sequence[Sequence[int]], rng: np.random.Generator, spacing: float, arrays: Arrays = NUMPY
) -> Image:
    """Simulate errors of step 1 in the odd discs of the truth: swollen, eroded or missing discs.

    Parameters
    ----------
    labels : Image
        Tissue label map, uint8, shape (X, Y, Z); with torch also a group, (N, X, Y, Z).
    odd : sequence of sequence of int
        Labels of the odd discs, of each image.
    rng : np.random.Generator
        Source of randomness.
    spacing : float
        Voxel size, mm.
    arrays : Arrays, optional
        Where it is computed; the labels are there.

    Returns
    -------
    ndarray or Tensor
        float32, 0 or 1, shape of ``labels``.
    """
    draws = Draws(tuple(labels.shape), rng, arrays)
    seen = np.zeros((len(odd), 256), np.float32)
    for row, ids in zip(seen, odd, strict=True):
        for label_id in ids:
            row[label_id] = rng.random() >= 0.04
    soft = arrays.blurred(arrays.lookup(seen.reshape(draws.table(256)), labels), rng.uniform(0.5, 1.6) / spacing)
    uneven = smooth_noise(tuple(labels.shape), 5.0 / spacing, rng, arrays=arrays)
    found = soft + draws.uniform(0.0, 0.12) * uneven > draws.uniform(0.35, 0.6)
    return arrays.xp.asarray(found, dtype=arrays.xp.float32)
