"""A second set of colours for the labels, told apart without red and green.

The hues are those of Okabe and Ito (Color Universal Design, 2008). Neighbours along the spine take turns of three, so
that equal colours never touch, whether or not there is a supernumerary level; names and shapes tell which is which.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure

_VERTEBRAE: Final = ("#0072b2", "#e69f00", "#009e73")
_DISCS: Final = ("#56b4e9", "#f0e442", "#d9d9d9")
_OTHER: Final = {Structure.CORD: "#ffffff", Structure.CANAL: "#cc79a7", Structure.SACRUM: "#d55e00"}


@cache
def colour_blind_palette() -> dict[str, str]:
    """Return the fixed colour of every label and the one that takes its place, both as ``#rrggbb``."""
    found: dict[str, str] = {}
    turns = {Structure.VERTEBRA: 0, Structure.DISC: 0}
    for label in anatomy.LABELS:
        if label.structure in _OTHER:
            found[label.hex_color] = _OTHER[label.structure]
            continue
        cycle = _VERTEBRAE if label.structure is Structure.VERTEBRA else _DISCS
        found.setdefault(label.hex_color, cycle[turns[label.structure] % len(cycle)])
        turns[label.structure] += 1
    return found
