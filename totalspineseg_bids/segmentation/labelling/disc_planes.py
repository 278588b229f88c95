"""Planes of discs, which separate the vertebrae above and below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.segmentation.labelling.parameters import FLAT_RATIO, LEAST_PLANE_COSINE, PLANE_VOXELS
from totalspineseg_bids.segmentation.labelling.records import SpineContext


@dataclass(frozen=True, slots=True)
class DiscPlane:
    """Plane of a disc between two vertebrae, found or interpolated."""

    center: NDArray[np.float64]
    """Local mm, shape (3,)."""
    normal: NDArray[np.float64]
    """Unit vector towards caudal, shape (3,)."""


def disc_plane(index: NDArray[np.int64], context: SpineContext) -> DiscPlane:
    """Fit a plane to a disc; if the disc is not flat, perpendicular to the centreline.

    Parameters
    ----------
    index
        Voxel indices, shape (N, 3).
    context
        Grid and centreline.
    """
    points = index * context.spacing
    center = points.mean(axis=0)
    s = float(context.centerline.project(center[None]).s[0])
    along = context.centerline.at(s + 2.0) - context.centerline.at(s - 2.0)
    along /= np.linalg.norm(along)
    if len(points) > PLANE_VOXELS:
        values, vectors = np.linalg.eigh(np.cov((points - center).T))
        normal = vectors[:, 0] * np.sign(vectors[:, 0] @ along or 1.0)
        if values[0] < FLAT_RATIO * values[1] and normal @ along > LEAST_PLANE_COSINE:
            return DiscPlane(center, normal)
    return DiscPlane(center, along)


def interpolate_planes(upper: DiscPlane, lower: DiscPlane, number: int) -> list[DiscPlane]:
    """Return ``number`` planes at equal distances between two planes, for discs that were not found."""
    cuts = []
    for k in range(1, number + 1):
        share = k / (number + 1)
        normal = upper.normal * (1 - share) + lower.normal * share
        cuts.append(DiscPlane(upper.center * (1 - share) + lower.center * share, normal / np.linalg.norm(normal)))
    return cuts


def slots_between_planes(
    points: NDArray[np.float64], cuts: Sequence[DiscPlane], context: SpineContext
) -> NDArray[np.int64]:
    """Count the cuts above each point: 0 above the first, ``len(cuts)`` below the last.

    Parameters
    ----------
    points
        Local mm, shape (N, 3).
    cuts
        Planes from cranial to caudal.
    context
        Grid and centreline.
    """
    if not cuts:
        return np.zeros(len(points), np.int64)
    places = context.centerline.project(np.stack([c.center for c in cuts])).s
    order = np.maximum.accumulate(places)
    slot = np.searchsorted(order, context.centerline.project(points).s).astype(np.int64)
    centers, normals = np.stack([c.center for c in cuts]), np.stack([c.normal for c in cuts])
    # Near a disc its plane decides, because it may be tilted relative to the canal.
    above = np.maximum(slot - 1, 0)
    over = np.einsum("ij,ij->i", points - centers[above], normals[above]) < 0
    below = np.minimum(slot, len(cuts) - 1)
    under = np.einsum("ij,ij->i", points - centers[below], normals[below]) > 0
    return np.where((slot > 0) & over, slot - 1, np.where((slot < len(cuts)) & under, slot + 1, slot))


def interpolate_missing(cuts: Sequence[DiscPlane | None], step_mm: float) -> list[DiscPlane]:
    """Add planes for the discs that were not found, between or beyond the discs found.

    Parameters
    ----------
    cuts
        Planes from cranial to caudal, ``None`` for a disc that was not found.
    step_mm
        Distance between planes beyond the first and the last disc found, mm.
    """
    known = [k for k, plane in enumerate(cuts) if plane is not None]
    result: list[DiscPlane] = []
    for k, plane in enumerate(cuts):
        if plane is not None:
            result.append(plane)
            continue
        before = max((j for j in known if j < k), default=None)
        after = min((j for j in known if j > k), default=None)
        upper = cuts[before] if before is not None else None
        lower = cuts[after] if after is not None else None
        if before is not None and after is not None and upper is not None and lower is not None:
            result.append(interpolate_planes(upper, lower, after - before - 1)[k - before - 1])
        elif lower is not None and after is not None:
            result.append(DiscPlane(lower.center - lower.normal * step_mm * (after - k), lower.normal))
        elif upper is not None and before is not None:
            result.append(DiscPlane(upper.center + upper.normal * step_mm * (k - before), upper.normal))
    return result
