"""BIDS datasets with labels to nnU-Net's raw folders.

Each image becomes canonical RAS at 1 mm, its labels the semantic map of the dataset on the same grid. What lies below
the work folder afterwards is what nnU-Net documents (``documentation/dataset_format.md``)::

    nnUNet_raw/Dataset101_TotalSpineSeg_step1/{dataset.json,splits_final.json,prepared.tsv}
                                             /imagesTr/<case>_0000.nii.gz  labelsTr/<case>.nii.gz
                                             /imagesTs/...                 labelsTs/...
    nnUNet_raw/Dataset102_TotalSpineSeg_step2/  every case twice, <case>_odd and <case>_even, with channel _0001
    nnUNet_raw/Dataset103_TotalSpineSeg_full/
    prepared/<case>.json                        what a case was made from; a rerun skips it while that is unchanged
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import LabelScheme
from totalspineseg_bids.errors import NothingSelectedError, OutputError, SpineAppError
from totalspineseg_bids.imaging.atomic import write_bytes, write_text
from totalspineseg_bids.imaging.io import write_labels
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.training.case_labels import load_case
from totalspineseg_bids.training.cases import Refusal, TrainingCase, find_cases
from totalspineseg_bids.training.layouts import DATASET_NAMES, DATASETS, DatasetId, dataset_json
from totalspineseg_bids.training.semantic import odd_disc_mask, semantic_map
from totalspineseg_bids.training.split import folds, held_out_persons

logger = logging.getLogger(__name__)

#: Raised with every change of what is written for a case, so that older outputs are made anew.
_RECIPE = 1
PARITIES: tuple[str, ...] = ("odd", "even")


@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """What `prepare` did.

    Attributes
    ----------
    training, test
        Cases in each part (images, so that one counts once though 102 has it twice).
    written, kept
        Cases made now and cases that were complete from an earlier run.
    refused
        Images left out, with the reason.
    strata
        Images a dataset and contrast: ``(dataset, contrast, part) -> count``, part ``"train"`` or ``"test"``.
    folders
        Raw folders by dataset id.
    """

    training: int
    test: int
    written: int
    kept: int
    refused: tuple[Refusal, ...]
    strata: dict[tuple[str, str, str], int] = field(default_factory=dict)
    folders: dict[DatasetId, Path] = field(default_factory=dict)


def variants(case_id: str, dataset: DatasetId) -> tuple[tuple[str, bool], ...]:
    """Return the nnU-Net case names of an image in a dataset, each with whether the parities are swapped."""
    if dataset == 102:
        return tuple((f"{case_id}_{parity}", parity == "even") for parity in PARITIES)
    return ((case_id, False),)


def _write_image(path: Path, data: NDArray[np.float32], affine: Affine) -> None:
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm")
    # Fast compression: these files are read many times and kept for one training.
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=3, mtime=0))


def _share(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _signature(case: TrainingCase, scheme: LabelScheme, part: str) -> dict[str, Any]:
    sources = [case.image, *case.labels.paths]
    return {
        "recipe": _RECIPE,
        "part": part,
        "label_scheme": scheme,
        "sources": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sources],
    }


def _outputs(case_id: str, part: str, folders: dict[DatasetId, Path]) -> list[Path]:
    tag = "Tr" if part == "train" else "Ts"
    paths: list[Path] = []
    for dataset, folder in folders.items():
        for name, _ in variants(case_id, dataset):
            paths.append(folder / f"labels{tag}" / f"{name}.nii.gz")
            channels = 2 if dataset == 102 else 1
            paths += [folder / f"images{tag}" / f"{name}_{channel:04d}.nii.gz" for channel in range(channels)]
    return paths


def _write_case(
    case_id: str, part: str, image: Volume, labels: NDArray[np.uint8], folders: dict[DatasetId, Path]
) -> None:
    tag = "Tr" if part == "train" else "Ts"
    first: Path | None = None
    for dataset, folder in folders.items():
        for name, swapped in variants(case_id, dataset):
            path = folder / f"images{tag}" / f"{name}_0000.nii.gz"
            if first is None:
                _write_image(path, image.data, image.affine)
                first = path
            else:
                _share(first, path)
            if dataset == 102:
                odd = odd_disc_mask(labels, swapped)
                write_labels(folder / f"images{tag}" / f"{name}_0001.nii.gz", odd, image.affine)
            semantic = semantic_map(labels, dataset, swap_parity=swapped)
            write_labels(folder / f"labels{tag}" / f"{name}.nii.gz", semantic, image.affine)


def _make_folders(work_dir: Path, datasets: Sequence[DatasetId]) -> dict[DatasetId, Path]:
    folders: dict[DatasetId, Path] = {}
    for dataset in datasets:
        folder = work_dir / "nnUNet_raw" / DATASET_NAMES[dataset]
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "prepared.tsv").exists():
            msg = f"{folder}: holds a dataset that was not made here; choose another work folder"
            raise OutputError(msg)
        try:
            for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            # Marks the folder as ours from the first case on.
            (folder / "prepared.tsv").touch()
            (work_dir / "prepared").mkdir(exist_ok=True)
        except OSError as error:
            msg = f"{folder}: cannot be written ({error.strerror}); choose another work folder"
            raise OutputError(msg) from error
        folders[dataset] = folder
    return folders


def _remove_strangers(folders: dict[DatasetId, Path], expected: set[Path]) -> None:
    """Remove what earlier runs wrote for cases that are gone, refused or in the other part now."""
    for folder in folders.values():
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            for path in (folder / part).iterdir():
                if path not in expected:
                    path.unlink()


def _write_descriptions(
    folders: dict[DatasetId, Path], done: list[tuple[TrainingCase, str]], refused: Sequence[Refusal], seed: int
) -> None:
    training = [case for case, part in done if part == "train"]
    splits = folds(training, seed)
    rows = ["case\tdataset\tsubject\tcontrast\tpart\tfold\timage\treason"]
    for case, part in done:
        fold = next((str(i) for i, split in enumerate(splits) if case.case_id in split["val"]), "n/a")
        columns = (case.case_id, case.dataset, case.subject, case.contrast, part, fold, str(case.image), "n/a")
        rows.append("\t".join(columns))
    rows += [f"n/a\tn/a\tn/a\tn/a\trefused\tn/a\t{refusal.image}\t{refusal.reason}" for refusal in refused]
    for dataset, folder in folders.items():
        names = {case.case_id: [name for name, _ in variants(case.case_id, dataset)] for case in training}
        spread = [
            {key: [name for case_id in ids for name in names[case_id]] for key, ids in split.items()}
            for split in splits
        ]
        write_text(folder / "splits_final.json", json.dumps(spread, indent=1) + "\n")
        write_text(folder / "prepared.tsv", "\n".join(rows) + "\n")
        # With the list of files at hand, nnU-Net does not start a pool of workers to find them.
        channels = 2 if dataset == 102 else 1
        files = {
            name: {
                "images": [f"imagesTr/{name}_{channel:04d}.nii.gz" for channel in range(channels)],
                "label": f"labelsTr/{name}.nii.gz",
            }
            for case_names in names.values()
            for name in case_names
        }
        content = dataset_json(dataset, len(files), name=DATASET_NAMES[dataset], dataset=files)
        write_text(folder / "dataset.json", json.dumps(content, indent=1) + "\n")


def prepare(
    bids_dirs: Sequence[Path],
    work_dir: Path,
    *,
    datasets: Sequence[DatasetId] = DATASETS,
    labels_folder: str = "derivatives/labels",
    label_scheme: LabelScheme = "seed",
    test_fraction: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> PrepareSummary:
    """Write nnU-Net's raw datasets from BIDS datasets with labels.

    Cases that are complete from an earlier run, with the same sources and in the same part, are kept.

    Parameters
    ----------
    bids_dirs
        Roots of BIDS datasets, each with label images below ``labels_folder``.
    work_dir
        Folder that holds (or will hold) ``nnUNet_raw``.
    datasets
        Which of 101, 102 and 103 to write.
    labels_folder
        Folder of the labels, below each root.
    label_scheme
        Ids in the label images.
    test_fraction
        Share of the persons that is put aside for the test, a dataset and contrast.
    seed
        Of the choice of test persons and folds.
    progress
        Called after each image with number done, number of images and case id.

    Returns
    -------
    PrepareSummary
        Counts, refused images and folders.

    Raises
    ------
    MissingInputError, DatasetError, NothingSelectedError
        If a dataset or its labels are not there.
    OutputError
        If the work folder cannot be written or holds a dataset made by something else.
    """
    cases, refusals = find_cases(bids_dirs, labels_folder)
    if not cases:
        msg = f"none of {len(refusals)} images has usable labels; the first: {refusals[0].image}: {refusals[0].reason}"
        raise NothingSelectedError(msg)
    work_dir = Path(work_dir).resolve()
    folders = _make_folders(work_dir, sorted(datasets))
    test = held_out_persons(cases, test_fraction, seed)
    done: list[tuple[TrainingCase, str]] = []
    expected: set[Path] = set()
    written = 0
    for number, case in enumerate(cases, start=1):
        part = "test" if case.person in test else "train"
        outputs = _outputs(case.case_id, part, folders)
        mark = work_dir / "prepared" / f"{case.case_id}.json"
        signature = _signature(case, label_scheme, part)
        if not (_read_mark(mark) == signature and all(path.exists() for path in outputs)):
            mark.unlink(missing_ok=True)
            try:
                image, labels = load_case(case, label_scheme)
            except SpineAppError as error:
                logger.warning("left out: %s", error)
                refusals.append(Refusal(case.image, str(error)))
                continue
            finally:
                if progress is not None:
                    progress(number, len(cases), case.case_id)
            _write_case(case.case_id, part, image, labels, folders)
            write_text(mark, json.dumps(signature))
            written += 1
        elif progress is not None:
            progress(number, len(cases), case.case_id)
        done.append((case, part))
        expected.update(outputs)
    if not any(part == "train" for _, part in done):
        msg = f"no image is left to train on; the first refused: {refusals[0].image}: {refusals[0].reason}"
        raise NothingSelectedError(msg)
    _remove_strangers(folders, expected)
    _write_descriptions(folders, done, refusals, seed)
    parts = Counter(part for _, part in done)
    strata = Counter((case.dataset, case.contrast, part) for case, part in done)
    return PrepareSummary(
        parts["train"], parts["test"], written, len(done) - written, tuple(refusals), dict(strata), folders
    )


def _read_mark(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content
