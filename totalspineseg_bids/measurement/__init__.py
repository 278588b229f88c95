"""Numbers from a labelled spine.

Volumes, heights, diameters, areas and angles, each with its unit, definition and source, computed from a label
map and the canal centreline alone. What cannot be measured is missing and says why. Nothing here reads or writes
files, knows a segmentation model, or draws a figure.
"""

from __future__ import annotations

from totalspineseg_bids.measurement.levels import COLUMNS, LevelMeasures
from totalspineseg_bids.measurement.measure import SpineMeasures, measure_spine
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS, Posture

__all__ = ["COLUMNS", "POSTURE_COLUMNS", "LevelMeasures", "Posture", "SpineMeasures", "measure_spine"]
