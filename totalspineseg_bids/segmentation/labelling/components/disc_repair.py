"""Repair discs before they are labelled: cut bridged discs and join pieces of one disc."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.segmentation.labelling.components import parameters
from totalspineseg_bids.segmentation.labelling.parameters import LEAST_STEP_MM
from totalspineseg_bids.segmentation.labelling.records import Observation


def split_bridged(
    part: NDArray[np.int64], s: NDArray[np.float64], anterior: NDArray[np.float64], lateral: NDArray[np.float64]
) -> tuple[NDArray[np.int64], set[int]]:
    """Cut components that contain several discs at their waist.

    The histogram of the voxels of two bridged discs along the canal has two peaks with a valley between them. Because
    discs are tilted relative to the canal, histograms are computed for several pitches and rolls, and the deepest
    valley is used. A component is cut only if its peaks are as far apart as neighbouring discs.

    Parameters
    ----------
    part
        Component of each voxel, -1 for none, shape (N,).
    s
        Arc length of each voxel, mm, shape (N,).
    anterior
        Distance of each voxel in front of the centreline, mm, shape (N,).
    lateral
        Distance of each voxel from the midsagittal plane, mm, shape (N,).

    Returns
    -------
    tuple
        New component numbers and the numbers of those that came from a cut.
    """
    part = part.copy()
    cut: set[int] = set()
    queue = [int(n) for n in np.unique(part) if n >= 0]
    spread = {n: float(np.ptp(s[part == n])) for n in queue}
    step = _typical_step(part, s, queue)
    fresh = max(queue, default=-1) + 1
    while queue:
        n = queue.pop()
        if n in spread and spread[n] < parameters.ONE_DISC_RATIO * step + parameters.ONE_DISC_MM:
            continue
        rows = np.flatnonzero(part == n)
        side = _waist(s[rows], anterior[rows], lateral[rows], step)
        if side is None:
            continue
        part[rows[side]] = fresh
        cut |= {n, fresh}
        spread.pop(n, None)
        queue += [n, fresh]
        fresh += 1
    return part, cut


def _typical_step(part: NDArray[np.int64], s: NDArray[np.float64], numbers: list[int]) -> float:
    """Return the smallest plausible distance between neighbouring discs in this image, mm."""
    if len(numbers) < 4:
        return parameters.USUAL_LEAST_STEP_MM
    used = part >= 0
    sizes = np.bincount(part[used])
    centers = np.bincount(part[used], s[used]) / np.maximum(sizes, 1)
    centers = np.sort(centers[sizes > parameters.STEP_DISC_SHARE * np.median(sizes[sizes > 0])])
    steps = np.diff(centers)
    steps = steps[steps > LEAST_STEP_MM]
    return (
        float(np.clip(np.percentile(steps, 20), *parameters.STEP_LIMITS_MM))
        if len(steps)
        else parameters.USUAL_LEAST_STEP_MM
    )


def _waist(
    s: NDArray[np.float64], anterior: NDArray[np.float64], lateral: NDArray[np.float64], step: float
) -> NDArray[np.bool_] | None:
    """Return which voxels lie below the deepest valley along the canal, or ``None`` if there is only one peak."""
    best_ratio, best_side = parameters.WAIST_RATIO, None
    for pitch in parameters.PITCHES:
        for roll in parameters.ROLLS:
            height = s + pitch * (anterior - anterior.mean()) + roll * (lateral - lateral.mean())
            start = float(height.min()) - 2.0
            bins = np.floor(height - start).astype(np.int64)
            histogram = ndimage.gaussian_filter1d(np.bincount(bins, minlength=bins.max() + 3).astype(float), 1.0)
            total = histogram.sum()
            below = np.cumsum(histogram) / total
            left = np.maximum.accumulate(histogram)
            right = np.maximum.accumulate(histogram[::-1])[::-1]
            ratio = histogram / np.maximum(np.minimum(left, right), 1e-9)
            ratio[(below < 0.15) | (below > 0.85)] = 1.0
            place = int(np.argmin(ratio))
            if ratio[place] >= best_ratio:
                continue
            side = bins > place
            if (
                side.any()
                and not side.all()
                and height[side].mean() - height[~side].mean() > parameters.PEAKS_APART_RATIO * step
            ):
                best_ratio, best_side = float(ratio[place]), side
    return best_side


def join_pieces(
    observations: Sequence[Observation], part: NDArray[np.int64], cut: set[int]
) -> tuple[NDArray[np.int64], set[int]]:
    """Join components at the same place along the canal, which are pieces of one disc.

    Parameters
    ----------
    observations
        Components, ordered.
    part
        Component of each voxel.
    cut
        Components that come from a cut; they are not joined to each other again.

    Returns
    -------
    tuple
        New component numbers and the numbers of the joined ones.
    """
    target = np.arange(int(part.max()) + 1 if len(part) else 0)
    joined: set[int] = set()
    items = [(o.s, o.volume_mm3, o.part, o.anterior, o.lateral) for o in observations if o.anterior > 2.0]
    while len(items) > 1:
        gaps = [b[0] - a[0] for a, b in itertools.pairwise(items)]
        best: tuple[float, int] | None = None
        for k, gap in enumerate(gaps):
            a, b = items[k], items[k + 1]
            around = [g for g in gaps[max(0, k - 3) : k + 4] if g > LEAST_STEP_MM]
            limit = (
                float(np.clip(parameters.PIECES_NEAR_RATIO * np.median(around), *parameters.PIECES_NEAR_LIMITS_MM))
                if around
                else parameters.PIECES_NEAR_MM
            )
            apart = float(np.hypot(a[3] - b[3], a[4] - b[4]))
            if (
                gap < limit
                and apart < parameters.PIECES_APART_MM
                and not (a[2] in cut and b[2] in cut)
                and (best is None or gap < best[0])
            ):
                best = gap, k
        if best is None:
            break
        k = best[1]
        a, b = items[k], items[k + 1]
        volume = a[1] + b[1]
        mean = [(a[m] * a[1] + b[m] * b[1]) / volume for m in (0, 3, 4)]
        target[target == b[2]] = a[2]
        if min(a[1], b[1]) > parameters.NOTABLE_MM3:
            joined.add(a[2])
        items[k : k + 2] = [(mean[0], volume, a[2], mean[1], mean[2])]
    renumbered = np.where(part >= 0, target[part], -1) if len(target) else part
    return renumbered, joined
