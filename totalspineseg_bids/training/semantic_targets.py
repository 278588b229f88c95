"""Conversion of canonical label maps to the semantic targets of the three networks.

Parity
------
Step 2 distinguishes neighbours by alternating the classes of discs and vertebrae. The convention, which is that of
the public label maps of the method (neuropoly/totalspineseg, ``resources/labels_maps/nnunet_step2.json``):

* Discs are counted from C2-C3, which is the first and *odd*: C2-C3, C4-C5, C6-C7, T1-T2, … L5-S are odd
  (`odd_discs`). These are the second input channel.
* Vertebrae are counted from C1, which is the first and *odd*: C1, C3, C5, … T12, L2, L4. A vertebra so has the parity
  of the disc *above* it (C3 below C2-C3).
* C2, T1, T12 and the sacrum, and the discs C2-C3, C7-T1, T12-L1 and L5-S, have a class of their own and no parity
  class; they still count. With the parities swapped they keep their class, while the input channel shows the even
  discs (C3-C4, C5-C6, C7-T1, …).
* The count goes over the levels that this spine has. With 13 thoracic vertebrae, T12-T13 and T13 take the turn of
  T12-L1 and L1, and everything below shifts by one: what matters to the network is that parities alternate all along
  the column. Which levels a spine has is read off its labels (`spine_variant`).

Components without a level (ids 101-130 and 151-180) have no parity: they get the value of their union region.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.training.class_maps import REGIONS, DatasetId

_REGULAR = SpineVariant()
_TUBES: dict[Structure, tuple[str, ...]] = {Structure.CORD: ("cord", "canal"), Structure.CANAL: ("csf", "canal")}


def spine_variant(labels: NDArray[np.uint8]) -> SpineVariant:
    """Count the thoracic and lumbar vertebrae of a label map.

    Parameters
    ----------
    labels : uint8 array
        Canonical ids, any shape.

    Returns
    -------
    SpineVariant
        13 thoracic or 6 lumbar where a supernumerary level is present; 11 or 4 where the last regular level and the
        disc above it are missing between neighbours that are both there; else 12 and 5. What the field of view does
        not show is taken for regular.
    """
    present = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    names = {anatomy.BY_ID[number].level for number in present if number in anatomy.BY_ID}
    few_thoracic = {"T11", "L1"} <= names and not names & {"T12", "T11-T12"}
    few_lumbar = {"L4", "S"} <= names and not names & {"L5", "L4-L5"}
    thoracic = 13 if names & {"T13", "T12-T13"} else 11 if few_thoracic else 12
    return SpineVariant(thoracic, 6 if names & {"L6", "L5-L6"} else 4 if few_lumbar else 5)


def odd_discs(variant: SpineVariant = _REGULAR, *, swap_parity: bool = False) -> tuple[str, ...]:
    """Return the levels of the discs that step 2 gets as its second channel: every second one from C2-C3.

    Parameters
    ----------
    variant : SpineVariant, optional
        Number of vertebrae.
    swap_parity : bool, default False
        Return the others instead, from C3-C4.
    """
    return variant.discs()[int(swap_parity) :: 2]


def _region_of(label: anatomy.AnatomicalLabel, regions: Collection[str], odd: frozenset[str]) -> str | None:
    """Return the innermost of some regions that a label belongs to."""
    prefix = "disc" if label.structure is Structure.DISC else "vertebrae"
    names = _TUBES.get(label.structure, (prefix,))
    if label.level:
        parity, part = "O" if label.level in odd else "E", label.level[0]
        # A level without a region of its own belongs to its parity or to its part of the column.
        names = (label.name, f"{prefix}_{parity}", f"{prefix}_{part}", prefix)
    return next((name for name in names if name in regions), None)


def _odd_levels(variant: SpineVariant, *, swap_parity: bool) -> frozenset[str]:
    """Return the odd vertebrae and discs; a level that this variant does not have alternates with the one above it."""
    odd: set[str] = set()
    for every, own in (
        (anatomy.VERTEBRA_LEVELS, variant.vertebrae()),
        (anatomy.DISC_LEVELS, variant.discs()),
    ):
        above = swap_parity
        for level in every:
            above = own.index(level) % 2 == int(swap_parity) if level in own else not above
            if above:
                odd.add(level)
    return frozenset(odd)


def class_table(
    regions: Mapping[str, tuple[int, ...]], variant: SpineVariant = _REGULAR, *, swap_parity: bool = False
) -> NDArray[np.uint8]:
    """Return the look-up table from canonical ids to the values of a class map.

    Parameters
    ----------
    regions : mapping of str to tuple of int
        Values of each class, as in `ClassMap.labels`.
    variant : SpineVariant, optional
        Number of vertebrae, which the parities below the thoracic and lumbar column depend on.
    swap_parity : bool, default False
        Odd and even exchanged; without effect on a class map without parities.

    Returns
    -------
    ndarray of uint8, shape (256,)
        Read-only. Tissues (1-9), background, unknown ids and structures without a class become 0.
    """
    odd = _odd_levels(variant, swap_parity=swap_parity)
    table = np.zeros(256, np.uint8)
    for label in anatomy.LABELS:
        region = _region_of(label, regions, odd)
        # The first value of a region is that of what belongs to none of its parts.
        table[label.id] = regions[region][0] if region else 0
    table.setflags(write=False)
    return table


@cache
def semantic_table(
    dataset: DatasetId, swap_parity: bool = False, variant: SpineVariant = _REGULAR
) -> NDArray[np.uint8]:
    """Return the `class_table` of a dataset, 101, 102 or 103."""
    return class_table(REGIONS[dataset], variant, swap_parity=swap_parity)


def semantic_map(labels: NDArray[np.uint8], dataset: DatasetId, *, swap_parity: bool = False) -> NDArray[np.uint8]:
    """Turn canonical ids into the semantic values that a network learns.

    Parameters
    ----------
    labels : uint8 array
        Canonical ids, any shape.
    dataset : DatasetId
        101, 102 or 103.
    swap_parity : bool, default False
        Odd and even exchanged (102 only).

    Returns
    -------
    ndarray of uint8
        Same shape, values of ``class_maps.REGIONS[dataset]``.
    """
    variant = spine_variant(labels) if dataset == 102 else _REGULAR
    values: NDArray[np.uint8] = semantic_table(dataset, swap_parity, variant)[labels]
    return values


def odd_disc_mask(labels: NDArray[np.uint8], swap_parity: bool = False) -> NDArray[np.uint8]:
    """Return the second input channel of step 2: 1 in odd discs (landmarks among them), 0 elsewhere.

    Parameters
    ----------
    labels : uint8 array
        Canonical ids, any shape.
    swap_parity : bool, default False
        Even discs instead, as in the second copy of each training case.
    """
    table = np.zeros(256, np.uint8)
    for level in odd_discs(spine_variant(labels), swap_parity=swap_parity):
        table[anatomy.disc(level).id] = 1
    mask: NDArray[np.uint8] = table[labels]
    return mask
