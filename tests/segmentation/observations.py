"""Components of artificial columns, as the labelling finds them in a map."""

from dataclasses import replace
from typing import Any

import numpy as np

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling.column.parameters import chain_of
from totalspineseg_bids.segmentation.labelling.records import CanalExtent, ClassShares, Observation

STEP1, STEP2 = ClassMap.named("r20240601-step1"), ClassMap.named("r20241115-step2")
USUAL = SpineVariant()
DISC_LANDMARKS = {"C2-C3", "C7-T1", "T12-L1", "L5-S"}


def make_observation(
    kind, s=0.0, *, level=None, share=1.0, parity=(0.0, 0.0), layout=STEP2, volume=4000.0, **changes: Any
):
    """Return a component, 6 mm long, at ``s`` along the canal; ``level`` sets the class of its voxels."""
    shares = ClassShares({level: share} if level else {}, {}, *parity, 1.0, layout.level_names)
    center = np.array([0.0, 15.0, -s])
    plain = Observation(kind, center, s, s - 3, s + 3, 15.0, 0.0, volume, Cut.NONE, (shares,), 0)
    return replace(plain, **changes)


def column_of(first="C1", last="S", *, variant=USUAL, scale=0.95, layout=STEP2, landmarks=DISC_LANDMARKS):
    """True names and components of a column in view, from cranial to caudal."""
    chain = chain_of(variant)
    low, high = chain.vertebrae.index(first), chain.vertebrae.index(last)
    found = {}
    for n in range(low, high + 1):
        name, s = chain.vertebrae[n], chain.position_mm[2 * n] * scale
        level = name if name in landmarks else None
        if layout is STEP2 and name == "S":
            found[name] = make_observation(Structure.SACRUM, s, level="S", volume=4e4)
        elif layout is STEP2:
            parity = (float(n % 2 == 0), float(n % 2))
            found[name] = make_observation(Structure.VERTEBRA, s, level=level, parity=parity, volume=1e4)
        if n < high and (disc := chain.discs[n]):
            s, volume = chain.position_mm[2 * n + 1] * scale, chain.disc_volume_mm3[n] * scale**3
            level = disc if disc in landmarks else None
            found[disc] = make_observation(Structure.DISC, s, level=level, volume=volume, layout=layout)
    return list(found), list(found.values())


def canal_extent(observations, room=15.0):
    return CanalExtent(observations[0].s - room, observations[-1].s + room)
