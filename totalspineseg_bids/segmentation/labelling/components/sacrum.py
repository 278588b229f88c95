"""Is what carries the class of the sacrum one? A false sacrum would name a whole column wrongly."""

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
from totalspineseg_bids.segmentation.labelling.components.level_prior import LevelPrior, sacrum_mask
from totalspineseg_bids.segmentation.labelling.components.parameters import (
    LOWEST_DISC_BELOW_SACRUM_MM,
    PRIOR_NO_DISC,
    SMALL_DISC_SHARE,
)
from totalspineseg_bids.segmentation.labelling.records import Observation
from totalspineseg_bids.segmentation.semantic_map import SemanticMap


def plain_vertebra_value(layout: ClassMap) -> int | None:
    """Return the integer that means vertebra and nothing more, else any that means vertebra; None without one."""
    values = layout.values_of("vertebrae")
    plain = [v for v in values if (m := layout.meanings[v]).level is None and m.region is None and not m.parity]
    return next(iter([*plain, *values]), None)


def _is_sacrum(semantic: SemanticMap) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = semantic.layout.kinds(semantic.labels) == Structure.SACRUM
    return mask


def _relabel_as_vertebra(semantic: SemanticMap, mask: NDArray[np.bool_]) -> SemanticMap:
    labels = semantic.labels.copy()
    labels[mask] = plain_vertebra_value(semantic.layout) or 0
    return replace(semantic, labels=labels)


def keep_largest_sacrum(semantic: SemanticMap) -> SemanticMap:
    """Keep the largest connected piece of the sacrum's class; its voxels elsewhere become undecided vertebra."""
    mask = _is_sacrum(semantic)
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
    """Give bone that a level prior takes for sacrum the class of the sacrum, where the layout has one.

    A sacrum looks like one more vertebra to a network that sees a part of the column; the prior sees where the column
    ends.
    """
    values = semantic.layout.values_of("sacrum")
    if not values:
        return semantic
    bone = (semantic.layout.kind_table == Structure.VERTEBRA)[semantic.labels]
    sacral = sacrum_mask(bone, affine, level_prior)
    if not sacral.any():
        return semantic
    labels = semantic.labels.copy()
    labels[sacral] = next(iter(values))
    return replace(semantic, labels=labels)


def without_sacrum(semantic: SemanticMap) -> SemanticMap:
    """Turn all voxels of the sacrum's class into undecided vertebra."""
    return _relabel_as_vertebra(semantic, _is_sacrum(semantic))


def is_plausible(observations: Sequence[Observation], levels: Sequence[str | None]) -> bool:
    """Tell whether a sacrum among the components is at the lower end of what belongs to the column.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    levels
        Their levels in the best explanation, ``None`` for what is no part of the column.

    Returns
    -------
    bool
        True as well where there is none.
    """
    sacra = [n for n, o in enumerate(observations) if o.kind is Structure.SACRUM]
    if any(levels[n] is None for n in sacra):
        return False
    discs = [o for o in observations if o.kind is Structure.DISC]
    if any(observations[n].level_prior for n in sacra):
        discs = [o for o in discs if sum(o.level_prior.values()) >= PRIOR_NO_DISC]
    typical = float(np.median([o.volume_mm3 for o in discs])) if discs else 0.0
    lowest = max((o.s for o in discs if _is_disc_of_column(o, typical)), default=-np.inf)
    return all(observations[n].s > lowest - LOWEST_DISC_BELOW_SACRUM_MM for n in sacra)


def _is_disc_of_column(disc: Observation, typical_mm3: float) -> bool:
    """Whether a disc is in line and of some size; a rest of the disc between S1 and S2 is neither false nor large."""
    return disc.anterior > 3.0 and abs(disc.lateral) < 22.0 and disc.volume_mm3 > SMALL_DISC_SHARE * typical_mm3
