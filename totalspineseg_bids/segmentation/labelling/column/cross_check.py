"""Compare levels with and without the level prior; levels that differ are doubtful.

A level prior that is shifted is shifted for many neighbours at once, whose number can outweigh a landmark. The levels
without it show that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.segmentation.labelling.column.direction import header_contradiction
from totalspineseg_bids.segmentation.labelling.column.levels import solve_levels
from totalspineseg_bids.segmentation.labelling.column.naming import abstention_reason, landmark_support
from totalspineseg_bids.segmentation.labelling.column.parameters import ENOUGH_LANDMARKS
from totalspineseg_bids.segmentation.labelling.records import CanalExtent, LevelSolution, Observation


def solve(observations: Sequence[Observation], view: CanalExtent) -> LevelSolution:
    """Find the levels of a column with and without the level prior.

    The levels without the prior are used if two landmarks agree on them, or if only the prior suggests an unusual
    number of vertebrae.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    view
        Extent of the canal in view.

    Returns
    -------
    LevelSolution
        ``disputed`` has the other levels if the column can be named without the prior too. ``contradiction`` is set
        if the anatomy runs against the header; the levels are useless then.
    """
    solution = without_prior = solve_levels(observations, view)
    unprimed = observations
    if any(o.level_prior for o in observations):
        unprimed = [replace(o, level_prior={}) for o in observations]
        without_prior = solve_levels(unprimed, view)
    # The level prior has seen heads at the top only, so that it follows the header.
    contradiction = header_contradiction(unprimed, view, without_prior)
    if contradiction is not None:
        # The levels are no evidence for other images either.
        return replace(solution, contradiction=contradiction, anchored=False)
    if unprimed is observations:
        return solution
    if abstention_reason(observations, without_prior) is not None:
        return solution
    landmarks_agree = landmark_support(unprimed, without_prior.levels) >= ENOUGH_LANDMARKS
    if landmarks_agree or without_prior.variant == SpineVariant() != solution.variant:
        return replace(without_prior, disputed=solution.levels)
    return replace(solution, disputed=without_prior.levels)
