"""Levels of a labelled image of the same session as evidence for the components of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.segmentation.labelling.components import parameters
from totalspineseg_bids.segmentation.labelling.parameters import BODY_FRONT_MM
from totalspineseg_bids.segmentation.labelling.records import Observation, SpineContext

_WITH_LEVELS = (Structure.DISC, Structure.VERTEBRA, Structure.SACRUM)


def with_localizer_levels(
    observations: Sequence[Observation], context: SpineContext, affine: Affine, localizer: Volume
) -> list[Observation]:
    """Add the level of the nearest structure of its kind in a labelled image to each component.

    Parameters
    ----------
    observations
        Components of the image.
    context
        Its grid and centreline.
    affine
        Voxel-to-scanner matrix of the grid.
    localizer
        Labelled image with canonical ids, any grid; unnamed labels are ignored.

    Returns
    -------
    list[Observation]
        The same components, with ``localizer_levels`` set where a structure of the localizer is near.
    """
    labels = np.asarray(localizer.data).astype(np.uint8)
    to_local = np.linalg.inv(affine) @ localizer.affine
    voxel = float(abs(np.linalg.det(localizer.affine[:3, :3])))
    places: list[tuple[Structure, str, float, float]] = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        known = anatomy.BY_ID.get(number)
        if box is None or known is None or known.structure not in _WITH_LEVELS or not known.level:
            continue
        index = np.argwhere(labels[box] == number) + np.array([s.start for s in box])
        if len(index) * voxel < parameters.LOCALIZER_SMALLEST_MM3:
            continue
        points = (index @ to_local[:3, :3].T + to_local[:3, 3]) * context.spacing
        projection = context.centerline.project(points)
        kind = known.structure
        front = projection.anterior > (BODY_FRONT_MM if kind is Structure.VERTEBRA else parameters.LOCALIZER_BEHIND_MM)
        if kind is Structure.SACRUM or not front.any():
            continue
        aside = float(
            np.hypot(
                projection.anterior[front].mean() - parameters.LOCALIZER_ANTERIOR_MM, projection.lateral[front].mean()
            )
        )
        places.append((kind, known.level, float(projection.s[front].mean()), aside))
    result = []
    for observation in observations:
        near = [
            (abs(s - observation.s), level)
            for kind, level, s, aside in places
            if kind is observation.kind
            and abs(s - observation.s) < parameters.LOCALIZER_NEAR_MM
            and aside < parameters.LOCALIZER_ASIDE_MM
        ]
        level = min(near)[1] if near else None
        result.append(replace(observation, localizer_levels={level: 1.0}) if level is not None else observation)
    return result
