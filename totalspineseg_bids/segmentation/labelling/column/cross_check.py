"""Check levels by solving them again: without the level prior, and with head and feet exchanged.

A level prior that is shifted is shifted for many neighbours at once, whose number can outweigh a landmark. The levels
without it show that. Names that are counted from the wrong end, where the header has head and feet or front and back
reversed, are all wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.segmentation.labelling.column.levels import solve_levels
from totalspineseg_bids.segmentation.labelling.column.naming import abstention_reason, landmark_support
from totalspineseg_bids.segmentation.labelling.column.parameters import ENOUGH_LANDMARKS, REVERSED_HEADER
from totalspineseg_bids.segmentation.labelling.parameters import DISC_FRONT_MM
from totalspineseg_bids.segmentation.labelling.records import CanalExtent, LevelSolution, Observation

_ADVICE = "the orientation in the header seems wrong"
HEAD_AND_FEET = f"the anatomy runs from feet to head: {_ADVICE}"
FRONT_AND_BACK = f"the discs lie behind the canal: {_ADVICE}"


def header_contradiction(observations: Sequence[Observation], view: CanalExtent, solution: LevelSolution) -> str | None:
    """Return how the anatomy contradicts the header; ``None`` if it does not.

    Parameters
    ----------
    observations
        Components from cranial to caudal by the header, without level prior.
    view
        Extent of the canal in view.
    solution
        Levels of the components in that order.
    """
    discs = [o for o in observations if o.kind is Structure.DISC]
    behind = sum(o.volume_mm3 for o in discs if o.anterior < -DISC_FRONT_MM)
    if behind > 0.5 * sum(o.volume_mm3 for o in discs):
        return FRONT_AND_BACK
    turned = solve_levels(*turn(observations, view))
    if turned.log_likelihood - solution.log_likelihood > REVERSED_HEADER:
        return HEAD_AND_FEET
    return None


def turn(observations: Sequence[Observation], view: CanalExtent) -> tuple[list[Observation], CanalExtent]:
    """Return a column with head and feet exchanged.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    view
        Extent of the canal in view.

    Examples
    --------
    >>> _, view = turn([], CanalExtent(0.0, 300.0, conus=200.0))
    >>> view
    CanalExtent(top=0.0, bottom=300.0, conus=None, cord_start=100.0)
    """
    total = view.top + view.bottom

    def mirror(s: float | None) -> float | None:
        return None if s is None else total - s

    turned = [replace(o, s=total - o.s, s_low=total - o.s_high, s_high=total - o.s_low) for o in observations]
    turned.sort(key=lambda o: o.s)
    return turned, replace(view, conus=mirror(view.cord_start), cord_start=mirror(view.conus))


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
