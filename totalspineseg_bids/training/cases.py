"""Images of BIDS datasets and the labels that belong to them.

A dataset for training is a BIDS folder with label images in a derivative, ``derivatives/labels`` unless another is
named. The labels' names are matched to the images' by their entities, so that all of these are found for
``sub-01_ses-a_T2w.nii.gz``::

    sub-01_ses-a_T2w_label-spine_dseg.nii.gz           (suffix of the image kept)
    sub-01_ses-a_space-resampled_T2w_label-spine_dseg.nii.gz
    sub-01_ses-a_seg-totalspineseg_desc-T2w_dseg.nii.gz (as this app writes them)
    sub-01_ses-a_label-SC_desc-T2w_mask.nii.gz          (cord, merged into the spine labels)
    sub-01_ses-a_T2w_label-canal_seg.nii.gz             (canal, likewise)

The public datasets of the spinal cord keep much else beside these (rootlets, lesions, discs as points, brain, skin,
registered copies in ``space-other``); what is not a label of the spine in the image's own space is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from totalspineseg_bids.errors import DatasetError, MissingInputError, NothingSelectedError

#: Suffixes of anatomical images that are taken for training.
IMAGE_SUFFIXES: tuple[str, ...] = (
    "T1w",
    "T2w",
    "T2starw",
    "T2star",  # as datasets from before BIDS 1.5 call it
    "PDw",
    "MTw",
    "MTS",
    "FLAIR",
    "STIR",
    "MEGRE",
    "UNIT1",
    "inplaneT2",
)
#: Suffixes that a label image may end in.
LABEL_SUFFIXES: tuple[str, ...] = ("dseg", "seg", "mask", "labels")

#: Entities that a derivative adds to the name of its source.
_ADDED = frozenset({"seg", "desc", "label", "space", "res", "den", "atlas"})
_CORD = frozenset({"sc", "cord", "spinalcord"})
_CANAL = frozenset({"canal", "spinalcanal"})
#: Label images that hold a part of the levels each and are merged.
_PARTS = frozenset({"vertebrae", "vertebra", "vert", "disc", "discs", "ivd", "ivds", "sacrum"})
#: Point labels, which are no segmentation.
_POINTS = frozenset({"levels"})
#: Where labels may lie that belong to an image without ``space-``: its own space, or a copy on another grid.
_OWN_SPACES = frozenset({"resampled", "orig", "native", "individual"})
#: Entities that distinguish series of one suffix: another plane, sequence or preparation.
_VARIANTS = ("acq", "ce", "flip", "inv", "mt", "echo", "part")


@dataclass(frozen=True, slots=True)
class BidsName:
    """Parts of a BIDS file name."""

    entities: tuple[tuple[str, str], ...]
    """Key and value of each entity, in the order of the name."""
    suffixes: tuple[str, ...]
    """Pieces that are no entity; the last is the suffix, one before it the suffix of the source."""

    @property
    def suffix(self) -> str:
        """The last piece of the name."""
        return self.suffixes[-1] if self.suffixes else ""

    def get(self, key: str) -> str | None:
        """Return the value of an entity."""
        return dict(self.entities).get(key)

    @property
    def source_entities(self) -> frozenset[tuple[str, str]]:
        """Entities that the source image has too."""
        return frozenset((k, v) for k, v in self.entities if k not in _ADDED)

    @property
    def source_suffix(self) -> str | None:
        """Suffix of the source image, if a derivative's name has it."""
        known = [piece for piece in (*self.suffixes[:-1], self.get("desc")) if piece in IMAGE_SUFFIXES]
        return known[0] if known else None

    @property
    def contrast(self) -> str:
        """Suffix of an image with the entities that make a series of its own, such as ``acq-highresSag_T2w``."""
        return "_".join([*(f"{k}-{v}" for k, v in self.entities if k in _VARIANTS), self.suffix])

    @property
    def unknown_pieces(self) -> tuple[str, ...]:
        """Pieces that are neither an entity, nor the last, nor a suffix of an image."""
        return tuple(piece for piece in self.suffixes[:-1] if piece not in IMAGE_SUFFIXES)


def parse_name(path: Path) -> BidsName:
    """Split the name of a NIfTI file into BIDS entities and suffixes."""
    stem = re.sub(r"\.nii(\.gz)?$", "", path.name)
    entities: list[tuple[str, str]] = []
    suffixes: list[str] = []
    for piece in stem.split("_"):
        key, dash, value = piece.partition("-")
        if dash and key.isalnum() and value:
            entities.append((key, value))
        else:
            suffixes.append(piece)
    return BidsName(tuple(entities), tuple(suffixes))


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """Label images of one image."""

    levels: tuple[Path, ...]
    """Images with one value per level (several if vertebrae and discs are in separate files)."""
    cord: Path | None = None
    canal: Path | None = None
    """`cord`, `canal`: masks to merge into them, if any."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files."""
        return (*self.levels, *(path for path in (self.cord, self.canal) if path is not None))


@dataclass(frozen=True, slots=True)
class TrainingCase:
    """An image with its labels."""

    case_id: str
    """Unique, safe in file names: dataset and stem of the image."""
    dataset: str
    """Name of the dataset's folder."""
    subject: str
    """Value of ``sub-``, without the prefix."""
    contrast: str
    """Suffix of the image, with the entities that distinguish its series (`BidsName.contrast`)."""
    image: Path
    """The image."""
    labels: LabelFiles
    """Its label images."""
    one_person: bool = False
    """All subjects of the dataset are the same person, scanned at several places."""

    @property
    def person(self) -> tuple[str, str]:
        """Dataset and subject, all of whose images are in the same part of a split."""
        return self.dataset, "" if self.one_person else self.subject


@dataclass(frozen=True, slots=True)
class Refusal:
    """An image that is left out, and why."""

    image: Path
    reason: str


def is_image(path: Path) -> bool:
    """Return whether a file name is that of an anatomical image for training."""
    name = parse_name(path)
    return path.name.endswith((".nii", ".nii.gz")) and name.suffix in IMAGE_SUFFIXES and len(name.suffixes) == 1


def is_spine_label(path: Path) -> bool:
    """Return whether a file name is that of labels of the spine: levels, cord or canal."""
    name = parse_name(path)
    if not path.name.endswith((".nii", ".nii.gz")) or name.suffix not in LABEL_SUFFIXES or name.unknown_pieces:
        return False
    return (name.get("label") or "").lower() in _CORD | _CANAL | _PARTS or _rank_of_levels(name) is not None


def _images(root: Path) -> list[Path]:
    folders = [*root.glob("sub-*/anat"), *root.glob("sub-*/ses-*/anat")]
    return sorted(path for folder in folders for path in folder.iterdir() if is_image(path))


def _belongs(label: BidsName, image: BidsName, *, alone: bool) -> bool:
    if label.suffix not in LABEL_SUFFIXES or label.unknown_pieces or label.source_entities != image.source_entities:
        return False
    space = label.get("space")
    if space is not None and space != image.get("space") and space not in _OWN_SPACES:
        return False
    return label.source_suffix == image.suffix or (label.source_suffix is None and alone)


def _rank_of_levels(name: BidsName) -> int | None:
    """Return the preference rank of a file of levels, 0 is best; None if it has no levels."""
    label, seg = (name.get("label") or "").lower(), (name.get("seg") or "").lower()
    if name.suffix == "mask" or seg in _POINTS:
        return None
    if label:
        return 0 if label == "spine" else None
    if seg == "totalspineseg":
        return 1
    if seg:
        return 3
    return 2 if name.suffix == "dseg" else 4


def _sort_labels(files: Iterable[Path]) -> LabelFiles | str:
    """Sort files into levels, cord and canal, or return the reason why that is impossible."""
    levels: dict[int, list[Path]] = {}
    masks: dict[str, list[Path]] = {"cord": [], "canal": []}
    parts: list[Path] = []
    for path in files:
        name = parse_name(path)
        what = (name.get("label") or "").lower()
        if what in _CORD or what in _CANAL:
            masks["cord" if what in _CORD else "canal"].append(path)
        elif what in _PARTS:
            parts.append(path)
        elif (rank := _rank_of_levels(name)) is not None:
            levels.setdefault(rank, []).append(path)
    best = levels[min(levels)] if levels else []
    for found in (best, *masks.values()):
        if len(found) > 1:
            return "several label images fit: " + ", ".join(path.name for path in found)
    if not best and not parts:
        return "no label image with the levels of the spine"
    cord, canal = (next(iter(found), None) for found in masks.values())
    return LabelFiles(tuple(best) if best else tuple(parts), cord, canal)


def _find_labels(image: Path, root: Path, labels_roots: Sequence[Path], *, alone: bool) -> LabelFiles | str:
    """Look through folders of labels in the order of preference; the reason is that of the first."""
    image_name = parse_name(image)
    reasons: list[str] = []
    for labels_root in labels_roots:
        folder = labels_root / image.parent.relative_to(root)
        fitting = [
            path for path in sorted(folder.glob("*.nii*")) if _belongs(parse_name(path), image_name, alone=alone)
        ]
        found = _sort_labels(fitting) if fitting else f"no label image in {folder.relative_to(root)}"
        if not isinstance(found, str):
            return found
        reasons.append(found)
    return reasons[0]


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-") or "dataset"


def _dataset_names(roots: Sequence[Path]) -> list[str]:
    """Return a short unique name for each dataset: that of its folder, numbered where two are the same."""
    names: list[str] = []
    for root in roots:
        name, number = _safe(root.name), 2
        while name in names:
            name, number = f"{_safe(root.name)}-{number}", number + 1
        names.append(name)
    return names


def find_cases(
    bids_dirs: Sequence[Path],
    labels_folder: str | Sequence[str] = "derivatives/labels",
    one_person: Sequence[str] = (),
) -> tuple[list[TrainingCase], list[Refusal]]:
    """Find the images of BIDS datasets and their labels.

    Parameters
    ----------
    bids_dirs : sequence of Path
        Root folders.
    labels_folder : str or sequence of str, default 'derivatives/labels'
        Where the labels lie, below each root; of several, the first that has labels of an image.
    one_person : sequence of str, optional
        Names of dataset folders all of whose subjects are the same person (a traveller scanned at many sites).

    Returns
    -------
    cases : list of TrainingCase
        Sorted by dataset and file name.
    refusals : list of Refusal
        Images without usable labels.

    Raises
    ------
    MissingInputError
        If a folder does not exist.
    DatasetError
        If a folder has no labels.
    NothingSelectedError
        If there is no anatomical image in any of them.
    """
    roots = [Path(folder).resolve() for folder in bids_dirs]
    folders = [labels_folder] if isinstance(labels_folder, str) else list(labels_folder)
    cases: list[TrainingCase] = []
    refusals: list[Refusal] = []
    for root, dataset in zip(roots, _dataset_names(roots), strict=True):
        if not root.is_dir():
            msg = f"{root}: no such folder; give the root of a BIDS dataset"
            raise MissingInputError(msg)
        labels_roots = [root / folder for folder in folders if (root / folder).is_dir()]
        if not labels_roots:
            msg = f"{root}: has no {' or '.join(folders)}; put the label images there or name their folder"
            raise DatasetError(msg)
        images = _images(root)
        twins = [parse_name(path).source_entities for path in images]
        for image, entities in zip(images, twins, strict=True):
            found = _find_labels(image, root, labels_roots, alone=twins.count(entities) == 1)
            if isinstance(found, str):
                refusals.append(Refusal(image, found))
                continue
            stem = re.sub(r"\.nii(\.gz)?$", "", image.name)
            name = parse_name(image)
            cases.append(
                TrainingCase(
                    case_id=f"{dataset}_{stem}",
                    dataset=dataset,
                    subject=name.get("sub") or stem,
                    contrast=name.contrast,
                    image=image,
                    labels=found,
                    one_person=root.name in one_person,
                )
            )
    if not cases and not refusals:
        where = ", ".join(str(root) for root in roots)
        msg = f"no anatomical image in {where}; expected sub-*/anat/*_T2w.nii.gz and so on"
        raise NothingSelectedError(msg)
    return cases, refusals
