"""Robust outliers among the levels of a group."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from totalspineseg_bids.measurement.levels import COLUMNS

#: Smallest number of values from which a level gives outliers.
MIN_COUNT: Final = 8
#: Robust standard deviations from the median (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
THRESHOLD: Final = 3.5
_MAD_TO_SD: Final = 1.4826
#: A spread below this share of the median, or below this much by unit, is rounding of voxels, not biology.
_LEAST_SHARE: Final = 0.02
_LEAST_BY_UNIT: Final = {"mm": 0.3, "degree": 1.5}
_LEAST: Final = {name: _LEAST_BY_UNIT.get(column.unit, 1e-9) for name, column in COLUMNS.items()}


def find_outliers(values: pd.DataFrame) -> pd.DataFrame:
    """Rank the values that lie far from the median of their level, measure and contrast.

    Parameters
    ----------
    values : pd.DataFrame
        Values of whole levels, without those that the field of view cuts, in the columns ``image`` (number),
        ``measure``, ``level``, ``contrast`` (empty if the measure does not depend on it) and ``value``.

    Returns
    -------
    pd.DataFrame
        The outliers, the farthest first, with the further columns ``median``, ``deviation`` (distance from the median
        in robust standard deviations: 1.4826 times the median absolute deviation) and ``count`` (values of the level).
        Levels with fewer than `MIN_COUNT` values give none.
    """
    keys = [values[name] for name in ("measure", "level", "contrast")]
    groups = values["value"].groupby(keys, sort=False)
    median = groups.transform("median")
    distance = values["value"] - median
    spread = _MAD_TO_SD * distance.abs().groupby(keys, sort=False).transform("median")
    least = values["measure"].map(_LEAST).fillna(1e-9)
    deviation: pd.Series[float] = distance / np.maximum(np.maximum(spread, _LEAST_SHARE * median.abs()), least)
    ranked = values.assign(
        median=median, deviation=deviation, count=groups.transform("size"), far=-deviation.abs()
    ).sort_values(["far", "image", "measure", "level"])
    return ranked[(ranked["count"] >= MIN_COUNT) & (ranked["far"] < -THRESHOLD)]
