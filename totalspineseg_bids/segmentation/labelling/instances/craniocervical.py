"""Find the border between C1 and C2, which have no disc, by shape if the classes of the map do not separate them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.centerline import Projection
from totalspineseg_bids.imaging.masks import indices_of
from totalspineseg_bids.segmentation.labelling.instances import parameters
from totalspineseg_bids.segmentation.labelling.records import LabelledComponents, Naming


def separate_atlas_and_axis(
    out: NDArray[np.uint8], kinds: NDArray[np.uint8], found: LabelledComponents, naming: Naming
) -> None:
    """Correct the border of C1 and C2 where a large part of one lies where only the other can be.

    Parameters
    ----------
    out
        Label map, shape (X, Y, Z); ids of C1 and C2 are written.
    kinds
        Tissue of each voxel on the same grid.
    found
        Components of the image.
    naming
        Id of each component. Without a named disc C2-C3 nothing is changed.
    """
    axis, atlas, below = anatomy.vertebra("C2").id, anatomy.vertebra("C1").id, anatomy.disc("C2-C3").id
    named = {axis, atlas} & {*naming.ids, *naming.vertebra_slots[:1]}
    if not named or below not in naming.ids:
        return
    context, disc, scale = found.context, found.observations[naming.ids.index(below)], found.solution.scale
    index = indices_of((out == axis) | (out == atlas) | ((out == 0) & (kinds == Structure.VERTEBRA)))
    place = context.centerline.project(index * context.spacing)
    above = (disc.s - place.s) / scale
    near = (above < parameters.ATLAS_TOP_MM) & (np.abs(place.lateral) < parameters.ATLAS_SIDE_MM * scale)
    ids = out[index[:, 0], index[:, 1], index[:, 2]]
    dens = _dens(place, disc.anterior, scale) & (above < parameters.DENS_TOP_MM)
    ours = near & (above > parameters.ATLAS_AXIS_JOINT_MM) & ~dens
    theirs = near & ~ours
    own = _has_class_of_axis(index, found) if atlas in named else np.zeros(len(index), bool)
    if _share(own, theirs) > parameters.AXIS_CLASS_SHARE and _share(own, ours) < parameters.MISPLACED_SHARE:
        # Where the class separates the two, it does so better than shape.
        ours = near & (above > parameters.ATLAS_BONE_FROM_MM) & ~own
        theirs = near & own
    else:
        astray = (_share(theirs, ids == atlas), _share(ours, ids == axis))
        if atlas in named and max(astray) < parameters.MISPLACED_SHARE:
            return
    # If C1 is out of view, the voxels above the joint are too few for a vertebra.
    if np.count_nonzero(ours) * context.voxel_mm3 <= parameters.LEAST_ATLAS_MM3 * scale**3:
        return
    for rows, label in ((ours, atlas), (theirs & (ids == atlas), axis)):
        out[index[rows, 0], index[rows, 1], index[rows, 2]] = label


def _has_class_of_axis(index: NDArray[np.int64], found: LabelledComponents) -> NDArray[np.bool_]:
    """Return which voxels have the class of C2; none if the model has no such class, shape (N,)."""
    semantic = found.context.maps[0][0]
    values = [v for v, m in semantic.class_map.meanings.items() if m.kind is Structure.VERTEBRA and m.level == "C2"]
    return np.isin(semantic.labels[index[:, 0], index[:, 1], index[:, 2]], values)


def _share(part: NDArray[np.bool_], whole: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(part & whole)) / max(int(np.count_nonzero(whole)), 1)


def _dens(place: Projection, front: float, scale: float) -> NDArray[np.bool_]:
    return (
        (np.abs(place.lateral) < parameters.DENS_HALF_WIDTH_MM * scale)
        & (place.anterior > parameters.DENS_BACK_MM * scale)
        & (place.anterior < front + parameters.DENS_FRONT_MM * scale)
    )
