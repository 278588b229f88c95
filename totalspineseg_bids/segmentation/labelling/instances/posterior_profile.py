"""Which body the bone behind the canal belongs to: arches and spinous processes point downwards."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.imaging.centerline import Projection
from totalspineseg_bids.segmentation.labelling.instances.parameters import (
    POSTERIOR_FROM_MM,
    PROFILE_ANTERIOR_MM,
    PROFILE_BELOW_BODY_MM,
)


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
    for name, profile in PROFILE_BELOW_BODY_MM.items():
        here = region == name
        below[here] = np.interp(place.anterior[here], PROFILE_ANTERIOR_MM, profile)
    return place.s - below, place.anterior < POSTERIOR_FROM_MM
