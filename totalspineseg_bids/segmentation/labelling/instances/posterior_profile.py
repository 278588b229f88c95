"""Estimate the height of the body that posterior bone belongs to; arches and spinous processes point downwards."""

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
    """Return the expected height of the body that bone at each point belongs to.

    Parameters
    ----------
    place
        N points relative to the centreline of the canal.
    region
        Region of the column at each point: ``C``, ``T``, ``L``, or empty if unknown, shape (N,).

    Returns
    -------
    height
        Arc length along the centreline, mm, caudal is larger, shape (N,).
    behind
        Whether the point lies behind the bodies, shape (N,).
    """
    below = np.zeros(len(region))
    for name, profile in PROFILE_BELOW_BODY_MM.items():
        here = region == name
        below[here] = np.interp(place.anterior[here], PROFILE_ANTERIOR_MM, profile)
    return place.s - below, place.anterior < POSTERIOR_FROM_MM
