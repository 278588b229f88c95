"""Find vertebrae and discs whose size does not fit that of their neighbours, so that their voxels are doubtful."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from totalspineseg_bids.anatomy import VERTEBRA_LEVELS
from totalspineseg_bids.segmentation.labelling import parameters

TOO_LARGE = "larger than its neighbours: may hold parts of them"
TOO_SMALL = "smaller than its neighbours: parts of it may be missing"
SLIVER = "a sliver at the edge of the field of view: its border may be that of its neighbour"


def size_outliers(volumes: Mapping[str, float], cut: Collection[str]) -> dict[str, str]:
    """Find vertebrae that are much larger or smaller than their neighbours, with a reason.

    Parameters
    ----------
    volumes
        Volume of each named vertebra, mm³; the sacrum left out.
    cut
        Levels of which the field of view leaves another share than of their neighbours; they are neither judged nor
        compared with.

    Returns
    -------
    dict
        Reason by level; vertebrae with fewer than two neighbours to compare with are not judged.
    """
    whole = {level: volume for level, volume in volumes.items() if level not in cut}
    reasons = {}
    for level, volume in whole.items():
        at = VERTEBRA_LEVELS.index(level)
        near = (
            VERTEBRA_LEVELS[max(0, at - parameters.NEIGHBOUR_LEVELS) : at + parameters.NEIGHBOUR_LEVELS + 1]
            if level not in parameters.END_RATIOS
            else parameters.END_NEIGHBOURS
        )
        others = [
            whole[other] for other in near if other in whole and other != level and other not in parameters.END_RATIOS
        ]
        if len(others) < 2:
            continue
        ratio = volume / (float(np.median(others)) * parameters.END_RATIOS.get(level, 1.0))
        if ratio > parameters.LARGE_RATIO:
            reasons[level] = TOO_LARGE
        elif ratio < parameters.SMALL_RATIO:
            reasons[level] = TOO_SMALL
    if {"C1", "C2"} <= whole.keys() and whole["C1"] > parameters.ATLAS_TO_AXIS_RATIO * whole["C2"]:
        reasons |= {"C1": TOO_LARGE, "C2": TOO_SMALL}
    return reasons


def slivers(volumes: Mapping[str, float], cut: Collection[str], order: Sequence[str]) -> tuple[str, ...]:
    """Find vertebrae or discs of which only a sliver is in the field of view.

    Parameters
    ----------
    volumes
        Volume of each named vertebra or of each named disc, mm³; the sacrum left out.
    cut
        Levels that the field of view cuts.
    order
        All levels of that kind, cranial to caudal.

    Returns
    -------
    tuple of str
        Levels whose volume is less than `SLIVER_SHARE` of the median of their neighbours. The neighbours may be cut
        too, because a thin slab cuts the transverse processes of all vertebrae.
    """
    found = []
    for at, level in enumerate(order):
        if level not in volumes or level not in cut:
            continue
        near = order[max(0, at - parameters.NEIGHBOUR_LEVELS) : at + parameters.NEIGHBOUR_LEVELS + 1]
        others = [volumes[other] for other in near if other in volumes and other != level]
        if others and volumes[level] < parameters.SLIVER_SHARE * float(np.median(others)):
            found.append(level)
    return tuple(found)
