"""Tiny datasets, and a segmenter that reads the truth off the intensities."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec

from tests.measurement.phantom import components_of
from totalspineseg_bids.anatomy import BY_ID, CANAL_ID, CORD_ID, Structure, unnamed
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.imaging.grid import to_canonical, to_working_grid
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.result import Component, DiscPoint, LabelledSpine, SpineStatus, StageProgress

#: Intensity of each structure in a tiny image.
INTENSITY = {21: 100, 20: 120, 19: 140, 205: 160, 204: 180, CORD_ID: 220, CANAL_ID: 240}
#: An image brighter than this shows a spine whose levels cannot be determined.
UNDECIDED = 400


def tiny_image(*, spine: bool = True, undecided: bool = False, seed: int = 0) -> np.ndarray:
    """An image of (18, 24, 40) voxels: three vertebrae, two discs, canal and cord, in RAS."""
    rng = np.random.default_rng(seed)
    image = rng.integers(10, 30, (18, 24, 40)).astype(np.int16)
    if spine:
        for label, bottom in ((21, 28), (20, 15), (19, 2)):
            image[4:14, 12:22, bottom : bottom + 10] = INTENSITY[label]
        for label, bottom in ((205, 25), (204, 12)):
            image[4:14, 12:22, bottom : bottom + 3] = INTENSITY[label]
        image[5:13, 3:11, 1:39] = INTENSITY[CANAL_ID]
        image[7:11, 5:9, 1:39] = INTENSITY[CORD_ID]
    if undecided:
        image[0, 0, 0] = UNDECIDED
    return image


def save(path: Path, data: np.ndarray, orientation: str = "RAS") -> Path:
    """Write an image in 1 mm voxels, its axes in the given orientation."""
    affine = from_matvec(np.diag([1.0, 1, 1]), (-9, -12, 30))
    image = nib.Nifti1Image(data, affine)
    if orientation != "RAS":
        start = nib.orientations.axcodes2ornt("RAS")
        image = image.as_reoriented(nib.orientations.ornt_transform(start, nib.orientations.axcodes2ornt(orientation)))
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def make_dataset(root: Path, images: dict[str, np.ndarray | None], orientation: str = "RAS") -> Path:
    """Write a valid raw dataset; an image that is ``None`` is left to the caller."""
    root.mkdir(parents=True, exist_ok=True)
    description = {"Name": "Tiny", "BIDSVersion": "1.10.0", "DatasetType": "raw", "License": "CC0"}
    (root / "dataset_description.json").write_text(json.dumps(description))
    (root / "README").write_text("Tiny images for tests.\n")
    for relative, data in images.items():
        if data is not None:
            save(root / relative, data, orientation)
    return root


class TinySegmenter:
    """A real, if small, segmenter: thresholds the intensities of :func:`tiny_image`."""

    def __init__(self) -> None:
        self.calls = 0
        self.localizers: list[Volume | None] = []
        self.companions: list[int] = []

    def segment(
        self,
        volume: Volume,
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),
        progress: StageProgress | None = None,
    ) -> LabelledSpine:
        self.calls += 1
        self.localizers.append(localizer)
        self.companions.append(len(companions))
        image = to_canonical(volume)
        if progress is not None:
            progress("thresholds", 0.5)
        labels = np.zeros(image.data.shape, np.uint8)
        for label, value in INTENSITY.items():
            labels[np.abs(image.data - value) < 5] = label
        if not labels.any():
            reason = "neither canal nor disc in view"
            return LabelledSpine(labels, image.affine, (), SpineStatus.NO_SPINE, reason)
        undecided = image.data.max() >= UNDECIDED and localizer is None
        if undecided:
            labels = _without_names(labels)
        points = () if undecided else self._points(labels, image.affine)
        return LabelledSpine(
            labels,
            image.affine,
            _components(labels, image.affine),
            SpineStatus.ABSTAINED if undecided else SpineStatus.LABELLED,
            "no landmark in view" if undecided else None,
            flags=("test-flag",),
            disc_points=points,
            cord_probability=(labels == CORD_ID).astype(np.float32) * 0.75,
            canal_probability=np.isin(labels, (CORD_ID, CANAL_ID)).astype(np.float32),
        )

    @staticmethod
    def _points(labels: np.ndarray, affine: np.ndarray) -> tuple[DiscPoint, ...]:
        canal = np.argwhere(labels == CORD_ID).mean(axis=0)
        points = []
        for label in (205, 204):
            height = np.argwhere(labels == label)[:, 2].mean()
            x, y, z = (float(v) for v in affine[:3, :3] @ (canal[0], canal[1], height) + affine[:3, 3])
            points.append(DiscPoint(BY_ID[label].level, (x, y, z)))
        return tuple(points)


class BoxSegmenter:
    """Finds the same boxes in the middle of any image: what is written of real images can be looked at with it."""

    def segment(
        self,
        volume: Volume,
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),
        progress: StageProgress | None = None,
    ) -> LabelledSpine:
        image = to_working_grid(volume)
        x, y, z = (size // 2 for size in image.data.shape)
        labels = np.zeros(image.data.shape, np.uint8)
        labels[x - 3 : x + 3, y - 6 : y - 1] = CANAL_ID
        labels[x - 2 : x + 2, y - 5 : y - 2] = CORD_ID
        for label, bottom, height in ((20, z - 12, 10), (204, z - 2, 4), (21, z + 2, 10)):
            labels[x - 5 : x + 5, y : y + 8, bottom : bottom + height] = label
        names = _components(labels, image.affine)
        cord = (labels == CORD_ID).astype(np.float32)
        return LabelledSpine(labels, image.affine, names, SpineStatus.LABELLED, cord_probability=cord)


def one_dot(folder: Path, stem: str, *_: object, **__: object) -> dict[str, str]:
    """Write one picture of a single dot in place of an image's figures."""
    png = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c626001000000ffff03000006000557bfabd40000000049454e44ae426082"
    )
    write_bytes(folder / f"{stem}_thumbnail.png", png)
    return {"thumbnail": f"{stem}_thumbnail.png"}


def _without_names(labels: np.ndarray) -> np.ndarray:
    result = labels.copy()
    for structure, ids in ((Structure.VERTEBRA, (21, 20, 19)), (Structure.DISC, (205, 204))):
        for number, label in enumerate(ids, start=1):
            result[labels == label] = unnamed(structure, number).id
    return result


def _components(labels: np.ndarray, affine: np.ndarray) -> tuple[Component, ...]:
    """From cranial to caudal, then cord and canal."""
    found = [replace(component, confidence=0.9) for component in components_of(labels, affine)]
    return tuple(sorted(found, key=lambda c: (c.label_id in (CORD_ID, CANAL_ID), -c.centroid_mm[2], c.label_id)))


def tree(folder: Path) -> list[str]:
    """Files below a folder, logs left out."""
    files = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(name for name in files if not name.startswith("logs/"))


def of_image(stem: str, suffix: str) -> list[str]:
    """Files of a labelled image, figures left out."""
    names = [f"{stem}_desc-{suffix}_{kind}" for kind in ("profile.json", "profile.tsv", "uncorrected.npz")]
    for kind, end in (("label-SC", "probseg"), ("label-canal", "probseg"), ("seg-levels", "dseg")):
        names += [f"{stem}_{kind}_desc-{suffix}_{end}.{extension}" for extension in ("json", "nii.gz")]
    return names + [f"{stem}_seg-totalspineseg_desc-{suffix}_dseg.{kind}" for kind in ("json", "nii.gz", "tsv")]


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of the files below a folder, logs left out."""
    return {name: (folder / name).read_bytes() for name in tree(folder)}


def loaded(segmenter: TinySegmenter | None = None) -> LoadedSegmenter:
    """Return a segmenter of tiny images as a run loads one."""
    return LoadedSegmenter(segmenter or TinySegmenter(), "bundled", "0" * 64, True)
