"""An endless stream of synthetic training patches, drawn on the fly from tissue label maps.

Each patch has a pose, contrast, slice thickness and noise of its own, so nothing is seen twice and nothing is
stored but the label maps.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import IterableDataset, get_worker_info

from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.appearance import CONTRASTS, Contrast, render, resize, resize_axis, smooth_noise
from totalspineseg_bids.synthesis.pose import Pose, Warp, sample
from totalspineseg_bids.training.layouts import DatasetId
from totalspineseg_bids.training.semantic import odd_discs, semantic_table, spine_variant

Array = NDArray[np.float32]

#: Wider than the poses of test images: the networks must not depend on a posture.
TRAINING_POSE = Pose(rotation_deg=(13.0, 7.0, 7.0), log_scale=0.10, log_stretch=0.06, bend_mm=(5.0, 8.0), warp_mm=2.0)
#: Most draws resemble a sequence; the others make the network indifferent to contrast.
_CONTRAST_ODDS = {"T2w": 0.36, "T1w": 0.28, "STIR": 0.08, "T2starw": 0.08, "random": 0.20}
#: Share of the patches drawn around a landmark disc; they are few among 23 and decide the labels.
_LANDMARK_SHARE = 0.4
#: Share of the patches that lie anywhere in the map: air, jaw and belly must not be taken for spine.
_ELSEWHERE_SHARE = 0.1
#: Share of step 2's patches that come without odd discs. The network then does what step 1 does, whose classes are
#: among those of step 2, so that one training serves both models (`bundled.step1_of_step2`).
_WITHOUT_DISCS_SHARE = 0.5
#: Patches drawn from one pose: the pose costs about as much as the contrast.
_RENDERS_PER_POSE = 2


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A label map in the pool: where it is, how often it is drawn, where its discs are (voxels), its spacing (mm)."""

    path: str
    weight: float
    discs: list[list[float]]
    landmarks: list[list[float]]
    spacing: float = 1.0


@dataclass(frozen=True, slots=True)
class PoolRecipe:
    """What a pool of label maps is made of.

    Attributes
    ----------
    spines
        Number of parametric spines.
    spacing
        Their voxel size, mm.
    real_share
        Share of the images drawn from maps of real anatomy where both kinds are there.
    """

    spines: int
    spacing: float = 1.0
    real_share: float = 0.5


def _entry(path: Path, labels: NDArray[np.uint8], weight: float, spacing: float = 1.0) -> PoolEntry:
    present = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=256))
    wanted = {label.id: label.level for label in anatomy.LABELS if label.structure is anatomy.Structure.DISC}
    boxes = ndimage.find_objects(labels, max_label=255)
    discs, landmarks = [], []
    for label_id in (int(i) for i in present if int(i) in wanted):
        box = boxes[label_id - 1]
        centre = [(part.start + part.stop - 1) / 2 for part in box]
        discs.append(centre)
        if wanted[label_id] in anatomy.LANDMARK_DISCS:
            landmarks.append(centre)
    return PoolEntry(str(path), weight, discs, landmarks, spacing)


def build_pool(
    folder: Path,
    label_maps: Path | None,
    recipe: PoolRecipe,
    seed: int,
    make_spine: Callable[[np.random.Generator, int, float], Volume],
) -> list[PoolEntry]:
    """Write the label maps a training draws from as ``.npy``; what is there from an earlier run is kept.

    Parameters
    ----------
    folder
        Where the pool lies.
    label_maps
        Folder of tissue label maps (``*.nii.gz``, 1 mm, RAS), or None.
    recipe
        How many parametric spines to add, and how often each kind is drawn.
    seed
        Of the parametric spines.
    make_spine
        Called with a generator, the number of the spine and its voxel size (mm).

    Raises
    ------
    MissingInputError
        If ``label_maps`` holds no map.
    """
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "pool.json"
    if index.exists():
        return [PoolEntry(**entry) for entry in json.loads(index.read_text())]
    entries = []
    if label_maps is not None:
        files = sorted(label_maps.glob("*.nii.gz"))
        if not files:
            msg = f"{label_maps} holds no *.nii.gz label map; name a folder of tissue label maps or leave it out"
            raise MissingInputError(msg)
        for file in files:
            image = nib.as_closest_canonical(nib.load(file))
            labels = np.ascontiguousarray(np.asanyarray(image.dataobj).astype(np.uint8))
            path = folder / f"real_{file.name.split('.')[0]}.npy"
            np.save(path, labels)
            # Long maps hold more different patches; the square root keeps short ones from being forgotten.
            entries.append(_entry(path, labels, float(np.sqrt(labels.shape[2]))))
        total = sum(entry.weight for entry in entries)
        share = recipe.real_share if recipe.spines else 1.0
        entries = [replace(entry, weight=entry.weight / total * share) for entry in entries]
    rest = 1.0 - sum(entry.weight for entry in entries)
    for number in range(recipe.spines):
        path = folder / f"parametric_{number:03d}.npy"
        if not path.exists():
            labels = make_spine(np.random.default_rng([seed, number]), number, recipe.spacing).data
            temporary = folder / f"{path.stem}.tmp.npy"
            np.save(temporary, np.ascontiguousarray(labels))
            temporary.replace(path)
        labels = np.load(path, mmap_mode="r")
        entries.append(_entry(path, labels, rest / recipe.spines, recipe.spacing))
    temporary = index.with_suffix(".tmp")
    temporary.write_text(json.dumps([asdict(entry) for entry in entries]))
    temporary.replace(index)
    return entries


def acquire(image: Array, rng: np.random.Generator, spacing: tuple[float, float, float]) -> Array:
    """Give intensities the marks of an acquisition: blur, thick slices, bias field, noise, gamma, z-score.

    Parameters
    ----------
    image
        Shape (X, Y, Z), any.
    rng
        Source of randomness.
    spacing
        Voxel size, mm.

    Returns
    -------
    ndarray
        float32, shape of ``image``.
    """
    mm = np.asarray(spacing)
    image = ndimage.gaussian_filter(image, rng.uniform(0.25, 1.3, 3) / mm, truncate=2.5)
    if rng.random() < 0.5:
        axis = int(rng.choice(3, p=(0.7, 0.1, 0.2)))
        factor = max(1.0, float(rng.uniform(2.5, 6.0)) / spacing[axis])
        thick = ndimage.uniform_filter1d(image, max(2, round(factor)), axis)
        slices = max(4, round(image.shape[axis] / factor))
        image = resize(resize_axis(thick, slices, axis), image.shape)
    if rng.random() < 0.8:
        bias = rng.uniform(0.0, 0.3) * smooth_noise(image.shape, tuple(rng.uniform(44, 122, 3) / mm), rng)
        # Surface coils: bright behind, dark in front.
        slope = np.linspace(rng.uniform(-0.3, 1.6), 0.0, image.shape[1], dtype=np.float32)
        image = image * np.exp(bias.astype(np.float32) + slope[:, None])
    top = max(float(np.quantile(image[::2, ::4, ::4], 0.99)), 1e-3)
    image = np.clip(image / top, 0.0, 1.6)
    # A patch's voxels are larger than a scanner's, which averages noise; under more of it, thin arches and processes
    # cannot be told from muscle, and a network learns to paint a blurred band in their place.
    noise = np.float32(0.05 * rng.random() ** 2 if rng.random() < 0.92 else rng.uniform(0.05, 0.12))
    real = image + noise * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = noise * rng.standard_normal(image.shape, dtype=np.float32)
    image = np.sqrt(real * real + imaginary * imaginary)
    image **= np.float32(np.exp(rng.normal(0.0, 0.18)))
    image -= image.mean()
    image /= max(float(image.std()), 1e-4)
    # At inference the z-score is that of the whole image, of which a patch is a part.
    return image * np.float32(rng.uniform(0.8, 1.25)) + np.float32(rng.normal(0.0, 0.15))


def draw_contrast_name(rng: np.random.Generator) -> Contrast:
    """Draw the contrast of a training patch: mostly that of a sequence."""
    name: Contrast = rng.choice(CONTRASTS, p=[_CONTRAST_ODDS[name] for name in CONTRASTS])
    return name


def imperfect_discs(mask: NDArray[np.uint8], labels: NDArray[np.uint8], rng: np.random.Generator) -> Array:
    """Give the odd discs of the truth the faults that step 1 has: swollen, eaten into, now and then missing."""
    mask = mask.copy()
    for label_id in np.unique(labels[mask > 0]):
        if rng.random() < 0.04:
            mask[labels == label_id] = 0
    soft = ndimage.gaussian_filter(mask.astype(np.float32), rng.uniform(0.3, 0.9), truncate=2.5)
    soft += np.float32(rng.uniform(0.0, 0.12)) * smooth_noise(mask.shape, 3.0, rng)
    return (soft > rng.uniform(0.35, 0.6)).astype(np.float32)


def worker_rng(seed: list[int]) -> np.random.Generator:
    """Return the random numbers of a stream; each of several loading processes gets others."""
    info = get_worker_info()
    if info is not None and info.num_workers > 1:
        seed = [*seed, info.id + 1]
    return np.random.default_rng(np.random.SeedSequence(seed))


class SyntheticStream(IterableDataset[tuple[Array, NDArray[np.uint8]]]):
    """Endless pairs of network input and semantic target, in nnU-Net's axis order.

    Parameters
    ----------
    pool
        Where patches are drawn from.
    dataset
        101, 102 or 103: decides channels and classes.
    patch
        Superior-inferior, posterior-anterior, left-right; voxels.
    spacing
        mm.
    seed
        The same seed gives the same stream.

    Yields
    ------
    tuple
        float32 of shape (channels, *patch) and uint8 of shape patch.
    """

    def __init__(
        self, pool: list[PoolEntry], dataset: DatasetId, patch: tuple[int, int, int], spacing: float, seed: list[int]
    ) -> None:
        self.pool = pool
        self.dataset = dataset
        self.shape = (patch[2], patch[1], patch[0])
        self.spacing = spacing
        self.seed = seed

    def __iter__(self) -> Iterator[tuple[Array, NDArray[np.uint8]]]:
        rng = worker_rng(self.seed)
        maps = [np.load(entry.path, mmap_mode="r") for entry in self.pool]
        variants = [spine_variant(labels) for labels in maps]
        weights = np.array([entry.weight for entry in self.pool])
        weights /= weights.sum()
        while True:
            number = int(rng.choice(len(maps), p=weights))
            entry, labels = self.pool[number], maps[number]
            warp = Warp.draw(self.shape, self.spacing, rng, TRAINING_POSE)
            centre = self._centre(entry, rng)
            if rng.random() < _ELSEWHERE_SHARE:
                centre = rng.uniform(0.0, 1.0, 3) * labels.shape
            posed = sample(labels, centre, self.shape, self.spacing, warp, source_spacing=entry.spacing)
            for _ in range(_RENDERS_PER_POSE):
                yield self._patch(posed, variants[number], rng)

    def _centre(self, entry: PoolEntry, rng: np.random.Generator) -> NDArray[np.float64]:
        near_landmark = entry.landmarks and rng.random() < _LANDMARK_SHARE
        points = entry.landmarks if near_landmark else entry.discs
        point = np.array(points[int(rng.integers(len(points)))])
        extent = np.array(self.shape) * self.spacing
        jitter = rng.uniform(-1.0, 1.0, 3) * (min(18.0, extent[0] / 3), extent[1] / 4, extent[2] / 2.8)
        # The column lies behind the middle of most sagittal images.
        centre: NDArray[np.float64] = point + jitter + (0.0, extent[1] * 0.05, 0.0)
        return centre

    def _patch(
        self, posed: NDArray[np.uint8], variant: anatomy.SpineVariant, rng: np.random.Generator
    ) -> tuple[Array, NDArray[np.uint8]]:
        hinted = bool(rng.random() >= _WITHOUT_DISCS_SHARE)
        swap = self.dataset == 102 and hinted and bool(rng.random() < 0.5)
        contrast = draw_contrast_name(rng)
        mm = (self.spacing,) * 3
        image = acquire(render(posed, rng, contrast=contrast, spacing=mm), rng, mm)
        target = semantic_table(self.dataset, swap, variant)[posed]
        channels = [image]
        if self.dataset == 102:
            odd = [anatomy.disc(level).id for level in odd_discs(variant, swap_parity=swap)]
            mask = np.isin(posed, odd).astype(np.uint8)
            channels.append(imperfect_discs(mask, posed, rng) if hinted else np.zeros(posed.shape, np.float32))
        if rng.random() < 0.35:
            # The field of view ends within the patch: nnU-Net pads with 0 after normalisation.
            inside = np.zeros(posed.shape, bool)
            inside[_field_of_view(posed.shape, rng)] = True
            for channel in channels:
                channel[~inside] = 0.0
            target = np.where(inside, target, 0)
        data = np.stack([np.ascontiguousarray(channel.transpose(2, 1, 0)) for channel in channels])
        return data, np.ascontiguousarray(target.transpose(2, 1, 0))


def _field_of_view(shape: tuple[int, ...], rng: np.random.Generator) -> tuple[slice, ...]:
    parts = []
    for n in shape:
        low, high = (int(n * max(0.0, rng.uniform(-0.15, 0.3))) for _ in range(2))
        parts.append(slice(low, n - high))
    return tuple(parts)
