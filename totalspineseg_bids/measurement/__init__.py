"""Measures of a labelled spine.

Volumes, heights, diameters, areas and angles, each with its unit, definition and source, computed from a label
map and the centreline of the canal; signals and image quality, which need the image too. Measures that cannot be
taken are missing, with a reason. The package reads and writes no files and does not depend on segmentation models or
figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from totalspineseg_bids.measurement.levels import COLUMNS, PROFILE_COLUMNS, LevelMeasures, ProfilePoint
    from totalspineseg_bids.measurement.measure import SpineMeasures, find_body_fronts, measure_spine
    from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS, Posture
    from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS, ImageQuality, measure_quality

__all__ = [
    "COLUMNS",
    "POSTURE_COLUMNS",
    "PROFILE_COLUMNS",
    "QUALITY_COLUMNS",
    "ImageQuality",
    "LevelMeasures",
    "Posture",
    "ProfilePoint",
    "SpineMeasures",
    "find_body_fronts",
    "measure_quality",
    "measure_spine",
]

# Loaded on first use: the columns serve reports and tables, which should not wait for scipy.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "levels": ["COLUMNS", "PROFILE_COLUMNS", "LevelMeasures", "ProfilePoint"],
        "measure": ["SpineMeasures", "find_body_fronts", "measure_spine"],
        "posture": ["POSTURE_COLUMNS", "Posture"],
        "quality": ["QUALITY_COLUMNS", "ImageQuality", "measure_quality"],
    },
)
