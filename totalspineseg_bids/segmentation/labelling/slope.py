"""Which body the bone behind the canal belongs to: arches and spinous processes point downwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.segmentation.labelling.centerline import Centerline

#: Place in front of the middle of the canal (mm; negative behind), from the tips of the spinous processes to the body.
_IN_FRONT_MM = (-37.0, -25.0, -17.5, -12.5, -7.5, -2.5, 2.0, 6.0, 12.0)
#: How far below the middle of its body a vertebra's bone lies there (mm): mean of neck, chest and loins in four atlases
#: of adults (last line of ``benchmarks/posterior_slope.py``). They differ by a few mm, so one profile does for all.
_BELOW_BODY_MM = (15.0, 12.0, 7.0, 4.7, 2.0, -2.0, -3.2, -1.7, 0.0)
#: What is less far in front of the middle of the canal lies behind the bodies, mm.
_BEHIND_MM = 5.0


def body_height(points: NDArray[np.float64], line: Centerline) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the height of the body to which bone at each point is most likely to belong, and whether it is behind.

    Parameters
    ----------
    points
        Local mm, shape (N, 3).
    line
        Curve along the middle of the canal.

    Returns
    -------
    height
        Arc length along the curve, mm, caudal is larger, shape (N,).
    behind
        Whether the point lies behind the bodies, shape (N,).
    """
    place = line.project(points)
    return place.s - np.interp(place.anterior, _IN_FRONT_MM, _BELOW_BODY_MM), place.anterior < _BEHIND_MM
