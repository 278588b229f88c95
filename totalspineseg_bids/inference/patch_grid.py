"""Size of patches and their positions in an image."""

from __future__ import annotations

import functools
import itertools
from copy import copy
from dataclasses import dataclass

import numpy as np
from nnunetv2.inference.sliding_window_prediction import compute_steps_for_sliding_window
from numpy.typing import NDArray

from totalspineseg_bids.inference.tta import Shape3

STEP = 0.5
#: A smaller region is worth its effect on the labels if its patches have at most this part of the voxels.
WORTHWHILE = 5 / 6


class RegionOfInterest:
    """A mask and a margin around it; the network need not run on the rest of the image.

    The spine is long and curved and fills little of its bounding box.

    Parameters
    ----------
    mask
        Shape (A, B, C).
    margin
        Voxels along each axis.
    """

    def __init__(self, mask: NDArray[np.bool_], margin: int) -> None:
        self._margin = margin
        self._seen: dict[tuple[int, int], NDArray[np.bool_]] = {}
        for main, other, third in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
            seen = np.asarray(mask.any(axis=third))
            self._seen[main, other], self._seen[other, main] = seen, seen.T

    def between(self, main: int, start: int, stop: int, other: int) -> tuple[int, int] | None:
        """Return the extent along one axis within a range of another, or None if the range is empty."""
        by, seen = self._margin, self._seen[main, other]
        there = np.flatnonzero(seen[max(start - by, 0) : max(stop + by, 0)].any(axis=0))
        return (max(int(there[0]) - by, 0), min(int(there[-1]) + 1 + by, seen.shape[1])) if there.size else None

    def narrowed(self) -> RegionOfInterest:
        """Return the same mask with two thirds of the margin."""
        narrow = copy(self)
        narrow._margin = round(self._margin * 2 / 3)
        return narrow


@dataclass(frozen=True, slots=True)
class PatchRow:
    """Patches with the same start along the main axis."""

    start: int
    """First voxel along the main axis, in the padded image."""
    origins: tuple[Shape3, ...]
    """First voxel of each patch, in the padded image."""


@dataclass(frozen=True, slots=True)
class PatchGrid:
    """Positions of patches in an image."""

    patch: Shape3
    """Shape of a patch."""
    padded: Shape3
    """Shape of the image after padding to at least one patch."""
    before: Shape3
    """Padding at the start of each axis; the image is centred as in nnU-Net."""
    main_axis: int
    """Axis with the most patches, along which slabs need the least memory."""
    rows: tuple[PatchRow, ...]
    """Rows in order along the main axis."""

    @classmethod
    def over(cls, shape: Shape3, patch: Shape3, step: float = STEP, roi: RegionOfInterest | None = None) -> PatchGrid:
        """Cover an image of a shape with patches at most ``step`` patch sizes apart.

        With ``roi`` each row covers only the region; a row outside the region has one patch in its middle.
        """
        a, b, c = (max(size, length) for size, length in zip(shape, patch, strict=True))
        d, e, f = ((full - size) // 2 for full, size in zip((a, b, c), shape, strict=True))
        padded, before = (a, b, c), (d, e, f)
        main = int(np.argmax([full / size for full, size in zip(padded, patch, strict=True)]))
        rows = []
        for start in _starts(padded[main], patch[main], step):
            low = start - before[main]
            starts: list[tuple[int, ...]] = []
            for axis in range(3):
                if axis == main:
                    starts.append((start,))
                elif roi is None:
                    starts.append(_starts(padded[axis], patch[axis], step))
                else:
                    reach = roi.between(main, low, low + patch[main], axis) or (shape[axis] // 2, shape[axis] // 2)
                    starts.append(_around(reach, before[axis], padded[axis], patch[axis], step))
            rows.append(PatchRow(start, tuple(itertools.product(*starts))))  # type: ignore[arg-type] # of three
        return cls(patch, padded, before, main, tuple(rows))

    @property
    def count(self) -> int:
        """Number of patches."""
        return sum(len(row.origins) for row in self.rows)

    @property
    def voxels(self) -> int:
        """Number of voxels of all patches."""
        return self.count * int(np.prod(self.patch))


@functools.lru_cache(maxsize=4096)
def _starts(length: int, patch: int, step: float) -> tuple[int, ...]:
    # The set removes duplicates: patches of one voxel, half a patch apart, would visit each voxel twice.
    return tuple(sorted({int(s) for s in compute_steps_for_sliding_window((length,), (patch,), step)[0]}))


def _around(reach: tuple[int, int], before: int, padded: int, patch: int, step: float) -> tuple[int, ...]:
    """Return the starts, in the padded image, of patches that cover a range of the image."""
    low, length = reach[0] + before, reach[1] - reach[0]
    if length > patch:
        return tuple(low + start for start in _starts(length, patch, step))
    return (min(max(low + (length - patch) // 2, 0), padded - patch),)


def fitting_grid(
    shape: Shape3, patch: Shape3, step: float, multiple: Shape3, growth: float, *, roi: RegionOfInterest | None = None
) -> PatchGrid:
    """Cover an image with patches of the shape that takes the fewest computed voxels.

    An image slightly wider than a patch needs two patches with nearly the same content; one slightly wider patch takes
    half the time. So does a margin that is slightly narrower, which is used where it saves at least a sixth.

    Parameters
    ----------
    shape
        Of the image.
    patch
        Shape of the training patches; those of the grid are at least as long along each axis.
    step
        Maximum distance of neighbouring patches, as a fraction of their size.
    multiple
        Divisor of the length of a patch along each axis.
    growth
        Maximum number of voxels relative to ``patch``.
    roi
        Region of interest; the whole image if None.

    Returns
    -------
    PatchGrid
        Of several with equal cost that with the smallest patches, which need the least memory.
    """
    longest = int(np.argmax([size / least for size, least in zip(shape, patch, strict=True)]))
    lengths = [
        _lengths(size, least, by, step, alike=roi is not None and axis != longest)
        for axis, (size, least, by) in enumerate(zip(shape, patch, multiple, strict=True))
    ]
    largest = growth * float(np.prod(patch))
    affordable = [choice for choice in itertools.product(*lengths) if np.prod(choice) <= largest]

    def best(region: RegionOfInterest | None) -> PatchGrid:
        grids = (PatchGrid.over(shape, choice, step, region) for choice in affordable)  # type: ignore[arg-type] # of three
        return min(grids, key=lambda grid: (grid.voxels, np.prod(grid.patch)))

    grid = best(roi)
    narrow = grid if roi is None else best(roi.narrowed())
    return narrow if narrow.voxels <= WORTHWHILE * grid.voxels else grid


def _lengths(size: int, least: int, multiple: int, step: float, *, alike: bool) -> list[int]:
    """List patch lengths along an axis; unless ``alike``, only the shortest for each number of patches."""
    every = list(range(least, max(least, -(-size // multiple) * multiple) + 1, multiple))
    if alike:
        return every
    lengths: dict[int, int] = {}
    for length in every:
        lengths.setdefault(len(_starts(max(size, length), length, step)), length)
    return list(lengths.values())
