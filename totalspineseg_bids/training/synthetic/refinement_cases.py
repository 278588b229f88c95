"""Training cases of the refinement network: synthetic images, outputs of steps 1 and 2, and truth.

The images are drawn from random streams of their own, so that none is in the training or evaluation images of steps 1
and 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.imaging.atomic import atomic_writer
from totalspineseg_bids.imaging.grid import restore_labels, to_working_grid
from totalspineseg_bids.imaging.io import load_image, read_labels
from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.progress import track
from totalspineseg_bids.segmentation.networks import CROP_MARGIN_MM, WORKING_SPACING_MM, SegmentationNetworks
from totalspineseg_bids.segmentation.pipeline import run_networks
from totalspineseg_bids.segmentation.refinement import MARGIN_MM, REFINED_ROLES, crop_inputs
from totalspineseg_bids.segmentation.spine_roi import spine_box
from totalspineseg_bids.synthesis.dataset import REFINEMENT_DOMAIN, write_dataset
from totalspineseg_bids.training.cases import find_cases

#: Images of posed label maps of real anatomy for each image of a parametric spine, where there are such maps.
_REAL_SHARE = 1 / 3
#: Raised when the content of cases changes, so that those of an earlier version are replaced.
CASE_FORMAT = 3


@dataclass(frozen=True, slots=True)
class RefinementCase:
    """One image on the working grid, cut to the box of the spine."""

    image: NDArray[np.float16]
    """Standardised intensities, float16, shape (X, Y, Z), 1 mm."""
    probabilities: dict[str, NDArray[np.float16]]
    """Of the steps, float16, by role (`refinement.blend_probabilities`)."""
    truth: NDArray[np.uint8]
    """Canonical ids, uint8."""

    def save(self, path: Path) -> None:
        """Write the case atomically."""
        arrays: dict[str, Any] = {"image": self.image, "truth": self.truth, **self.probabilities}
        with atomic_writer(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> RefinementCase:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(stored["image"], {role: stored[role] for role in REFINED_ROLES}, stored["truth"])


def write_images(folder: Path, images: int, seed: int, label_maps: Path | None) -> list[Path]:
    """Write the training images as BIDS datasets; existing files are kept.

    Parameters
    ----------
    folder : Path
        Gets ``parametric`` and, with label maps, ``real``.
    images : int
        Of both kinds together.
    seed : int
        Of the images.
    label_maps : Path or None
        Folder of tissue label maps of real anatomy, or None.

    Returns
    -------
    list of Path
        The datasets.
    """
    real = round(images * _REAL_SHARE / (1 + _REAL_SHARE)) if label_maps is not None else 0
    datasets = []
    for name, count, maps in (("parametric", images - real, None), ("real", real, label_maps)):
        done = folder / f"{name}.done"
        if count and not done.exists():
            write_dataset(
                folder / name,
                count,
                seed,
                label_maps=maps,
                artefacts=True,
                most_images=count,
                domain=REFINEMENT_DOMAIN,
            )
            done.touch()
        if count:
            datasets.append(folder / name)
    return datasets


def make_cases(folder: Path, datasets: list[Path], networks: SegmentationNetworks) -> list[Path]:
    """Run steps 1 and 2 on each image; existing cases are kept.

    Parameters
    ----------
    folder : Path
        Receives one file per image.
    datasets : list of Path
        Of `write_images`.
    networks : SegmentationNetworks
        Those of the two steps, which keep the probabilities that are refined.

    Returns
    -------
    list of Path
        A case for each image in which a spine was found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = [(dataset.name, case) for dataset in datasets for case in find_cases([dataset])[0]]
    paths = []
    for name, case in track(found, "images"):
        path = folder / f"{name}_{case.image.name.removesuffix('.nii.gz')}.npz"
        if not path.exists():
            made = _made(case.image, case.labels.levels[0], networks)
            if made is not None:
                made.save(path)
        if path.exists():
            paths.append(path)
    return paths


def _made(image_path: Path, truth_path: Path, networks: SegmentationNetworks) -> RefinementCase | None:
    volume = load_image(image_path).volume
    outputs = run_networks(volume, networks)
    if outputs.support is None:
        return None
    image = to_working_grid(volume, WORKING_SPACING_MM)
    labels = read_labels(truth_path)
    shape = image.geometry.shape
    truth = restore_labels(labels.data.astype(np.uint8), labels.affine, Geometry(shape, image.affine))
    box = spine_box(outputs.final.labels, CROP_MARGIN_MM, WORKING_SPACING_MM)
    if box is None:
        return None
    inner = spine_box(outputs.final.labels[box], MARGIN_MM, WORKING_SPACING_MM)
    if inner is None:
        return None
    second, first = (
        {role: values[box] for role, values in found.probabilities.items()}
        for found in (outputs.final, outputs.support)
    )
    standard, probabilities = crop_inputs(inner, image.data[box], second, first)
    return RefinementCase(
        standard.astype(np.float16),
        {role: values.astype(np.float16) for role, values in probabilities.items()},
        truth[box][inner],
    )
