"""An endless stream of synthetic training patches, drawn on the fly from tissue label maps.

Each patch has a pose, contrast, slice thickness and noise of its own, so nothing is seen twice and nothing is
stored but the label maps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from totalspineseg_bids import anatomy
from totalspineseg_bids.synthesis.appearance import render
from totalspineseg_bids.synthesis.arrays import NUMPY, Arrays, Image, TorchArrays
from totalspineseg_bids.synthesis.pose import Pose, Warp, sample
from totalspineseg_bids.training.class_maps import DatasetId
from totalspineseg_bids.training.semantic_targets import odd_discs, semantic_table
from totalspineseg_bids.training.synthetic.augment import acquire, draw_contrast_name, imperfect_discs
from totalspineseg_bids.training.synthetic.label_map_pool import PoolEntry

#: Wider than the poses of test images: the networks must not depend on a posture.
TRAINING_POSE = Pose(rotation_deg=(13.0, 7.0, 7.0), log_scale=0.10, log_stretch=0.06, bend_mm=(5.0, 8.0), warp_mm=2.0)
#: Share of the patches drawn around a landmark disc; they are few among 23 and decide the labels.
_LANDMARK_SHARE = 0.4
#: Share of the patches that lie anywhere in the map: air, jaw and belly must not be taken for spine.
_ELSEWHERE_SHARE = 0.1
#: Share of step 2's patches that come without odd discs. The network then does what step 1 does, whose classes are
#: among those of step 2, so that one training serves both models (`bundled.step1_of_step2`).
_WITHOUT_DISCS_SHARE = 0.5
#: Share of the patches in which the field of view ends.
_ENDS_WITHIN_SHARE = 0.35
#: Patches drawn from one pose: the pose costs about as much as the contrast.
_RENDERS_PER_POSE = 2
#: Patches that a GPU draws at once where none says how many.
_GROUP = 8


def worker_rng(seed: list[int]) -> np.random.Generator:
    """Return the random numbers of a stream; each of several loading processes gets others."""
    info = get_worker_info()
    if info is not None and info.num_workers > 1:
        seed = [*seed, info.id + 1]
    return np.random.default_rng(np.random.SeedSequence(seed))


class SyntheticPatchDataset(IterableDataset[tuple[Image, Image]]):
    """Endless pairs of network input and semantic target, in nnU-Net's axis order.

    Parameters
    ----------
    pool : list of PoolEntry
        Where patches are drawn from.
    dataset : DatasetId
        101, 102 or 103: decides channels and classes.
    patch : tuple of 3 int
        Superior-inferior, posterior-anterior, left-right; voxels.
    spacing : float
        mm.
    seed : list of int
        The same seed gives the same stream.
    device : torch.device, optional
        A GPU that patches are drawn on, several at once, because it is the calls that take time. None draws them in
        numpy, one by one.

    Yields
    ------
    tuple
        float32 (of a GPU float16) of shape (channels, *patch) and uint8 of shape patch, on the CPU in any case: tensors
        on a GPU do not travel well between processes.
    """

    def __init__(
        self,
        pool: list[PoolEntry],
        dataset: DatasetId,
        patch: tuple[int, int, int],
        spacing: float,
        seed: list[int],
        *,
        device: torch.device | None = None,
    ) -> None:
        self.pool = pool
        self.dataset = dataset
        self.shape = (patch[2], patch[1], patch[0])
        self.spacing = spacing
        self.seed = seed
        self.device = device

    def __iter__(self) -> Iterator[tuple[Image, Image]]:
        return self._one_by_one() if self.device is None else self._from_groups()

    def _one_by_one(self) -> Iterator[tuple[Image, Image]]:
        rng = worker_rng(self.seed)
        for posed, entry in self._poses(rng, NUMPY):
            for _ in range(_RENDERS_PER_POSE):
                yield self._drawn(posed, [entry.variant], rng, NUMPY)

    def _from_groups(self) -> Iterator[tuple[Image, Image]]:
        for data, target in self.groups(_GROUP):
            yield from zip(data.half().cpu(), target.cpu(), strict=True)

    def groups(self, size: int) -> Iterator[tuple[Image, Image]]:
        """Draw patches in torch, several at once, without end.

        Parameters
        ----------
        size : int
            How many at once. They have blur, slices and the scales of noise in common, and each pose is that of two.

        Yields
        ------
        tuple
            float32 of shape (size, channels, *patch) and uint8 of shape (size, *patch), on the device.
        """
        rng = worker_rng(self.seed)
        arrays = TorchArrays(self.device or torch.device("cpu"), int(rng.integers(2**62)))
        poses = self._poses(rng, arrays)
        while True:
            drawn = list(itertools.islice(poses, -(-size // _RENDERS_PER_POSE)))
            each = [pose for pose in drawn for _ in range(_RENDERS_PER_POSE)][:size]
            posed = arrays.xp.stack([labels for labels, _entry in each])
            yield self._drawn(posed, [entry.variant for _labels, entry in each], rng, arrays)

    def _poses(self, rng: np.random.Generator, arrays: Arrays) -> Iterator[tuple[Image, PoolEntry]]:
        """Pose parts of label maps, without end."""
        maps: dict[int, Image] = {}
        weights = np.array([entry.weight for entry in self.pool])
        weights /= weights.sum()
        while True:
            number = int(rng.choice(len(self.pool), p=weights))
            entry = self.pool[number]
            if number not in maps:
                maps[number] = arrays.on(np.load(entry.path, mmap_mode="r" if arrays is NUMPY else None))
            labels = maps[number]
            warp = Warp.draw(self.shape, self.spacing, rng, TRAINING_POSE)
            centre = self._centre(entry, rng)
            if rng.random() < _ELSEWHERE_SHARE:
                centre = rng.uniform(0.0, 1.0, 3) * labels.shape
            posed = sample(labels, centre, self.shape, self.spacing, warp, source_spacing=entry.spacing, arrays=arrays)
            yield posed, entry

    def _centre(self, entry: PoolEntry, rng: np.random.Generator) -> NDArray[np.float64]:
        near_landmark = entry.landmarks and rng.random() < _LANDMARK_SHARE
        points = entry.landmarks if near_landmark else entry.discs
        point = np.array(points[int(rng.integers(len(points)))])
        extent = np.array(self.shape) * self.spacing
        jitter = rng.uniform(-1.0, 1.0, 3) * (min(18.0, extent[0] / 3), extent[1] / 4, extent[2] / 2.8)
        # The column lies behind the middle of most sagittal images.
        centre: NDArray[np.float64] = point + jitter + (0.0, extent[1] * 0.05, 0.0)
        return centre

    def _drawn(
        self, posed: Image, variants: Sequence[anatomy.SpineVariant], rng: np.random.Generator, arrays: Arrays
    ) -> tuple[Image, Image]:
        """Draw one image (x, y, z) or a group of images, with targets in nnU-Net's axis order."""
        hinted = [bool(rng.random() >= _WITHOUT_DISCS_SHARE) for _ in variants]
        swap = [self.dataset == 102 and hint and bool(rng.random() < 0.5) for hint in hinted]
        contrast = [draw_contrast_name(rng) for _ in variants]
        mm = (self.spacing,) * 3
        signal = render(posed, rng, contrast=contrast, spacing=mm, arrays=arrays)
        channels = [acquire(signal, rng, mm, arrays)]
        tables = np.stack([semantic_table(self.dataset, *each) for each in zip(swap, variants, strict=True)])
        # Of a single image what is one for each image loses that axis.
        shape = tuple(posed.shape)
        target = arrays.lookup(tables.reshape(*shape[:-3], -1), posed)
        if self.dataset == 102:
            odd = [
                [anatomy.disc(level).id for level in odd_discs(variant, swap_parity=swapped)] if hint else []
                for variant, swapped, hint in zip(variants, swap, hinted, strict=True)
            ]
            channels.append(imperfect_discs(posed, odd, rng, self.spacing, arrays))
        ends = [rng.random() < _ENDS_WITHIN_SHARE for _ in variants]
        if any(ends):
            # The field of view ends within the patch: nnU-Net pads with 0 after normalisation.
            views = np.zeros((len(ends), *self.shape), bool)
            for view, within in zip(views, ends, strict=True):
                view[_field_of_view(self.shape, rng) if within else ...] = True
            inside = arrays.on(views.reshape(shape))
            channels = [channel * inside for channel in channels]
            target = target * inside
        data = arrays.xp.stack([channel.swapaxes(-3, -1) for channel in channels], -4)
        return arrays.contiguous(data), arrays.contiguous(target.swapaxes(-3, -1))


def _field_of_view(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    parts = []
    for n in shape:
        low, high = (int(n * max(0.0, rng.uniform(-0.15, 0.3))) for _ in range(2))
        parts.append(slice(low, n - high))
    return tuple(parts)
