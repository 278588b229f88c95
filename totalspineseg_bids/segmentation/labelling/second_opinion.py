"""Levels with and without the level scout: where the two differ, nothing is named without a warning.

A scout that is off is off for a whole run of neighbours, and then outweighs a landmark by their number. A column that
is named without it as well shows that: what the two do not agree on is doubtful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.segmentation.labelling.levels import solve_levels
from totalspineseg_bids.segmentation.labelling.naming import ENOUGH_LANDMARKS, confirmations, unnamed_because
from totalspineseg_bids.segmentation.labelling.observation import LevelSolution, Observation, View
from totalspineseg_bids.segmentation.labelling.reference import Prices


def solve(observations: Sequence[Observation], view: View, prices: Prices | None = None) -> LevelSolution:
    """Find the levels of a column, as `solve_levels` does, and again without the scout where there is one.

    The scout has no say against two landmarks that agree, nor in how many vertebrae there are: where it alone makes a
    column one of an unusual number, the levels are those without it.

    Returns
    -------
    LevelSolution
        With ``disputed`` set where the column is named without the scout too.
    """
    solution = solve_levels(observations, view, prices)
    if not any(o.scout for o in observations):
        return solution
    unheard = [replace(o, scout={}) for o in observations]
    deaf = solve_levels(unheard, view, prices)
    if unnamed_because(observations, deaf) is not None:
        return solution
    landmarks_agree = confirmations(unheard, deaf.levels) >= ENOUGH_LANDMARKS
    if landmarks_agree or deaf.variant == SpineVariant() != solution.variant:
        return replace(deaf, disputed=solution.levels)
    return replace(solution, disputed=deaf.levels)
