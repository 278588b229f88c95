"""Training images of the bundled single-step model: whole fields of view, coarse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from totalspineseg_bids.synthesis.appearance import render
from totalspineseg_bids.synthesis.pose import Warp, sample
from totalspineseg_bids.training.scout import PATCH, SPACING, scout_table
from totalspineseg_bids.training.synthetic_stream import (
    TRAINING_POSE,
    PoolEntry,
    acquire,
    draw_contrast_name,
    worker_rng,
)

Array = NDArray[np.float32]
Voxel = TypeVar("Voxel", bound=np.generic)

#: Share of the images that show all of a long column.
_WHOLE_SHARE = 0.3
#: Share of the patches as they lie inside a larger image: filled to their edges.
_INSIDE_SHARE = 0.15
#: How far the middle of the image may lie from the column, as part of its extent, left-right and front-back.
_OFF_CENTRE = (0.25, 0.3)
_RENDERS_PER_POSE = 2


class ScoutStream(IterableDataset[tuple[Array, NDArray[np.uint8]]]):
    """Endless pairs of network input and target, in nnU-Net's axis order.

    Parameters
    ----------
    pool
        Where images are drawn from.
    seed
        The same seed gives the same stream.

    Yields
    ------
    tuple
        float32 of shape (1, *PATCH) and uint8 of shape ``PATCH``. A field of view smaller than the patch lies in its
        middle, zeros around it, as nnU-Net pads at inference.
    """

    def __init__(self, pool: list[PoolEntry], seed: list[int]) -> None:
        self.pool = pool
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[Array, NDArray[np.uint8]]]:
        rng = worker_rng(self.seed)
        maps = [np.load(entry.path, mmap_mode="r") for entry in self.pool]
        weights = np.array([entry.weight for entry in self.pool])
        weights /= weights.sum()
        table = scout_table()
        while True:
            number = int(rng.choice(len(maps), p=weights))
            centre, extent = draw_view(np.array(self.pool[number].discs), rng)
            # x, y, z here; nnU-Net's order is the reverse.
            x, y, z = (min(n, max(4, round(mm / step))) for mm, step, n in zip(extent, _SPACING, _PATCH, strict=True))
            shape = (x, y, z)
            warp = Warp.draw(shape, _SPACING, rng, TRAINING_POSE)
            posed = sample(maps[number], centre, shape, _SPACING, warp)
            for _ in range(_RENDERS_PER_POSE):
                signal = render(posed, rng, contrast=draw_contrast_name(rng), spacing=_SPACING)
                image = acquire(signal, rng, _SPACING)
                yield _padded(image)[None], _padded(table[posed])


_SPACING = (SPACING[2], SPACING[1], SPACING[0])
_PATCH = (PATCH[2], PATCH[1], PATCH[0])


def draw_view(
    discs: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], tuple[float, float, float]]:
    """Draw a field of view along a column.

    Parameters
    ----------
    discs
        Centres of the discs of a 1 mm label map, voxels, shape (N, 3).
    rng
        Source of randomness.

    Returns
    -------
    centre, extent
        Middle of the field in the label map, voxels, shape (3,), and its extent along x, y and z, mm.
    """
    low, high = float(discs[:, 2].min()), float(discs[:, 2].max())
    length = float(rng.uniform(400, 640) if rng.random() < _WHOLE_SHARE else rng.uniform(110, 420))
    lateral, depth = float(rng.uniform(45, 110)), float(rng.uniform(100, 260))
    if rng.random() < _INSIDE_SHARE:
        lateral, depth, length = (n * step for n, step in zip(_PATCH, _SPACING, strict=True))
    # At least about three discs stay in view; a long field lies around the whole column.
    inside = max(0.0, length / 2 - 50.0)
    z = float(rng.uniform(low - inside, high + inside))
    if length > high - low:
        z = (low + high) / 2 + float(rng.normal(0.0, 40.0))
    near = np.abs(discs[:, 2] - z) < max(length / 2, 40.0)
    column = discs[near].mean(axis=0) if near.any() else discs[np.argmin(np.abs(discs[:, 2] - z))]
    x = column[0] + float(rng.uniform(-1, 1)) * _OFF_CENTRE[0] * lateral
    y = column[1] + float(rng.uniform(-1, 1)) * _OFF_CENTRE[1] * depth
    return np.array([x, y, z]), (lateral, depth, length)


def _padded(array: NDArray[Voxel]) -> NDArray[Voxel]:
    """Put an (x, y, z) array into the middle of a patch of nnU-Net's axis order, zeros around it."""
    zyx = array.transpose(2, 1, 0)
    patch = np.zeros(PATCH, array.dtype)
    start = [(n - m) // 2 for n, m in zip(PATCH, zyx.shape, strict=True)]
    patch[tuple(slice(s, s + m) for s, m in zip(start, zyx.shape, strict=True))] = zyx
    return patch
