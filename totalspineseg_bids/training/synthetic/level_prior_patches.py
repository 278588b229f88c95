"""Training images of the bundled single-step model: coarse sagittal slices of whole fields of view."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset

from totalspineseg_bids.synthesis.appearance import render
from totalspineseg_bids.synthesis.pose import Warp, sample
from totalspineseg_bids.training.synthetic.augment import acquire, draw_contrast_name
from totalspineseg_bids.training.synthetic.label_map_pool import PoolEntry
from totalspineseg_bids.training.synthetic.level_prior import PATCH, SPACING, level_prior_table
from totalspineseg_bids.training.synthetic.patch_dataset import TRAINING_POSE, worker_rng

_Image = NDArray[np.float32]
_Voxel = TypeVar("_Voxel", bound=np.generic)

#: Share of the slices that show all of a long column.
_WHOLE_SHARE = 0.3
#: Share of the slices that come from an image larger than the patch: filled to their edges.
_INSIDE_SHARE = 0.15
#: How far the middle of a slice may lie from the column, front-back, as part of its depth.
_OFF_CENTRE = 0.3
#: Distance of a slice from the middle of the column, mm: mostly near, some where only arches are in view.
_ASIDE_SD, _FAR_ASIDE, _FAR_SHARE = 8.0, 28.0, 0.15
_RENDERS_PER_POSE = 2

#: x, y, z; the network's order is x, z, y.
_SPACING = (SPACING[0], SPACING[2], SPACING[1])
_DEPTH, _LENGTH = PATCH[2], PATCH[1]


class LevelPriorPatchDataset(IterableDataset[tuple[_Image, NDArray[np.uint8]]]):
    """Endless pairs of network input and target, in the network's order of axes.

    Parameters
    ----------
    pool : list of PoolEntry
        Where images are drawn from.
    seed : list of int
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

    def __iter__(self) -> Iterator[tuple[_Image, NDArray[np.uint8]]]:
        rng = worker_rng(self.seed)
        maps = [np.load(entry.path, mmap_mode="r") for entry in self.pool]
        weights = np.array([entry.weight for entry in self.pool])
        weights /= weights.sum()
        table = level_prior_table()
        while True:
            number = int(rng.choice(len(maps), p=weights))
            entry = self.pool[number]
            centre, (depth, length) = draw_view(np.array(entry.discs) * entry.spacing, rng)
            shape = (1, min(_DEPTH, round(depth / _SPACING[1])), min(_LENGTH, round(length / _SPACING[2])))
            warp = Warp.draw(shape, _SPACING, rng, TRAINING_POSE)
            posed = sample(maps[number], centre / entry.spacing, shape, _SPACING, warp, source_spacing=entry.spacing)
            for _ in range(_RENDERS_PER_POSE):
                signal = render(posed, rng, contrast=draw_contrast_name(rng), spacing=_SPACING)
                image = acquire(signal, rng, _SPACING)
                yield _pad_to_patch(image)[None], _pad_to_patch(table[posed])


def draw_view(discs: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Draw a sagittal field of view along a column.

    Parameters
    ----------
    discs : float64 array
        Centres of the discs of a label map, mm, shape (N, 3).
    rng : np.random.Generator
        Source of randomness.

    Returns
    -------
    centre, extent
        Middle of the field in the label map, mm, shape (3,), and its extent along y and z, mm.
    """
    low, high = float(discs[:, 2].min()), float(discs[:, 2].max())
    length = float(rng.uniform(400, 640) if rng.random() < _WHOLE_SHARE else rng.uniform(110, 420))
    depth = float(rng.uniform(100, 300))
    if rng.random() < _INSIDE_SHARE:
        depth, length = _DEPTH * _SPACING[1], _LENGTH * _SPACING[2]
    # About three discs stay in view at least; a long field lies around the whole column.
    inside = max(0.0, length / 2 - 50.0)
    z = float(rng.uniform(low - inside, high + inside))
    if length > high - low:
        z = (low + high) / 2 + float(rng.normal(0.0, 40.0))
    near = np.abs(discs[:, 2] - z) < max(length / 2, 40.0)
    column = discs[near].mean(axis=0) if near.any() else discs[np.argmin(np.abs(discs[:, 2] - z))]
    aside = rng.uniform(-_FAR_ASIDE, _FAR_ASIDE) if rng.random() < _FAR_SHARE else rng.normal(0.0, _ASIDE_SD)
    y = column[1] + float(rng.uniform(-1, 1)) * _OFF_CENTRE * depth
    return np.array([column[0] + aside, y, z]), (depth, length)


def _pad_to_patch(array: NDArray[_Voxel]) -> NDArray[_Voxel]:
    """Put an (x, y, z) array into the middle of a patch in the network's order, zeros around it."""
    xzy = array.transpose(0, 2, 1)
    patch = np.zeros(PATCH, array.dtype)
    start = [(n - m) // 2 for n, m in zip(PATCH, xzy.shape, strict=True)]
    patch[tuple(slice(s, s + m) for s, m in zip(start, xzy.shape, strict=True))] = xzy
    return patch
