"""Copies of an image with another contrast, made from its labels for `prepare`.

The method multiplies its training images by redrawing intensities structure by structure (discs, vertebrae, cord,
canal), so that a network learns shapes and not the contrasts of a few scanners. Here each structure gets a new mean and
keeps its own texture, stronger or weaker; the rest of the body keeps its picture under a new, possibly inverted, curve
of brightness. Idea: domain randomisation (Billot et al., "SynthSeg", Medical Image Analysis 86, 2023).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure

#: Structures that share a mean intensity, so that a network cannot identify a level by its brightness.
_KINDS: tuple[tuple[Structure, ...], ...] = (
    (Structure.DISC,),
    (Structure.VERTEBRA, Structure.SACRUM),
    (Structure.CORD,),
    (Structure.CANAL,),
)
_KEPT = 0.25  # share of structures that keep their mean
_INVERTED = 0.3  # share of copies whose background is turned over
_AIR_MM = 1.5
_EDGE_MM = 0.7
_MARGIN = 4  # voxels; beyond them the filter's kernel is cut off
_PERCENTILES = (1.0, 99.0)


def _curve(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return values in [0, 1] under a random gamma, inverted at times."""
    curved = np.clip(values, 0, 1) ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < _INVERTED:
        # Air stays dark. The body is found in a smoothed image; noise would make its inversion speckled.
        inside = np.clip((ndimage.gaussian_filter(values, _AIR_MM) - 0.05) / 0.1, 0, 1)
        curved = inside * (1.1 - curved) + (1 - inside) * curved
    return np.asarray(curved, np.float32)


def recontrast(image: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image with the same anatomy and another contrast.

    Parameters
    ----------
    image : (X, Y, Z) float32
        1 mm.
    labels : uint8 array
        Canonical ids on the same grid.
    rng : np.random.Generator
        Source of the draw; the same state gives the same image.

    Returns
    -------
    ndarray of float32
        Same shape, in the range of the image's intensities (its 1st to 99th percentile, and a little beyond).

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if image.shape != labels.shape:
        msg = f"image {image.shape} and labels {labels.shape} are not on one grid"
        raise ValueError(msg)
    low, high = (float(value) for value in np.percentile(image, _PERCENTILES))
    if high <= low:
        low, high = float(image.min()), float(image.max())
    scale = (high - low) or 1.0
    values = ((image - low) / scale).astype(np.float32)
    mixed = _curve(values, rng)
    for structures in _KINDS:
        # Drawn for every kind, there or not, so that what one image lacks does not shift the draws of another.
        mean, gain, kept = rng.uniform(0.05, 1.0), rng.uniform(0.3, 1.5), rng.random() < _KEPT
        whole = np.isin(anatomy.STRUCTURES, structures)[labels]
        found = ndimage.find_objects(whole, max_label=1)[0]
        if found is None:
            continue
        # The structure and as far around it as its soft edge reaches.
        box = tuple(slice(max(0, span.start - _MARGIN), span.stop + _MARGIN) for span in found)
        mask, before = whole[box], values[box]
        own = before[mask].mean()
        redrawn = np.float32(own if kept else mean) + np.float32(gain) * (before - own)
        weight = ndimage.gaussian_filter(mask.astype(np.float32), _EDGE_MM)
        mixed[box] += weight * (redrawn - mixed[box])
    return np.asarray(np.clip(mixed, -0.2, 1.3) * scale + low, np.float32)
