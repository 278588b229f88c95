"""Levels with and without the level prior: where the two differ, nothing is named without a warning.

A prior that is off is off for a whole run of neighbours, and then outweighs a landmark by their number. A column that
is named without it as well shows that: what the two do not agree on is doubtful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.segmentation.labelling.column.levels import solve_levels
from totalspineseg_bids.segmentation.labelling.column.naming import (
    abstention_reason,
    landmark_support,
)
from totalspineseg_bids.segmentation.labelling.column.parameters import ENOUGH_LANDMARKS, EvidenceWeights
from totalspineseg_bids.segmentation.labelling.records import CanalExtent, LevelSolution, Observation


def solve(
    observations: Sequence[Observation], view: CanalExtent, weights: EvidenceWeights | None = None
) -> LevelSolution:
    """Find the levels of a column, as `solve_levels` does, and again without the prior where there is one.

    The prior has no say against two landmarks that agree, nor in how many vertebrae there are: where it alone makes a
    column one of an unusual number, the levels are those without it.

    Returns
    -------
    LevelSolution
        With ``disputed`` set where the column is named without the prior too.
    """
    solution = solve_levels(observations, view, weights)
    if not any(o.level_prior for o in observations):
        return solution
    unprimed = [replace(o, level_prior={}) for o in observations]
    without_prior = solve_levels(unprimed, view, weights)
    if abstention_reason(observations, without_prior) is not None:
        return solution
    landmarks_agree = landmark_support(unprimed, without_prior.levels) >= ENOUGH_LANDMARKS
    if landmarks_agree or without_prior.variant == SpineVariant() != solution.variant:
        return replace(without_prior, disputed=solution.levels)
    return replace(solution, disputed=without_prior.levels)
