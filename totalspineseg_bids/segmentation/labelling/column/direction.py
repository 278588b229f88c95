"""Recognise anatomy that runs against the header: an image whose affine has head and feet, or front and back, reversed.

Names that are counted from the wrong end are all wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.labelling.column.levels import solve_levels
from totalspineseg_bids.segmentation.labelling.column.parameters import REVERSED_HEADER
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
