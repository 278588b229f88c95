"""Colour-blind-safe colours of the labels.

The hues are those of Okabe and Ito, Color Universal Design (2008), https://jfly.uni-koeln.de/color/. Vertebrae and
discs each cycle through three hues, so that neighbours always differ, also beside a supernumerary level.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure

_CYCLES: Final = {
    Structure.VERTEBRA: ("#0072b2", "#e69f00", "#009e73"),
    Structure.DISC: ("#56b4e9", "#f0e442", "#d9d9d9"),
    Structure.CORD: ("#ffffff",),
    Structure.CANAL: ("#cc79a7",),
    Structure.SACRUM: ("#d55e00",),
}


@cache
def colour_blind_palette() -> dict[str, str]:
    """Map the colour of each label to its colour-blind-safe substitute, both as ``#rrggbb``.

    Examples
    --------
    >>> colour_blind_palette()[anatomy.vertebra("S").hex_color]
    '#d55e00'
    """
    colours: dict[str, str] = {}
    counts = dict.fromkeys(_CYCLES, 0)
    for label in anatomy.LABELS:
        cycle = _CYCLES[label.structure]
        colours.setdefault(label.hex_color, cycle[counts[label.structure] % len(cycle)])
        counts[label.structure] += 1
    return colours
