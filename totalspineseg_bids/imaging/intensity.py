"""Clip voxels that are far brighter or darker than the image, such as hot pixels and spikes around metal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Share of the brightest and of the darkest voxels of the foreground that may be outliers (assumed).
_TAIL = 0.005
#: Distance of a clipping limit from the median, in distances of the tail's percentile. A receive coil near the skin
#: brightens fat up to about three times as much (assumed).
_REACH = 4.0
#: Ratio of the standard deviations before and after clipping from which outliers change the normalization.
_SPREAD_RATIO = 1.5
#: Outliers of at most that share widen the standard deviation so much only if one is this many of them from the mean.
_FAR = 5.0


def clip_outliers(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Clip outliers that would dominate the mean and standard deviation by which networks normalize an image.

    An image whose standard deviation does not depend on a few voxels is returned as it is.

    Parameters
    ----------
    values : (X, Y, Z) float32
        Finite intensities.

    Returns
    -------
    ndarray of float32
        The image itself, or a clipped copy.
    int
        Number of clipped voxels.

    Examples
    --------
    >>> image = np.tile(np.arange(100, dtype=np.float32), 1000)
    >>> image[:10] = 100_000
    >>> clipped, count = clip_outliers(image)
    >>> count, float(clipped.max()) < 300
    (10, True)
    """
    spread, low, high = float(values.std(dtype=np.float64)), float(values.min()), float(values.max())
    mean = float(values.mean(dtype=np.float64))
    if spread == 0 or max(high - mean, mean - low) < _FAR * spread:
        return values, 0
    foreground = values[values != 0]
    bottom, middle, top = (float(q) for q in np.quantile(foreground, (_TAIL, 0.5, 1 - _TAIL)))
    lower, upper = middle - _REACH * (middle - bottom), middle + _REACH * (top - middle)
    clipped = np.clip(values, min(lower, 0.0), max(upper, 0.0))
    if spread < _SPREAD_RATIO * float(clipped.std(dtype=np.float64)):
        return values, 0
    return clipped, int(np.count_nonzero(clipped != values))
