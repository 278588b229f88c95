"""Conversion of SPIDER's archives of .mha files to a BIDS dataset with labels.

Sources
-------
van der Graaf et al., Scientific Data 11, 264 (2024); file names ``<patient>_{t1,t2,t2_SPACE}.mha`` in ``images.zip``
and ``masks.zip`` of Zenodo record 10159290. Values of the masks (grand-challenge.org, algorithm "SPIDER baseline"):
vertebrae 1-25 and discs 201-225 counted from the bottom (L5 = 1, L5-S = 201), 100 the spinal canal, 101-125 vertebrae
that the image shows in part.

What follows from that: the canal is the whole canal, with the cord in it; the sacrum is not labelled; and a spine with
six lumbar vertebrae is named as if it had five, from the bottom. BIDS names are those of the method's copy of the
dataset (``sub-002_acq-lowresSag_T2w``), so that its labels fit.
"""

from __future__ import annotations

import importlib
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import __version__, anatomy
from totalspineseg_bids.errors import ImageError, NothingSelectedError, SpineAppError
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.imaging.io import write_image, write_labels
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.progress import track
from totalspineseg_bids.training.datasets.catalog import DatasetSource

#: ITK's physical space is LPS, that of NIfTI RAS.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def read_mha(path: Path, name: str | None = None) -> Volume:
    """Read a scalar 3D MetaImage.

    Parameters
    ----------
    path : Path
        ``.mha`` file, or ``.mhd`` beside its data.
    name : str, optional
        What to call the file in messages; its path by default.

    Returns
    -------
    Volume
        Values in the file's type, shape (X, Y, Z); affine to RAS, mm.

    Raises
    ------
    ImageError
        If it cannot be read, or is no scalar 3D image.
    """
    # Heavy, and without types.
    sitk: Any = importlib.import_module("SimpleITK")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        msg = f"{name or path}: not a readable MetaImage ({reason}); download it again"
        raise ImageError(msg) from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        msg = f"{name or path}: not a scalar 3D image"
        raise ImageError(msg)
    affine = np.eye(4)
    directions = np.array(image.GetDirection(), np.float64).reshape(3, 3)
    affine[:3, :3] = _LPS_TO_RAS @ directions @ np.diag(image.GetSpacing())
    affine[:3, 3] = _LPS_TO_RAS @ np.array(image.GetOrigin(), np.float64)
    # SimpleITK gives (z, y, x).
    return Volume(np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0)), affine)


ARCHIVES = ("images.zip", "masks.zip")
#: Series of a patient, by the end of the file's name: entities and suffix in BIDS.
_SERIES = {"t1": "acq-lowresSag_T1w", "t2": "acq-lowresSag_T2w", "t2_SPACE": "acq-highresSag_T2w"}
_MEMBER = re.compile(r"^(?P<patient>\d+)_(?P<series>t1|t2|t2_SPACE)\.mha$")
_CANAL = 100


def label_table() -> dict[int, int]:
    """Return the canonical id of each value of SPIDER's masks.

    Vertebrae that the image shows in part (101-124) are the same vertebrae. Values above C1 and C2-C3 do not occur.
    """
    upwards = reversed(anatomy.SpineVariant().vertebrae()[:-1])
    table = {_CANAL: anatomy.CANAL_ID}
    for number, level in enumerate(upwards, start=1):
        table[number] = table[_CANAL + number] = anatomy.vertebra(level).id
    for number, level in enumerate(reversed(anatomy.REGULAR_DISCS), start=1):
        table[200 + number] = anatomy.disc(level).id
    return table


def map_labels(mask: NDArray[np.generic], name: str) -> NDArray[np.uint8]:
    """Translate SPIDER's values to canonical ids.

    Parameters
    ----------
    mask : array
        Whole numbers, any shape.
    name : str
        Of the file, for the message.

    Raises
    ------
    ImageError
        If it holds a value that SPIDER does not define.
    """
    table = label_table()
    values, places = np.unique(mask, return_inverse=True)
    unknown = [float(value) for value in values if value != 0 and value not in table]
    if unknown:
        msg = f"{name}: value {unknown[0]:g} is none of SPIDER's labels"
        raise ImageError(msg)
    mapped = np.array([table.get(int(value), 0) for value in values], np.uint8)
    return np.asarray(mapped[places].reshape(mask.shape), np.uint8)


def bids_stem(patient: int, series: str) -> str:
    """Return the BIDS name of a series without its ending, such as ``sub-002_acq-lowresSag_T2w``."""
    return f"sub-{patient:03d}_{_SERIES[series]}"


def label_name(stem: str) -> str:
    """Return the name of the label image of a series."""
    entities, suffix = stem.rsplit("_", 1)
    return f"{entities}_seg-spider_desc-{suffix}_dseg.nii.gz"


def _members(archive: Path) -> tuple[dict[tuple[int, str], str], list[tuple[str, str]]]:
    """Return the member of each patient and series, and the .mha files with other names."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
    except zipfile.BadZipFile as error:
        msg = f"{archive}: not a readable zip ({error}); delete it and download it again"
        raise ImageError(msg) from error
    found: dict[tuple[int, str], str] = {}
    strange: list[tuple[str, str]] = []
    for name in names:
        path = PurePosixPath(name)
        if path.suffix != ".mha" or path.parts[0] == "__MACOSX":
            continue
        match = _MEMBER.match(path.name)
        if match is None:
            strange.append((f"{archive.name}/{name}", "its name is not <patient>_t1, _t2 or _t2_SPACE"))
        else:
            found[int(match["patient"]), match["series"]] = name
    return found, strange


def _read_member(archive: zipfile.ZipFile, member: str, scratch: Path) -> Volume:
    path = scratch / "member.mha"
    with archive.open(member) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    try:
        return read_mha(path, f"{Path(archive.filename or '').name}/{member}")
    finally:
        path.unlink()


def convert_spider(
    source: DatasetSource,
    archives: Path,
    target: Path,
    *,
    subjects: Sequence[str] = (),
) -> tuple[int, int, list[tuple[str, str]]]:
    """Write SPIDER's archives as a BIDS dataset; existing files are kept.

    Parameters
    ----------
    source : DatasetSource
        SPIDER's entry of the catalog.
    archives : Path
        Folder with ``images.zip`` and ``masks.zip``.
    target : Path
        Root of the dataset; labels go to ``derivatives/labels``.
    subjects : sequence of str, optional
        Labels with or without ``sub-``, such as ``002``; all by default.

    Returns
    -------
    selected, written : int
        Series that belong to the dataset, and those converted now.
    failed : list of (str, str)
        Member of an archive and the reason why it was left out.

    Raises
    ------
    ImageError
        If an archive cannot be read.
    NothingSelectedError
        If no series is left.
    """
    images, failed = _members(archives / "images.zip")
    masks, strange = _members(archives / "masks.zip")
    failed += strange
    chosen = {subject.removeprefix("sub-") for subject in subjects}
    wanted = sorted(key for key in images if not chosen or f"{key[0]:03d}" in chosen or str(key[0]) in chosen)
    if not wanted:
        msg = f"{archives / 'images.zip'}: holds no series of {', '.join(sorted(chosen)) or 'any patient'}"
        raise NothingSelectedError(msg)
    _describe(source, target)
    complete = written = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        zipfile.ZipFile(archives / "images.zip") as image_zip,
        zipfile.ZipFile(archives / "masks.zip") as mask_zip,
    ):
        for key in track(wanted, source.name):
            stem = bids_stem(*key)
            folder = Path(f"sub-{key[0]:03d}") / "anat"
            image_path = target / folder / f"{stem}.nii.gz"
            label_path = target / "derivatives" / "labels" / folder / label_name(stem)
            try:
                if not label_path.exists():
                    if key not in masks:
                        msg = f"images.zip/{images[key]}: masks.zip has no mask of it"
                        raise ImageError(msg)
                    mask = _read_member(mask_zip, masks[key], Path(scratch))
                    write_labels(label_path, map_labels(mask.data, f"masks.zip/{masks[key]}"), mask.affine)
                if not image_path.exists():
                    image = _read_member(image_zip, images[key], Path(scratch))
                    write_image(image_path, image.data, image.affine)
                    written += 1
                complete += 1
            except (SpineAppError, zipfile.BadZipFile) as error:
                failed.append((stem, str(error)))
    names = sorted(path.name for path in target.glob("sub-*") if path.is_dir())
    write_text(target / "participants.tsv", "\n".join(["participant_id", *names]) + "\n")
    return complete + len(failed), written, failed


def _describe(source: DatasetSource, target: Path) -> None:
    """Write the dataset descriptions of the folder and of its labels."""
    description = {
        "Name": "SPIDER: lumbar spine segmentation in MR images",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "License": source.licence,
        "HowToAcknowledge": source.citation,
        "ReferencesAndLinks": [source.page],
        "DatasetDOI": "doi:10.5281/zenodo.10159290",
    }
    labels = {
        "Name": "SPIDER: labels in the ids of TotalSpineSeg's first release",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "License": source.licence,
        "GeneratedBy": [
            {"Name": "totalspineseg-tools datasets get", "Version": __version__, "Description": "masks.zip, converted"}
        ],
        "SourceDatasets": [{"DOI": "doi:10.5281/zenodo.10159290"}],
    }
    table = ["index\tname"]
    table += [f"{value}\t{anatomy.BY_ID[value].name}" for value in sorted(set(label_table().values()))]
    readme = (
        f"# SPIDER\n\n{source.title}.\n\nConverted from {source.page} ({source.licence}) by totalspineseg-tools "
        f"{__version__}.\nPlease cite: {source.citation}\n"
    )
    for path, content in (
        (target / "dataset_description.json", json.dumps(description, indent=1) + "\n"),
        (target / "README.md", readme),
        (target / "derivatives" / "labels" / "dataset_description.json", json.dumps(labels, indent=1) + "\n"),
        (target / "derivatives" / "labels" / "seg-spider_dseg.tsv", "\n".join(table) + "\n"),
    ):
        if not path.exists():
            write_text(path, content)
