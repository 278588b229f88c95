"""What it costs to take a component for no part of the column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.labelling.column.parameters import (
    LANDMARK_VERTEBRA,
    LEAST_FALSE_SACRUM,
    PEERS_MM,
    SACRUM_LENGTH_MM,
    VERTEBRA_LENGTH_MM,
    EvidenceWeights,
)
from totalspineseg_bids.segmentation.labelling.parameters import SLIVER_SHARE
from totalspineseg_bids.segmentation.labelling.records import Observation, volume_around


def rejection_costs(observations: Sequence[Observation], weights: EvidenceWeights) -> NDArray[np.float64]:
    """Cost of taking each component for none, shape (N,): less for small ones and for those out of line."""
    # A disc thrown away takes what its class says with it, and a landmark one level off elsewhere then stands alone: a
    # real neck was named one level off so. To throw it away must be no cheaper than to say that its class has slipped.
    slip = float(np.log(weights.landmark_hit / weights.landmark_slip[0]))
    landmark = {Structure.DISC: slip, Structure.VERTEBRA: LANDMARK_VERTEBRA}
    cost = np.zeros(len(observations))
    for n, o in enumerate(observations):
        if o.kind is Structure.SACRUM:
            cost[n] = _sacrum_rejection_cost(o, weights)
            continue
        base = weights.reject_disc if o.kind is Structure.DISC else weights.reject_vertebra
        typical = volume_around(o, [p for p in observations if p.kind is o.kind], PEERS_MM)
        # What the field of view cuts is small for that reason, but slivers are also painted where nothing is.
        whole = typical * (SLIVER_SHARE if o.touches_edge else 1.0)
        relative = min(o.volume_mm3 / max(whole, 1.0), 1.0)
        cost[n] = 0.4 + (base - 0.4) * float(np.sqrt(relative))
        if o.kind is Structure.DISC and (o.anterior < 3.0 or abs(o.lateral) > 22.0):
            cost[n] = min(cost[n], 0.5)
        voted = max((s for v in o.class_shares for s in v.levels.values()), default=0.0)
        cost[n] += landmark[o.kind] * voted
    return cost


def _sacrum_rejection_cost(sacrum: Observation, weights: EvidenceWeights) -> float:
    """Cost of taking the sacrum for none: high for one as long as a sacrum is, low for one of a vertebra's length.

    A level prior that takes it for one makes it dearer, and one that takes it for vertebrae cheaper.
    """
    short, long = weights.reject_sacrum
    share = float(np.clip((sacrum.length_mm - VERTEBRA_LENGTH_MM) / (SACRUM_LENGTH_MM - VERTEBRA_LENGTH_MM), 0.0, 1.0))
    cost = short + (long - short) * share
    if sacrum.level_prior:
        cost += weights.prior_sacrum * (2.0 * sacrum.level_prior.get("S", 0.0) - 1.0)
    return max(cost, LEAST_FALSE_SACRUM)
