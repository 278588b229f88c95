"""Measures of a labelled spine.

Volumes, heights, diameters, areas and angles, each with its unit, definition and source, computed from a label
map and the centreline of the canal. Measures that cannot be taken are missing, with a reason. The package reads and
writes no files and does not depend on segmentation models or figures.
"""

from __future__ import annotations

from totalspineseg_bids.measurement.levels import COLUMNS, LevelMeasures
from totalspineseg_bids.measurement.measure import SpineMeasures, measure_spine
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS, Posture

__all__ = ["COLUMNS", "POSTURE_COLUMNS", "LevelMeasures", "Posture", "SpineMeasures", "measure_spine"]
