"""Robust outliers among the levels of a group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from totalspineseg_bids.measurement.levels import COLUMNS

#: Smallest number of values from which a level gives outliers.
MIN_COUNT: Final = 8
#: Robust standard deviations from the median (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993).
THRESHOLD: Final = 3.5
_MAD_TO_SD: Final = 1.4826
#: A spread below this share of the median, or below this much by unit, is rounding of voxels, not biology.
_LEAST_SHARE: Final = 0.02
_LEAST_BY_UNIT: Final = {"mm": 0.3, "degree": 1.5}


@dataclass(frozen=True, slots=True)
class Value:
    """One measured value."""

    image: int
    """Index of the image."""
    measure: str
    """Name of the measure."""
    level: str
    """Level at which it was measured."""
    value: float
    """Value, in the unit of the measure."""
    contrast: str = ""
    """BIDS suffix of the image if the measure depends on the contrast, so that only images of one suffix compare."""


@dataclass(frozen=True, slots=True)
class Outlier:
    """A value far from those of the same level in the other images."""

    value: Value
    """What was measured."""
    median: float
    """Median of the level over all images."""
    deviation: float
    """Distance from the median in robust standard deviations (1.4826 times the median absolute deviation), signed."""
    count: int
    """Values of the level."""


def find_outliers(values: Sequence[Value]) -> list[Outlier]:
    """Rank the values that lie far from the median of their level, measure and contrast.

    Parameters
    ----------
    values : sequence of Value
        Values of whole levels; what is cut by the field of view must not be among them.

    Returns
    -------
    list of Outlier
        The farthest first. Levels with fewer than `MIN_COUNT` values give none.
    """
    groups: dict[tuple[str, str, str], list[Value]] = defaultdict(list)
    for value in values:
        groups[value.measure, value.level, value.contrast].append(value)
    found = []
    for (measure, _, _), members in groups.items():
        if len(members) < MIN_COUNT:
            continue
        numbers = np.array([member.value for member in members])
        median = float(np.median(numbers))
        spread = _MAD_TO_SD * float(np.median(np.abs(numbers - median)))
        least = _LEAST_BY_UNIT.get(COLUMNS[measure].unit if measure in COLUMNS else "", 1e-9)
        spread = max(spread, _LEAST_SHARE * abs(median), least)
        deviations = (numbers - median) / spread
        found += [
            Outlier(member, median, float(deviation), len(members))
            for member, deviation in zip(members, deviations, strict=True)
            if abs(deviation) > THRESHOLD
        ]
    return sorted(found, key=lambda o: (-abs(o.deviation), o.value.image, o.value.measure, o.value.level))
