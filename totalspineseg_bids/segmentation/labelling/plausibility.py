"""Sizes that do not fit the neighbours': the name may be right and the voxels not its own, or hardly in view."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from totalspineseg_bids.anatomy import VERTEBRA_LEVELS

TOO_LARGE = "larger than its neighbours: may hold parts of them"
TOO_SMALL = "smaller than its neighbours: parts of it may be missing"
SLIVER = "a sliver at the edge of the field of view: its border may be that of its neighbour"

#: Volume against the median of the neighbours from which a vertebra is out of line. In label maps of four adults it is
#: 0.78 to 1.24 for whole vertebrae below C2.
_LARGE, _SMALL = 1.8, 0.4
#: The same for what the field of view cuts: below it next to nothing of its shape is left to lay its border by.
_SLIVER = 0.1
#: Neighbours within so many levels are compared with; growth along the column cancels out between both sides.
_REACH = 2
#: C1 and C2 are unlike all others; their volume against the median of C3 to C5 (in two of these adults 1.2 and 1.8, 1.4
#: and 1.7), and how much of C2's volume C1 has at most (0.8 and 1.0 there).
_ENDS = {"C1": 1.4, "C2": 1.6}
_ATLAS_OF_AXIS = 1.5
_END_NEIGHBOURS = ("C3", "C4", "C5")


def size_outliers(volumes: Mapping[str, float], cut: Collection[str]) -> dict[str, str]:
    """Tell which vertebrae are much larger or smaller than their neighbours, and what that may mean.

    Parameters
    ----------
    volumes
        Volume of each named vertebra, mm³; the sacrum left out.
    cut
        Those that the field of view cuts: they are no measure, and nothing is said of them.

    Returns
    -------
    dict
        Reason by level; without two neighbours to compare with there is none.
    """
    whole = {level: volume for level, volume in volumes.items() if level not in cut}
    reasons = {}
    for level, volume in whole.items():
        at = VERTEBRA_LEVELS.index(level)
        near = VERTEBRA_LEVELS[max(0, at - _REACH) : at + _REACH + 1] if level not in _ENDS else _END_NEIGHBOURS
        others = [whole[other] for other in near if other in whole and other != level and other not in _ENDS]
        if len(others) < 2:
            continue
        ratio = volume / (float(np.median(others)) * _ENDS.get(level, 1.0))
        if ratio > _LARGE:
            reasons[level] = TOO_LARGE
        elif ratio < _SMALL:
            reasons[level] = TOO_SMALL
    if {"C1", "C2"} <= whole.keys() and whole["C1"] > _ATLAS_OF_AXIS * whole["C2"]:
        reasons |= {"C1": TOO_LARGE, "C2": TOO_SMALL}
    return reasons


def slivers(volumes: Mapping[str, float], cut: Collection[str], order: Sequence[str]) -> tuple[str, ...]:
    """Tell of which vertebrae, or of which discs, the field of view leaves a sliver.

    Parameters
    ----------
    volumes
        Volume of each named vertebra or of each named disc, mm³; the sacrum left out.
    cut
        Those that the field of view cuts.
    order
        All levels of that kind, cranial to caudal.

    Returns
    -------
    tuple of str
        Levels in ``order`` with less than a tenth of the median of their neighbours, which may be cut too: thin slabs
        cut the transverse processes of all.
    """
    found = []
    for at, level in enumerate(order):
        if level not in volumes or level not in cut:
            continue
        near = order[max(0, at - _REACH) : at + _REACH + 1]
        others = [volumes[other] for other in near if other in volumes and other != level]
        if others and volumes[level] < _SLIVER * float(np.median(others)):
            found.append(level)
    return tuple(found)
