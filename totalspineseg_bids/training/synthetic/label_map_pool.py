"""Pool of label maps, stored as arrays, from which training images are drawn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.imaging.atomic import atomic_writer, write_text
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.surroundings import label_map_files, read_label_map
from totalspineseg_bids.training.semantic_targets import spine_variant

#: Raised when label maps or their index change, so that a pool of an earlier version is made again.
POOL_FORMAT = 2
_INDEX = "pool.json"


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """A label map in the pool."""

    path: str
    weight: float
    """`path`, `weight`: where it is, and how often it is drawn."""
    discs: list[list[float]]
    landmarks: list[list[float]]
    """`discs`, `landmarks`: centres of its discs and of the landmarks among them, voxels."""
    spacing: float
    """Voxel size, mm."""
    thoracic: int
    lumbar: int
    """`thoracic`, `lumbar`: vertebrae of the spine (`SpineVariant`)."""

    @property
    def variant(self) -> SpineVariant:
        """Numbers of thoracic and lumbar vertebrae."""
        return SpineVariant(self.thoracic, self.lumbar)


@dataclass(frozen=True, slots=True)
class PoolRecipe:
    """Composition of a pool of label maps."""

    spines: int
    """Number of parametric spines."""
    spacing: float = 1.0
    """Their voxel size, mm."""
    real_share: float = 0.5
    """Share of the images drawn from maps of real anatomy where both kinds are there."""


def _entry(path: Path, labels: NDArray[np.uint8], weight: float, spacing: float = 1.0) -> PoolEntry:
    boxes = ndimage.find_objects(labels, max_label=255)
    discs, landmarks = [], []
    for label in sorted(anatomy.LABELS, key=lambda label: label.id):
        box = boxes[label.id - 1]
        if label.structure is not anatomy.Structure.DISC or box is None:
            continue
        centre = [(part.start + part.stop - 1) / 2 for part in box]
        discs.append(centre)
        if label.level in anatomy.LANDMARK_DISCS:
            landmarks.append(centre)
    variant = spine_variant(labels)
    return PoolEntry(str(path), weight, discs, landmarks, spacing, variant.thoracic, variant.lumbar)


def read_pool(folder: Path) -> list[PoolEntry]:
    """Return the label maps of a pool; none if an earlier version made it."""
    stored = json.loads((folder / _INDEX).read_text())
    current = isinstance(stored, dict) and stored["format"] == POOL_FORMAT
    return [PoolEntry(**entry) for entry in stored["entries"]] if current else []


def build_pool(
    folder: Path,
    label_maps: Path | None,
    recipe: PoolRecipe,
    seed: int,
    make_spine: Callable[[np.random.Generator, int, float], Volume],
) -> list[PoolEntry]:
    """Write the pool of label maps as ``.npy`` files; existing files are kept.

    Parameters
    ----------
    folder : Path
        Where the pool lies.
    label_maps : Path or None
        Folder of tissue label maps (1 mm), or None.
    recipe : PoolRecipe
        How many parametric spines to add, and how often each kind is drawn.
    seed : int
        Of the parametric spines.
    make_spine : callable
        Called with a generator, the number of the spine and its voxel size (mm).

    Raises
    ------
    MissingInputError
        If ``label_maps`` holds no map.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / _INDEX).exists():
        if entries := read_pool(folder):
            return entries
        for path in folder.glob("*.npy"):  # label maps of an earlier version
            path.unlink()
    entries = []
    if label_maps is not None:
        for name, file in label_map_files(label_maps).items():
            labels = np.ascontiguousarray(read_label_map(file).data)
            path = folder / f"real_{name}.npy"
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
            with atomic_writer(path) as stream:
                np.save(stream, np.ascontiguousarray(labels))
        labels = np.load(path, mmap_mode="r")
        entries.append(_entry(path, labels, rest / recipe.spines, recipe.spacing))
    write_text(folder / _INDEX, json.dumps({"format": POOL_FORMAT, "entries": [asdict(entry) for entry in entries]}))
    return entries
