"""Measures of a labelled spine.

Volumes, heights, diameters, areas and angles, each with its unit, definition and source, computed from a label
map and the centreline of the canal. Measures that cannot be taken are missing, with a reason. The package reads and
writes no files and does not depend on segmentation models or figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from totalspineseg_bids.measurement.levels import COLUMNS, LevelMeasures
    from totalspineseg_bids.measurement.measure import SpineMeasures, find_body_fronts, measure_spine
    from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS, Posture

__all__ = [
    "COLUMNS",
    "POSTURE_COLUMNS",
    "LevelMeasures",
    "Posture",
    "SpineMeasures",
    "find_body_fronts",
    "measure_spine",
]

# Loaded on first use: the columns serve reports and tables, which should not wait for scipy.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "levels": ["COLUMNS", "LevelMeasures"],
        "measure": ["SpineMeasures", "find_body_fronts", "measure_spine"],
        "posture": ["POSTURE_COLUMNS", "Posture"],
    },
)
