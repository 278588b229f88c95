"""Which body the bone behind the canal belongs to: arches and spinous processes point downwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.imaging.centerline import Projection

#: Place in front of the middle of the canal (mm; negative behind), from the tips of the spinous processes to the body.
_IN_FRONT_MM = (-37.0, -25.0, -17.5, -12.5, -7.5, -2.5, 2.0, 6.0, 12.0)
#: How far below the middle of its body a vertebra's bone lies there (mm), by the region of the vertebra: means of the
#: adult atlases that show it, and for one that is not named their mean (last lines of
#: ``benchmarks/posterior_slope.py``). The arch of a cervical vertebra hangs lower against its body than those further
#: down, and its body is half as high.
_BELOW_BODY_MM = {
    "C": (13.2, 9.0, 6.2, 3.9, 2.0, 0.5, -2.2, -1.6, 0.0),
    "T": (16.7, 15.0, 7.9, 4.4, 1.6, -3.2, -3.2, -1.1, 0.0),
    "L": (15.0, 11.9, 6.9, 5.7, 2.4, -3.2, -4.0, -2.4, 0.0),
    "": (15.0, 12.0, 7.0, 4.7, 2.0, -2.0, -3.2, -1.7, 0.0),
}
#: What is less far in front of the middle of the canal lies behind the bodies, mm.
_BEHIND_MM = 5.0


def body_height(place: Projection, region: NDArray[np.str_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the height of the body to which bone at each point is most likely to belong, and whether it is behind.

    Parameters
    ----------
    place
        Points as seen from the curve along the middle of the canal, N.
    region
        Of the vertebra at the height of each point: ``C``, ``T``, ``L``, or empty where it is not known, shape (N,).

    Returns
    -------
    height
        Arc length along the curve, mm, caudal is larger, shape (N,).
    behind
        Whether the point lies behind the bodies, shape (N,).
    """
    below = np.zeros(len(region))
    for name, profile in _BELOW_BODY_MM.items():
        here = region == name
        below[here] = np.interp(place.anterior[here], _IN_FRONT_MM, profile)
    return place.s - below, place.anterior < _BEHIND_MM
