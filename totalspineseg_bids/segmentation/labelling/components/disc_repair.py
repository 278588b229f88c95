"""Repairs of discs before they are labelled: bridged ones are cut, pieces of one joined."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.segmentation.labelling.components.parameters import NOTABLE_MM3, PIECES_APART_MM, ROLLS
from totalspineseg_bids.segmentation.labelling.records import Observation

_PITCHES = np.arange(-0.6, 0.61, 0.15)


def split_bridged(
    part: NDArray[np.int64], s: NDArray[np.float64], anterior: NDArray[np.float64], lateral: NDArray[np.float64]
) -> tuple[NDArray[np.int64], set[int]]:
    """Cut components that hold several discs at their waist.

    Two discs joined by a leak show two separate heaps along the canal with a valley between them. Because discs are
    tilted against the canal, the heaps are sought at several pitches and the deepest valley is taken. A component is
    cut only where both heaps are as far apart as neighbouring discs are.

    Parameters
    ----------
    part
        Component of each voxel, -1 for none.
    s, anterior, lateral
        Each voxel's place seen from the centreline, mm.

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
        if n in spread and spread[n] < 0.6 * step + 3.0:
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
    """Smallest plausible distance between neighbouring discs in this image, mm."""
    if len(numbers) < 4:
        return 13.0
    used = part >= 0
    sizes = np.bincount(part[used])
    centers = np.bincount(part[used], s[used]) / np.maximum(sizes, 1)
    centers = np.sort(centers[sizes > 0.2 * np.median(sizes[sizes > 0])])
    steps = np.diff(centers)
    steps = steps[steps > 8.0]
    return float(np.clip(np.percentile(steps, 20), 11.0, 22.0)) if len(steps) else 13.0


def _waist(
    s: NDArray[np.float64], anterior: NDArray[np.float64], lateral: NDArray[np.float64], step: float
) -> NDArray[np.bool_] | None:
    """Return which voxels lie below the deepest valley along the canal, or ``None`` where there is one heap only."""
    best_ratio, best_side = 0.4, None
    for pitch in _PITCHES:
        for roll in ROLLS:
            height = s + pitch * (anterior - anterior.mean()) + roll * (lateral - lateral.mean())
            start = float(height.min()) - 2.0
            bins = np.floor(height - start).astype(np.int64)
            heap = ndimage.gaussian_filter1d(np.bincount(bins, minlength=bins.max() + 3).astype(float), 1.0)
            total = heap.sum()
            below = np.cumsum(heap) / total
            left = np.maximum.accumulate(heap)
            right = np.maximum.accumulate(heap[::-1])[::-1]
            ratio = heap / np.maximum(np.minimum(left, right), 1e-9)
            ratio[(below < 0.15) | (below > 0.85)] = 1.0
            place = int(np.argmin(ratio))
            if ratio[place] >= best_ratio:
                continue
            side = bins > place
            if side.any() and not side.all() and height[side].mean() - height[~side].mean() > 0.62 * step:
                best_ratio, best_side = float(ratio[place]), side
    return best_side


def join_pieces(
    observations: Sequence[Observation], part: NDArray[np.int64], cut: set[int]
) -> tuple[NDArray[np.int64], set[int]]:
    """Join components that are pieces of one disc, because they lie at the same place along the canal.

    Parameters
    ----------
    observations
        Components, ordered.
    part
        Component of each voxel.
    cut
        Components that come from a cut; those are not joined again with each other.

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
            around = [g for g in gaps[max(0, k - 3) : k + 4] if g > 8.0]
            limit = float(np.clip(0.4 * np.median(around), 5.0, 12.0)) if around else 6.0
            apart = float(np.hypot(a[3] - b[3], a[4] - b[4]))
            if (
                gap < limit
                and apart < PIECES_APART_MM
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
        if min(a[1], b[1]) > NOTABLE_MM3:
            joined.add(a[2])
        items[k : k + 2] = [(mean[0], volume, a[2], mean[1], mean[2])]
    renumbered = np.where(part >= 0, target[part], -1) if len(target) else part
    return renumbered, joined
