"""BIDS datasets with labels to nnU-Net's raw folders.

Each image becomes canonical RAS at 1 mm, its labels the semantic map of the dataset on the same grid. What lies below
the work folder afterwards is what nnU-Net documents (``documentation/dataset_format.md``)::

    nnUNet_raw/Dataset101_TotalSpineSeg_step1/{dataset.json,splits_final.json,prepared.tsv}
                                             /imagesTr/<case>_0000.nii.gz  labelsTr/<case>.nii.gz
                                             /imagesTs/...                 labelsTs/...
    nnUNet_raw/Dataset102_TotalSpineSeg_step2/  every case twice, <case>_odd and <case>_even, with channel _0001
    nnUNet_raw/Dataset103_TotalSpineSeg_full/
    test/{images,labels}/<case>.nii.gz          test cases with every level by its id, to segment and evaluate
    prepared/<case>.json                        what a case was made from; a rerun skips it while that is unchanged
    prepared/levels.tsv                         how many images of each part show each structure

Copies with another contrast are training cases ``<case>_aug1`` and so on; a fold has those of its own training cases.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.errors import NothingSelectedError, OutputError, SpineAppError, writing
from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.imaging.checks import check_file
from totalspineseg_bids.imaging.io import write_image, write_labels
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.progress import track
from totalspineseg_bids.training.case_labels import SchemeChoice, load_case
from totalspineseg_bids.training.cases import Refusal, TrainingCase, find_cases
from totalspineseg_bids.training.class_maps import CHANNEL_NAMES, DATASET_NAMES, DATASETS, DatasetId, dataset_json
from totalspineseg_bids.training.contrast import recontrast
from totalspineseg_bids.training.semantic_targets import odd_disc_mask, semantic_map
from totalspineseg_bids.training.split import folds, held_out_persons

logger = logging.getLogger(__name__)

#: Raised with every change of the output of a case, so that older outputs are replaced.
_RECIPE = 2
PARITIES: tuple[str, ...] = ("odd", "even")
#: What a file holds, and of which copy, dataset or parity.
_Content = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """Summary of a run of `prepare`."""

    training: int
    test: int
    """`training`, `test`: cases in each part (images, so that one counts once though 102 has it twice)."""
    written: int
    kept: int
    """`written`, `kept`: cases made now and cases that were complete from an earlier run."""
    refused: tuple[Refusal, ...]
    """Images left out, with the reason."""
    strata: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """Images a dataset and contrast: ``(dataset, contrast, part) -> count``, part ``"train"`` or ``"test"``."""
    folders: dict[DatasetId, Path] = field(default_factory=dict)
    """Raw folders by dataset id."""
    levels: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Images that show a structure: ``name -> (training, test)``, in the order of ``anatomy.LABELS``."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A case in its part."""

    case: TrainingCase
    part: str
    """`case`, `part`: what it is and ``"train"`` or ``"test"``."""
    copies: int
    """Copies of other contrast, for training cases."""
    seed: int
    """Of the copies."""

    @property
    def names(self) -> tuple[str, ...]:
        """The case's name and those of its copies."""
        return members(self.case.case_id, self.copies)

    def rng(self, number: int) -> np.random.Generator:
        """Return the random generator of a copy, independent of other cases."""
        digest = hashlib.sha256(f"{self.seed}|contrast|{self.case.case_id}|{number}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def members(case_id: str, copies: int) -> tuple[str, ...]:
    """Return the case names of an image and of its copies with another contrast."""
    return (case_id, *(f"{case_id}_aug{number}" for number in range(1, copies + 1)))


def variants(case_id: str, dataset: DatasetId) -> tuple[tuple[str, bool], ...]:
    """Return the nnU-Net case names of an image in a dataset, each with whether the parities are swapped."""
    if dataset == 102:
        return tuple((f"{case_id}_{parity}", parity == "even") for parity in PARITIES)
    return ((case_id, False),)


def _share(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it if the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _signature(job: _Job, scheme: SchemeChoice) -> dict[str, Any]:
    sources = [job.case.image, *job.case.labels.paths]
    return {
        "recipe": _RECIPE,
        "part": job.part,
        "label_scheme": anatomy.recorded_scheme(scheme),
        "copies": job.copies,
        "seed": job.seed if job.copies else None,
        "sources": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in sources],
    }


def _files(name: str, dataset: DatasetId, tag: str) -> tuple[list[str], str]:
    """Return the channels and the label map of a case of nnU-Net, relative to the raw folder."""
    channels = [f"images{tag}/{name}_{channel:04d}.nii.gz" for channel in range(len(CHANNEL_NAMES[dataset]))]
    return channels, f"labels{tag}/{name}.nii.gz"


def _outputs(job: _Job, folders: dict[DatasetId, Path], work_dir: Path) -> dict[Path, _Content]:
    """Return the files of a case and its copies, and what each of them holds."""
    outputs: dict[Path, _Content] = {}
    for number, member in enumerate(job.names):
        for dataset, folder in folders.items():
            for name, swapped in variants(member, dataset):
                channels, target = _files(name, dataset, "Tr" if job.part == "train" else "Ts")
                contents: tuple[_Content, ...] = (("image", number), ("odd discs", swapped))
                outputs |= {folder / path: content for path, content in zip(channels, contents, strict=False)}
                outputs[folder / target] = ("targets", dataset, swapped)
    if job.part == "test":
        outputs[work_dir / "test" / "images" / f"{job.case.case_id}.nii.gz"] = ("image", 0)
        outputs[work_dir / "test" / "labels" / f"{job.case.case_id}.nii.gz"] = ("levels",)
    return outputs


def _write_case(outputs: dict[Path, _Content], job: _Job, image: Volume, labels: NDArray[np.uint8]) -> None:
    """Write a case and its copies; what several files hold is written once."""
    written: dict[_Content, Path] = {}
    for path, content in outputs.items():
        if content in written:
            _share(written[content], path)
            continue
        written[content] = path
        what, *of = content
        if what == "image":
            data = recontrast(image.data, labels, job.rng(of[0])) if of[0] else image.data
            write_image(path, data, image.affine)
        elif what == "odd discs":
            write_labels(path, odd_disc_mask(labels, *of), image.affine)
        elif what == "targets":
            write_labels(path, semantic_map(labels, of[0], swap_parity=of[1]), image.affine)
        else:
            write_labels(path, labels, image.affine)


def _places(folders: dict[DatasetId, Path], work_dir: Path) -> list[Path]:
    """Return the folders of image files."""
    raw = [folder / part for folder in folders.values() for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs")]
    return [*raw, work_dir / "test" / "images", work_dir / "test" / "labels"]


def _make_folders(work_dir: Path, datasets: Sequence[DatasetId]) -> dict[DatasetId, Path]:
    folders = {dataset: work_dir / "nnUNet_raw" / DATASET_NAMES[dataset] for dataset in datasets}
    for folder in folders.values():
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "prepared.tsv").exists():
            msg = f"{folder}: holds a dataset that was not made here; choose another work folder"
            raise OutputError(msg)
    with writing(work_dir, "choose another work folder"):
        for place in (*_places(folders, work_dir), work_dir / "prepared"):
            place.mkdir(parents=True, exist_ok=True)
        for folder in folders.values():
            # Marks the folder as ours from the first case on.
            (folder / "prepared.tsv").touch()
    return folders


def _remove_strangers(places: list[Path], expected: set[Path]) -> None:
    """Remove files of earlier runs for cases now absent, refused or in the other part."""
    for place in places:
        for path in place.iterdir():
            if path not in expected:
                path.unlink()


def _write_descriptions(
    folders: dict[DatasetId, Path], done: list[_Job], refused: Sequence[Refusal], seed: int
) -> None:
    training = [job.case for job in done if job.part == "train"]
    copies = {job.case.case_id: job.copies for job in done}
    splits = folds(training, seed)
    rows: list[dict[str, object]] = []
    for job in done:
        case = job.case
        fold = next((i for i, split in enumerate(splits) if case.case_id in split["val"]), None)
        name = {"case": case.case_id, "dataset": case.dataset, "subject": case.subject, "contrast": case.contrast}
        rows.append({**name, "part": job.part, "fold": fold, "image": case.image})
    rows += [{"part": "refused", "image": refusal.image, "reason": refusal.reason} for refusal in refused]
    table = format_table(("case", "dataset", "subject", "contrast", "part", "fold", "image", "reason"), rows)
    for dataset, folder in folders.items():
        own = {
            case.case_id: {
                # Copies help to train; a fold is judged on real images alone.
                "train": [n for m in members(case.case_id, copies[case.case_id]) for n, _ in variants(m, dataset)],
                "val": [name for name, _ in variants(case.case_id, dataset)],
            }
            for case in training
        }
        spread = [
            {key: [name for case_id in ids for name in own[case_id][key]] for key, ids in split.items()}
            for split in splits
        ]
        write_text(folder / "splits_final.json", json.dumps(spread, indent=1) + "\n")
        write_text(folder / "prepared.tsv", table)
        # With the list of files at hand, nnU-Net does not start a pool of workers to find them.
        files = {
            name: dict(zip(("images", "label"), _files(name, dataset, "Tr"), strict=True))
            for names in own.values()
            for name in names["train"]
        }
        content = dataset_json(dataset, len(files), name=DATASET_NAMES[dataset], dataset=files)
        write_text(folder / "dataset.json", json.dumps(content, indent=1) + "\n")


def _count_levels(done: Sequence[_Job], shown: dict[str, list[str]]) -> dict[str, tuple[int, int]]:
    """Count the training and test images of each structure."""
    counts = Counter((name, job.part) for job in done for name in shown[job.case.case_id])
    pairs = {label.name: (counts[label.name, "train"], counts[label.name, "test"]) for label in anatomy.LABELS}
    return {name: pair for name, pair in pairs.items() if any(pair)}


def _make_case(
    job: _Job, folders: dict[DatasetId, Path], work_dir: Path, scheme: SchemeChoice
) -> tuple[bool, list[str]]:
    """Make a case unless it is complete; return whether it was made now, and the structures in it.

    Raises
    ------
    SpineAppError
        If the image or its labels cannot be used.
    """
    for path in (job.case.image, *job.case.labels.paths):
        check_file(path)
    mark = work_dir / "prepared" / f"{job.case.case_id}.json"
    signature = _signature(job, scheme)
    known = read_json(mark) or {}
    outputs = _outputs(job, folders, work_dir)
    if known.get("signature") == signature and all(path.exists() for path in outputs):
        return False, list(known["structures"])
    mark.unlink(missing_ok=True)
    image, labels = load_case(job.case, scheme)
    _write_case(outputs, job, image, labels)
    present = np.bincount(labels.ravel(), minlength=256) > 0
    structures = [label.name for label in anatomy.LABELS if present[label.id]]
    write_text(mark, json.dumps({"signature": signature, "structures": structures}))
    return True, structures


def prepare(
    bids_dirs: Sequence[Path],
    work_dir: Path,
    *,
    datasets: Sequence[DatasetId] = DATASETS,
    labels_folder: str | Sequence[str] = "derivatives/labels",
    label_scheme: SchemeChoice = anatomy.DEFAULT_SCHEME,
    test_fraction: float = 0.1,
    seed: int = 0,
    copies: int = 0,
    one_person: Sequence[str] = (),
) -> PrepareSummary:
    """Write nnU-Net's raw datasets from BIDS datasets with labels.

    Cases that are complete from an earlier run, with the same sources and in the same part, are kept.

    Parameters
    ----------
    bids_dirs : sequence of Path
        Roots of BIDS datasets, each with label images below ``labels_folder``.
    work_dir : Path
        Folder that holds (or will hold) ``nnUNet_raw``.
    datasets : sequence of DatasetId, optional
        Which of 101, 102 and 103 to write.
    labels_folder : str or sequence of str, default 'derivatives/labels'
        Folder of the labels, below each root; of several, the first that has labels of an image.
    label_scheme : SchemeChoice, optional
        Ids in the label images; ``"auto"`` looks at each file.
    test_fraction : float, default 0.1
        Share of the persons that is put aside for the test, a dataset and contrast.
    seed : int, default 0
        Of the choice of test persons and folds, and of the copies.
    copies : int, default 0
        Copies of other contrast (`contrast.recontrast`) of each training image.
    one_person : sequence of str, optional
        Names of dataset folders all of whose subjects are one person.

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
    cases, refusals = find_cases(bids_dirs, labels_folder, one_person)
    if not cases:
        msg = f"none of {len(refusals)} images has usable labels; the first: {refusals[0].image}: {refusals[0].reason}"
        raise NothingSelectedError(msg)
    work_dir = Path(work_dir).resolve()
    folders = _make_folders(work_dir, sorted(datasets))
    test = held_out_persons(cases, test_fraction, seed)
    done: list[_Job] = []
    expected: set[Path] = set()
    shown: dict[str, list[str]] = {}
    written = 0
    for case in track(cases, "prepare"):
        held_out = case.person in test
        job = _Job(case, "test" if held_out else "train", 0 if held_out else copies, seed)
        try:
            made, shown[case.case_id] = _make_case(job, folders, work_dir, label_scheme)
        except SpineAppError as error:
            logger.warning("left out: %s", error)
            refusals.append(Refusal(case.image, str(error)))
        else:
            written += made
            done.append(job)
            expected.update(_outputs(job, folders, work_dir))
    if not any(job.part == "train" for job in done):
        msg = f"no image is left to train on; the first refused: {refusals[0].image}: {refusals[0].reason}"
        raise NothingSelectedError(msg)
    _remove_strangers(_places(folders, work_dir), expected)
    _write_descriptions(folders, done, refusals, seed)
    levels = _count_levels(done, shown)
    columns = ("name", "training_images", "test_images")
    table = format_table(columns, [dict(zip(columns, (name, *counts), strict=True)) for name, counts in levels.items()])
    write_text(work_dir / "prepared" / "levels.tsv", table)
    parts = Counter(job.part for job in done)
    return PrepareSummary(
        training=parts["train"],
        test=parts["test"],
        written=written,
        kept=len(done) - written,
        refused=tuple(refusals),
        strata=dict(Counter((job.case.dataset, job.case.contrast, job.part) for job in done)),
        folders=folders,
        levels=levels,
    )
