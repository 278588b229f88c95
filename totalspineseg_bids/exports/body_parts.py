"""Vertebral bodies and posterior elements as separate labels."""

from __future__ import annotations

from typing import Final

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import BY_ID, VERTEBRA_LEVELS, AnatomicalLabel, Structure, unnamed
from totalspineseg_bids.imaging.volume import Affine
from totalspineseg_bids.measurement import find_body_fronts
from totalspineseg_bids.segmentation.result import LabelledSpine

#: Posterior elements have the value of their body plus this.
POSTERIOR_OFFSET: Final = 100
_FIRST_UNNAMED: Final = 50


def _body_value(label: AnatomicalLabel) -> int | None:
    if label.structure is not Structure.VERTEBRA:
        return None
    if label.level:
        return VERTEBRA_LEVELS.index(label.level) + 1
    return _FIRST_UNNAMED + label.id - unnamed(Structure.VERTEBRA, 1).id + 1


def part_values() -> list[tuple[int, str, str]]:
    """Return value, name and colour of each label: bodies C1 = 1, ... L6 = 26, posterior elements 100 more.

    >>> part_values()[1], part_values()[2]
    ((101, 'vertebrae_C1_posterior_elements', '#5caaf2'), (2, 'vertebrae_C2_body', '#f2a45c'))
    """
    rows = []
    for label in BY_ID.values():
        value = _body_value(label)
        if value is not None:
            rows += [
                (value, f"{label.name}_body", label.hex_color),
                (value + POSTERIOR_OFFSET, f"{label.name}_posterior_elements", label.hex_color),
            ]
    return rows


def split_vertebrae(spine: LabelledSpine, labels: NDArray[np.uint8], affine: Affine) -> NDArray[np.uint8]:
    """Divide vertebrae at the front wall of the canal.

    Parameters
    ----------
    spine : LabelledSpine
        Labelled spine.
    labels : (X, Y, Z) uint8
        Canonical ids on the grid of the result.
    affine : (4, 4) float
        Voxel index of the result to scanner space (RAS+, mm).

    Returns
    -------
    ndarray of uint8
        Values of `part_values`. C1 has no body; a vertebra without a canal in view is left out.

    Examples
    --------
    >>> from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, vertebra
    >>> from totalspineseg_bids.segmentation.result import Component, SpineStatus
    >>> labels = np.zeros((20, 40, 30), np.uint8)
    >>> labels[4:16, 4:14], labels[8:12, 7:11] = CANAL_ID, CORD_ID
    >>> labels[2:18, 16:36, 5:25] = vertebra("L3").id
    >>> body = Component(vertebra("L3").id, Structure.VERTEBRA, "L3", 1.0, None, None, False, 6400.0, (9.5, 25.5, 14.5))
    >>> spine = LabelledSpine(labels, np.eye(4), (body,), SpineStatus.LABELLED)
    >>> np.unique(split_vertebrae(spine, labels, np.eye(4))).tolist()
    [0, 23]
    """
    result = np.zeros(labels.shape, np.uint8)
    fronts = find_body_fronts(spine)
    for component in spine.components:
        value = _body_value(BY_ID[component.label_id])
        if value is None or (component.label_id not in fronts and component.level != "C1"):
            continue
        voxels = np.argwhere(labels == component.label_id)
        behind = np.ones(len(voxels), bool)
        if component.label_id in fronts:
            frame, front = fronts[component.label_id]
            behind = frame.coordinates(apply_affine(affine, voxels))[:, 1] < front
        result[tuple(voxels.T)] = np.where(behind, value + POSTERIOR_OFFSET, value)
    return result
