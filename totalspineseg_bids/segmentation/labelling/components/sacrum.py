"""Check and correct the class of the sacrum; a false sacrum would shift the levels of the whole column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.grid import foreground_box
from totalspineseg_bids.imaging.masks import connected_parts
from totalspineseg_bids.imaging.volume import Affine
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling.components import parameters
from totalspineseg_bids.segmentation.labelling.components.level_prior import LevelPrior, sacrum_mask
from totalspineseg_bids.segmentation.labelling.parameters import BODY_SIDE_MM, DISC_FRONT_MM
from totalspineseg_bids.segmentation.labelling.records import Observation
from totalspineseg_bids.segmentation.semantic_map import SemanticMap


def plain_vertebra_value(layout: ClassMap) -> int | None:
    """Return the integer of vertebrae without level, region or parity, otherwise any of vertebrae, or ``None``."""
    values = layout.values_of("vertebrae")
    plain = [v for v in values if (m := layout.meanings[v]).level is None and m.region is None and not m.parity]
    return next(iter([*plain, *values]), None)


def _relabel_as_vertebra(semantic: SemanticMap, mask: NDArray[np.bool_]) -> SemanticMap:
    labels = semantic.labels.copy()
    labels[mask] = plain_vertebra_value(semantic.class_map) or 0
    return replace(semantic, labels=labels)


def keep_largest_sacrum(semantic: SemanticMap) -> SemanticMap:
    """Keep the largest connected piece of the sacrum; the others become vertebra without a level."""
    mask = semantic.class_map.select(semantic.labels, Structure.SACRUM)
    if not mask.any():
        return semantic
    box = foreground_box(mask)
    part, number = connected_parts(mask[box])
    if box is None or number == 1:
        return semantic
    sizes = np.bincount(part.ravel())
    sizes[0] = 0
    mask[box] &= part != int(sizes.argmax())
    return _relabel_as_vertebra(semantic, mask)


def relabel_by_prior(semantic: SemanticMap, affine: Affine, level_prior: LevelPrior) -> SemanticMap:
    """Relabel bone that is sacrum by the level prior, if the layout has a class for it.

    In a patch of the column a sacrum looks like one more vertebra; the prior covers the end of the column.
    """
    values = semantic.class_map.values_of("sacrum")
    if not values:
        return semantic
    bone = semantic.class_map.select(semantic.labels, Structure.VERTEBRA)
    sacral = sacrum_mask(bone, affine, level_prior)
    if not sacral.any():
        return semantic
    labels = semantic.labels.copy()
    labels[sacral] = next(iter(values))
    return replace(semantic, labels=labels)


def without_sacrum(semantic: SemanticMap) -> SemanticMap:
    """Relabel the sacrum as vertebra without a level."""
    return _relabel_as_vertebra(semantic, semantic.class_map.select(semantic.labels, Structure.SACRUM))


def is_plausible(observations: Sequence[Observation], levels: Sequence[str | None]) -> bool:
    """Return whether the sacrum is at the lower end of the column; true if there is none.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    levels
        Level of each component, ``None`` if it is not part of the column.
    """
    sacra = [n for n, o in enumerate(observations) if o.kind is Structure.SACRUM]
    if any(levels[n] is None for n in sacra):
        return False
    discs = [o for o in observations if o.kind is Structure.DISC]
    if any(observations[n].level_prior for n in sacra):
        discs = [o for o in discs if sum(o.level_prior.values()) >= parameters.PRIOR_NO_DISC]
    typical = float(np.median([o.volume_mm3 for o in discs])) if discs else 0.0
    lowest = max((o.s for o in discs if _is_disc_of_column(o, typical)), default=-np.inf)
    return all(observations[n].s > lowest - parameters.LOWEST_DISC_BELOW_SACRUM_MM for n in sacra)


def _is_disc_of_column(disc: Observation, typical_mm3: float) -> bool:
    """Return whether a disc lies in the column and is not small; a remnant of the disc S1-S2 is in line but small."""
    return (
        disc.anterior > DISC_FRONT_MM
        and abs(disc.lateral) < BODY_SIDE_MM
        and disc.volume_mm3 > parameters.SMALL_DISC_SHARE * typical_mm3
    )
