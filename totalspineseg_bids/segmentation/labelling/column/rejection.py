"""Costs of rejecting components, that is, of treating them as not part of the column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling.column import parameters
from totalspineseg_bids.segmentation.labelling.column.parameters import WEIGHTS
from totalspineseg_bids.segmentation.labelling.parameters import BODY_SIDE_MM, DISC_FRONT_MM, SLIVER_SHARE
from totalspineseg_bids.segmentation.labelling.records import Observation, volume_around


def rejection_costs(observations: Sequence[Observation]) -> NDArray[np.float64]:
    """Return the cost of rejecting each component in nats, shape (N,).

    It is lower for small components and for those out of line with the column.

    Parameters
    ----------
    observations
        Components of the image.
    """
    # Rejecting a landmark disc also removes its evidence, so that a landmark elsewhere that is off by one level decides
    # alone. Rejecting it must therefore cost at least as much as an error of its class.
    slip = float(np.log(WEIGHTS.landmark_hit / WEIGHTS.landmark_slip[0]))
    landmark = {Structure.DISC: slip, Structure.VERTEBRA: parameters.LANDMARK_VERTEBRA}
    cost = np.zeros(len(observations))
    for n, o in enumerate(observations):
        if o.kind is Structure.SACRUM:
            cost[n] = _sacrum_rejection_cost(o)
            continue
        base = WEIGHTS.reject_disc if o.kind is Structure.DISC else WEIGHTS.reject_vertebra
        typical = volume_around(o, [p for p in observations if p.kind is o.kind], parameters.PEERS_MM)
        # Components cut by the field of view may be small, but slivers are often false. A slab cuts the sides of all.
        whole = typical * (SLIVER_SHARE if o.cut > Cut.SIDES else 1.0)
        relative = min(o.volume_mm3 / max(whole, 1.0), 1.0)
        cost[n] = parameters.LEAST_REJECTION + (base - parameters.LEAST_REJECTION) * float(np.sqrt(relative))
        if o.kind is Structure.DISC and (o.anterior < DISC_FRONT_MM or abs(o.lateral) > BODY_SIDE_MM):
            cost[n] = min(cost[n], parameters.MISALIGNED_DISC)
        voted = max((s for v in o.class_shares for s in v.levels.values()), default=0.0)
        cost[n] += landmark[o.kind] * voted
    return cost


def _sacrum_rejection_cost(sacrum: Observation) -> float:
    """Return the cost of rejecting the sacrum: high if it is as long as a sacrum, low if it is as short as a vertebra.

    A level prior raises the cost if it finds a sacrum there, and lowers it if it finds vertebrae.
    """
    short, long = WEIGHTS.reject_sacrum
    low, high = parameters.VERTEBRA_LENGTH_MM, parameters.SACRUM_LENGTH_MM
    share = float(np.clip((sacrum.length_mm - low) / (high - low), 0.0, 1.0))
    cost = short + (long - short) * share
    if sacrum.level_prior:
        cost += WEIGHTS.prior_sacrum * (2.0 * sacrum.level_prior.get("S", 0.0) - 1.0)
    return max(cost, parameters.LEAST_FALSE_SACRUM)
