"""The border between C1 and C2, where no disc is: by shape, when the classes of the map do not tell them apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.imaging.centerline import Projection
from totalspineseg_bids.imaging.masks import indices_of
from totalspineseg_bids.segmentation.class_map import Kind
from totalspineseg_bids.segmentation.labelling.records import LabelledComponents, Naming

# Heights are above the middle of disc C2-C3, along the canal; all in mm of the adult table, read off the two adult
# atlases of the neck in ``../shared/anatomy``, where this border finds C1 and C2 with Dice 0.89 to 0.94.
#: From here up, what is not the dens is C1: the joints between the two lie here.
_JOINT_MM = 21.0
#: How far the top of C1 lies above, and its transverse processes from the midline.
_TOP_MM, _SIDE_MM = 50.0, 48.0
#: The dens: half its width, its back in front of the canal's middle, its front beyond the middle of the disc.
_DENS_HALF_WIDTH_MM, _DENS_BACK_MM, _DENS_FRONT_MM = 7.5, 4.0, 5.0
_DENS_TOP_MM = 40.0
#: Share of C1 or of C2 on the other's side of this border from which the map is not believed.
_ASTRAY = 0.3
#: Share of C2 on its side of this border that has C2's class where a model tells C2 from others.
_PAINTED = 0.5
#: From here up bone without that class is C1's.
_CLASS_FROM_MM = 23.0
#: About a sixth of C1, mm³.
_LEAST_ATLAS_MM3 = 1500.0


def separate_atlas_and_axis(
    out: NDArray[np.uint8], kinds: NDArray[np.uint8], found: LabelledComponents, naming: Naming
) -> None:
    """Draw the border of C1 and C2 by shape where the map is wrong: a good part of one is where only the other can be.

    Parameters
    ----------
    out
        Label map, shape (X, Y, Z); ids of C1 and C2 are written.
    kinds
        Tissue of each voxel on the same grid.
    found, naming
        Components, and the id of each. Without a named disc C2-C3 nothing is done.
    """
    axis, atlas, below = anatomy.vertebra("C2").id, anatomy.vertebra("C1").id, anatomy.disc("C2-C3").id
    named = {axis, atlas} & {*naming.ids, *naming.vertebra_slots[:1]}
    if not named or below not in naming.ids:
        return
    context, disc, scale = found.context, found.observations[naming.ids.index(below)], found.solution.scale
    index = indices_of((out == axis) | (out == atlas) | ((out == 0) & (kinds == Kind.VERTEBRA)))
    place = context.centerline.project(index * context.spacing)
    above = (disc.s - place.s) / scale
    near = (above < _TOP_MM) & (np.abs(place.lateral) < _SIDE_MM * scale)
    ids = out[index[:, 0], index[:, 1], index[:, 2]]
    dens = _dens(place, disc.anterior, scale) & (above < _DENS_TOP_MM)
    ours = near & (above > _JOINT_MM) & ~dens
    theirs = near & ~ours
    own = _has_class_of_axis(index, found) if atlas in named else np.zeros(len(index), bool)
    if _share(own, theirs) > _PAINTED and _share(own, ours) < _ASTRAY:
        # The class tells them apart, and better than shape.
        ours = near & (above > _CLASS_FROM_MM) & ~own
        theirs = near & own
    else:
        astray = (_share(theirs, ids == atlas), _share(ours, ids == axis))
        if atlas in named and max(astray) < _ASTRAY:
            return
    # Where C1 is out of view, what is left of C2 up there is no vertebra.
    if np.count_nonzero(ours) * context.voxel_mm3 <= _LEAST_ATLAS_MM3 * scale**3:
        return
    for rows, label in ((ours, atlas), (theirs & (ids == atlas), axis)):
        out[index[rows, 0], index[rows, 1], index[rows, 2]] = label


def _has_class_of_axis(index: NDArray[np.int64], found: LabelledComponents) -> NDArray[np.bool_]:
    """Tell which voxels have the class that only C2 has; none if the model has no such class."""
    semantic = found.context.maps[0][0]
    values = [v for v, m in semantic.layout.meanings.items() if m.kind is Kind.VERTEBRA and m.level == "C2"]
    return np.isin(semantic.labels[index[:, 0], index[:, 1], index[:, 2]], values)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(part & whole)) / max(int(np.count_nonzero(whole)), 1)


def _dens(place: Projection, front: float, scale: float) -> NDArray[np.bool_]:
    return (
        (np.abs(place.lateral) < _DENS_HALF_WIDTH_MM * scale)
        & (place.anterior > _DENS_BACK_MM * scale)
        & (place.anterior < front + _DENS_FRONT_MM * scale)
    )
