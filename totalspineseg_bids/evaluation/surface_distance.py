"""Normalised surface distance: share of two surfaces within a tolerance of each other.

Sources
-------
Nikolov et al., "Clinically applicable segmentation of head and neck anatomy for radiotherapy", Journal of Medical
Internet Research 23 (2021), there called surface Dice at a tolerance. The surface of a mask is here the set of faces
between a voxel inside and a neighbour outside, each with its area, so that anisotropic voxels have the correct weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from totalspineseg_bids.imaging.volume import Affine

#: Tolerance, mm: the voxel size at which the method works.
TOLERANCE_MM = 1.0


def surface_faces(mask: NDArray[np.bool_], affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the faces of a mask's surface.

    Faces on the border of the array are left out: there the field of view ends, not the structure.

    Parameters
    ----------
    mask : (X, Y, Z) bool
    affine : Affine
        4x4, voxel index to mm.

    Returns
    -------
    centres : ndarray of float64, shape (N, 3)
        mm.
    areas : ndarray of float64, shape (N,)
        mm².
    """
    columns = affine[:3, :3]
    centres: list[NDArray[np.float64]] = []
    areas: list[NDArray[np.float64]] = []
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        where = np.argwhere(mask[tuple(ahead)] != mask[tuple(behind)]).astype(np.float64)
        where[:, axis] += 0.5
        area = float(np.linalg.norm(np.cross(columns[:, (axis + 1) % 3], columns[:, (axis + 2) % 3])))
        centres.append(where @ columns.T + affine[:3, 3])
        areas.append(np.full(len(where), area))
    return np.concatenate(centres), np.concatenate(areas)


def normalised_surface_distance(
    truth: NDArray[np.bool_], predicted: NDArray[np.bool_], affine: Affine, tolerance_mm: float = TOLERANCE_MM
) -> float:
    """Return the share of both surfaces that lies within a tolerance of the other one.

    Parameters
    ----------
    truth, predicted : bool array
        Masks on one grid, shape (X, Y, Z).
    affine : Affine
        4x4, voxel index to mm.
    tolerance_mm : float, optional
        Distance from face centre to face centre that still counts as the same place.

    Returns
    -------
    float
        0 to 1; 0 where only one mask has a surface, NaN where neither has.
    """
    true_centres, true_areas = surface_faces(truth, affine)
    own_centres, own_areas = surface_faces(predicted, affine)
    total = float(true_areas.sum() + own_areas.sum())
    if total == 0:
        return float("nan")
    if not len(true_areas) or not len(own_areas):
        return 0.0
    # A hair above the tolerance, so that whole voxels are not lost to rounding.
    limit = tolerance_mm * (1 + 1e-6)
    near = 0.0
    for centres, areas, other in ((true_centres, true_areas, own_centres), (own_centres, own_areas, true_centres)):
        distance, _ = cKDTree(other).query(centres, distance_upper_bound=limit * 1.01 + 1e-6)
        near += float(areas[distance <= limit].sum())
    return near / total
