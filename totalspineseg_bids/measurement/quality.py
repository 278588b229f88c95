"""Quality of an image: signal-to-noise ratio, and contrast of cord and cerebrospinal fluid (CSF)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID
from totalspineseg_bids.columns import TableRow, column, columns_of
from totalspineseg_bids.imaging.grid import foreground_box
from totalspineseg_bids.imaging.volume import Volume

#: Distance from the borders of canal and cord, and length of a section, mm.
_INSIDE_MM, _SECTION_MM = 1.0, 10.0
#: Smallest number of voxels of a region in a section, and of differences.
_MIN_VOXELS, _MIN_DIFFERENCES = 8, 200


@dataclass(frozen=True, slots=True)
class ImageQuality(TableRow):
    """Quality of an image; ``None`` where it cannot be measured.

    Regions of one image take the place of repeated images, in which neither parallel imaging nor filters of the
    background matter (Dietrich et al., Journal of Magnetic Resonance Imaging 2007, 26:375).

    Examples
    --------
    >>> ImageQuality(snr=12.34).as_row()
    {'snr': '12.3', 'cord-csf-contrast': 'n/a'}
    """

    snr: float | None = column(
        "Signal-to-noise ratio",
        "Mean signal of the cord divided by the noise: 1.4826 times the median absolute deviation of the differences"
        " between voxels of the cord that follow each other along the column, divided by the square root of 2. Such"
        " voxels share noise in interpolated images, so compare images of one protocol",
        decimals=1,
    )
    cord_csf_contrast: float | None = column(
        "Cord-CSF contrast",
        "Difference of the medians of CSF and cord divided by their sum, median over sections of 10 mm; positive where"
        " the CSF is brighter",
        decimals=3,
    )


#: Columns of the image quality, by name and in order.
QUALITY_COLUMNS: Final = columns_of(ImageQuality)


def measure_quality(image: Volume, labels: NDArray[np.uint8]) -> ImageQuality:
    """Measure the quality of an image from its labels on the same grid.

    Parameters
    ----------
    image : Volume
        The image.
    labels : (X, Y, Z) uint8
        Canonical ids.

    Examples
    --------
    >>> labels = np.full((9, 14, 30), CANAL_ID, np.uint8)
    >>> labels[:, :7] = CORD_ID
    >>> noise = np.random.default_rng(0).normal(0, 10, labels.shape)
    >>> quality = measure_quality(Volume(np.where(labels == CORD_ID, 100, 300) + noise, np.eye(4)), labels)
    >>> round(quality.snr), round(quality.cord_csf_contrast, 1)
    (10, 0.5)
    """
    box = foreground_box(labels > 0)
    if box is None:
        return ImageQuality()
    values = image.data[box].astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    spacing = np.array(image.spacing)
    cranial = int(np.abs(image.affine[2, :3] / spacing).argmax())
    return ImageQuality(_snr(values, labels[box], cranial), _contrast(values, labels[box], cranial, spacing))


def _snr(values: NDArray[np.float32], labels: NDArray[np.uint8], axis: int) -> float | None:
    values, cord = np.moveaxis(values, axis, 0), np.moveaxis(labels == CORD_ID, axis, 0)
    both = cord[1:] & cord[:-1]
    steps, signal = (values[1:] - values[:-1])[both], values[1:][both]
    known = np.isfinite(steps)
    if np.count_nonzero(known) < _MIN_DIFFERENCES:
        return None
    steps = steps[known]
    noise = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)
    mean = float(signal[known].mean(dtype=np.float64))
    return mean / noise if noise > 0 and mean > 0 else None


def _contrast(
    values: NDArray[np.float32], labels: NDArray[np.uint8], cranial: int, spacing: NDArray[np.float64]
) -> float | None:
    from scipy import ndimage  # noqa: PLC0415 - the columns serve tables and pages, which should not wait for it

    # Thick slices leave nothing to erode across them.
    fine = spacing <= 1.5 * spacing.min()
    cross = ndimage.generate_binary_structure(3, 1)
    for axis in np.flatnonzero(~fine):
        index = np.arange(3).reshape([3 if a == axis else 1 for a in range(3)])
        cross &= index == 1
    times = max(1, round(_INSIDE_MM / float(spacing.min())))
    csf, cord = (ndimage.binary_erosion(labels == i, cross, iterations=times) for i in (CANAL_ID, CORD_ID))
    height = max(1, round(_SECTION_MM / spacing[cranial]))
    contrasts = []
    for start in range(0, labels.shape[cranial], height):
        section = tuple(slice(start, start + height) if a == cranial else slice(None) for a in range(3))
        both = [part[np.isfinite(part)] for part in (values[section][region[section]] for region in (csf, cord))]
        fluid, tissue = (float(np.median(v)) if len(v) >= _MIN_VOXELS else float("nan") for v in both)
        if fluid + tissue > 0:
            contrasts.append((fluid - tissue) / (fluid + tissue))
    return float(np.median(contrasts)) if contrasts else None
