from .levels import COLUMNS, PROFILE_COLUMNS, LevelMeasures, ProfilePoint
from .measure import SpineMeasures, find_body_fronts, measure_spine
from .posture import POSTURE_COLUMNS, Posture
from .quality import QUALITY_COLUMNS, ImageQuality, measure_quality

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
