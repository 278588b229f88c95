"""Synthetic BIDS datasets with reference labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import totalspineseg_bids
from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.citation import PROGRAM
from totalspineseg_bids.errors import MissingInputError, UsageError, writing
from totalspineseg_bids.files import refuse_other_dataset
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.imaging.io import write_labels, write_nifti
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.progress import track
from totalspineseg_bids.synthesis.acquisition import Protocol, acquire, draw_protocol, to_nifti
from totalspineseg_bids.synthesis.appearance import CONTRASTS, Contrast, render
from totalspineseg_bids.synthesis.fields_of_view import FIELDS_OF_VIEW, PlacedField, check_names, draw_field, possible
from totalspineseg_bids.synthesis.parametric import make_spine
from totalspineseg_bids.synthesis.pose import deform
from totalspineseg_bids.synthesis.surroundings import label_map_files, read_label_map

#: First entropy word of the seeds of training spines; callers may add a seed below 10^9.
TRAINING_DOMAIN = 7
#: First entropy word of the seeds of datasets: no dataset repeats a training spine, whatever the seeds.
EVALUATION_DOMAIN = 3_000_000_000
#: First entropy word of the seeds of the images that the refinement network learns from.
REFINEMENT_DOMAIN = 2_000_000_000

#: Contrasts of a mixed dataset in turn: mostly T1w and T2w.
_MIXED: tuple[Contrast, ...] = ("T2w", "T1w", "T2w", "T1w", "STIR", "T2w", "T1w", "T2starw", "T2w", "T1w", "random")
_SUFFIX: dict[Contrast, tuple[str, str]] = {  # part of acq-, BIDS suffix
    "T1w": ("", "T1w"), "T2w": ("", "T2w"), "STIR": ("Stir", "T2w"), "T2starw": ("", "T2starw"),
    "random": ("Random", "PDw"),
}  # fmt: skip
_MARGIN_MM = 22.0


@dataclass(frozen=True, slots=True)
class _ImagePlan:
    """Random choices for one image."""

    stem: str
    suffix: str
    field: str
    contrast: Contrast
    protocol: Protocol


def write_dataset(
    out: Path,
    subjects: int,
    seed: int,
    *,
    fields_of_view: Sequence[str] | None = None,
    contrasts: Sequence[Contrast] | None = None,
    label_maps: Path | None = None,
    variants: bool = False,
    artefacts: bool = False,
    most_images: int | None = None,
    domain: int = EVALUATION_DOMAIN,
) -> list[Path]:
    """Write a BIDS dataset of synthetic spine images with the truth in ``derivatives/labels``.

    Parameters
    ----------
    out : Path
        Folder to write; created if absent. Files of the same names are replaced; other subjects of earlier calls remain
        in the dataset.
    subjects : int
        Number of subjects; each has one or two images.
    seed : int
        Seed; equal seeds and arguments give equal files.
    fields_of_view : sequence of str, optional
        Kinds of field to use in turn; all by default.
    contrasts : sequence of str, optional
        Contrasts to use in turn; by default mostly T1w and T2w with some others.
    label_maps : Path, optional
        Folder of tissue label maps (NIfTI, 1 mm, canonical ids) to pose and deform in place of parametric
        spines.
    variants : bool
        Whether some subjects get 11 or 13 thoracic or 4 or 6 lumbar vertebrae (parametric spines only).
    artefacts : bool
        Whether images may have artefacts: ringing, wrap-around, hot pixels, ... (`synthesis.artefacts`).
    most_images : int, optional
        Number of images after which no more subjects are generated.
    domain : int
        First entropy word of the seeds; images for training must not use that of datasets.

    Returns
    -------
    list of Path
        Paths of the images, in order.

    Raises
    ------
    UsageError
        If an argument contains an unknown name or the number of subjects is not positive.
    MissingInputError
        If the folder holds no label map that covers one of the fields of view.
    OutputError
        If the folder cannot be written.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     try:
    ...         write_dataset(Path(folder), 1, 0, contrasts=["CT"])
    ...     except UsageError as error:
    ...         print(error)
    unknown contrast: CT; known are T1w, T2w, STIR, T2starw, random
    """
    if subjects < 1:
        msg = f"the number of subjects must be at least 1, not {subjects}"
        raise UsageError(msg)
    if seed < 0:
        msg = f"the seed must not be negative, it is {seed}"
        raise UsageError(msg)
    refuse_other_dataset(out, "raw", PROGRAM, "files")
    fields = FIELDS_OF_VIEW if fields_of_view is None else tuple(fields_of_view)
    kinds = _MIXED if contrasts is None else tuple(contrasts)
    check_names("field of view", fields, FIELDS_OF_VIEW)
    check_names("contrast", kinds, CONTRASTS)
    atlases = None if label_maps is None else _label_maps(label_maps, fields)
    # Parametric spines vary already; the few label maps need stronger deformation.
    strength = 0.4 if atlases is None else 1.0
    images: list[Path] = []
    rows = []
    order = np.random.default_rng(np.random.SeedSequence([domain, seed]))
    field_turn, kind_turn = (int(order.integers(0, n)) for n in (len(fields), len(kinds)))
    with writing(out, "choose a folder that can be written"):
        _write_root(out, seed, parametric=atlases is None)
        for number in track(range(1, subjects + 1), "synthesize"):
            rng = np.random.default_rng(np.random.SeedSequence([domain, seed, number]))
            name = f"sub-{number:03d}"
            body, about, choices = _draw_body(rng, atlases, fields, variants)
            taken: set[str] = set()
            for _ in range(1 + int(rng.random() < 0.3)):
                field = choices[field_turn % len(choices)]
                plan = _draw_plan(name, field, kinds[kind_turn % len(kinds)], rng, artefacts=artefacts)
                field_turn, kind_turn = field_turn + 1, kind_turn + 1
                if plan.stem in taken:
                    continue
                taken.add(plan.stem)
                images.append(_write_image(out, name, body, plan, strength=strength, rng=rng))
                if len(images) == most_images:
                    break
            rows.append({"participant_id": name, **about})
            if len(images) == most_images:
                break
        _write_participants(out, rows)
    return images


def _label_maps(folder: Path, fields: tuple[str, ...]) -> list[tuple[str, Volume, tuple[str, ...]]]:
    """Read the label maps of a folder that cover one of the fields of view."""
    volumes = ((name, read_label_map(path)) for name, path in label_map_files(folder).items())
    atlases = [(name, volume, found) for name, volume in volumes if (found := possible(volume, fields))]
    if not atlases:
        msg = f"{folder}: no label map that shows {' or '.join(fields)}"
        raise MissingInputError(msg)
    return atlases


def _draw_body(
    rng: np.random.Generator,
    atlases: list[tuple[str, Volume, tuple[str, ...]]] | None,
    fields: tuple[str, ...],
    variants: bool,
) -> tuple[Volume, dict[str, Any], tuple[str, ...]]:
    """Return the tissue label map of a subject, its row of participants.tsv, and the fields of view it covers."""
    if atlases is not None:
        name, volume, choices = atlases[int(rng.integers(len(atlases)))]
        return volume, {"anatomy": name, "thoracic": "n/a", "lumbar": "n/a"}, choices
    variant = SpineVariant()
    if variants and rng.random() < 0.5:
        variant = (SpineVariant(11, 5), SpineVariant(13, 5), SpineVariant(12, 4), SpineVariant(12, 6))[rng.integers(4)]
    volume = make_spine(rng, variant=variant)
    return volume, {"anatomy": "parametric", "thoracic": variant.thoracic, "lumbar": variant.lumbar}, fields


def _draw_plan(
    subject: str, field: str, contrast: Contrast, rng: np.random.Generator, *, artefacts: bool
) -> _ImagePlan:
    protocol = draw_protocol(field, rng, artefacts=artefacts)
    acq, suffix = _SUFFIX[contrast]
    return _ImagePlan(f"{subject}_acq-{field}{protocol.plane.capitalize()}{acq}", suffix, field, contrast, protocol)


def make_image(
    body: Volume, field_name: str, contrast: Contrast, protocol: Protocol, rng: np.random.Generator, *, strength: float
) -> tuple[Volume, Volume]:
    """Pose a body, draw its intensities and simulate the acquisition.

    Parameters
    ----------
    body : Volume
        Tissue label map, RAS, 1 mm.
    field_name : str
        Name of the field of view.
    contrast : Contrast
        Sequence to imitate.
    protocol : Protocol
        Acquisition.
    rng : numpy.random.Generator
        Source of randomness.
    strength : float
        Strength of the deformation.

    Returns
    -------
    image, truth : Volume
        Image and labels on one grid, in the orientation of the protocol.
    """
    # Only the part in the field of view is posed and rendered, with a margin for rotation.
    rough = draw_field(body, field_name, rng, slab=protocol.slab)
    part = _cut(body, rough, 3.0 * _MARGIN_MM)
    posed = deform(part, rng, strength=strength)
    field = draw_field(posed, field_name, rng, slab=protocol.slab)
    near = _cut(posed, field, _MARGIN_MM)
    labels = np.ascontiguousarray(near.data)
    signal = render(labels, rng, contrast=contrast, spacing=near.spacing)
    return acquire(Volume(signal, near.affine), Volume(labels, near.affine), field, protocol, rng)


def _cut(volume: Volume, field: PlacedField, margin: float) -> Volume:
    """Cut the box of a field and a margin (mm) out of a RAS volume."""
    origin, spacing = volume.affine[:3, 3], np.array(volume.spacing)
    low = np.floor((field.center - field.size / 2 - margin - origin) / spacing).astype(int)
    high = np.ceil((field.center + field.size / 2 + margin - origin) / spacing).astype(int) + 1
    low, high = np.maximum(low, 0), np.minimum(high, volume.data.shape)
    affine = volume.affine.copy()
    affine[:3, 3] = origin + low * spacing
    return Volume(volume.data[low[0] : high[0], low[1] : high[1], low[2] : high[2]], affine)


def _write_image(
    out: Path, subject: str, body: Volume, plan: _ImagePlan, *, strength: float, rng: np.random.Generator
) -> Path:
    image, truth = make_image(body, plan.field, plan.contrast, plan.protocol, rng, strength=strength)
    nifti = to_nifti(image, plan.protocol, rng)
    path = out / subject / "anat" / f"{plan.stem}_{plan.suffix}.nii.gz"
    labels = out / "derivatives" / "labels" / subject / "anat"
    write_nifti(path, nifti)
    _write_json(path.with_name(f"{plan.stem}_{plan.suffix}.json"), _sidecar(plan))
    stem = f"{plan.stem}_seg-spine_desc-{plan.suffix}_dseg"
    write_labels(labels / f"{stem}.nii.gz", truth.data, truth.affine, nifti.header)
    source = f"bids:raw:{subject}/anat/{path.name}"
    _write_json(labels / f"{stem}.json", {"Sources": [source], "Description": "Truth of the synthetic image"})
    return path


def _sidecar(plan: _ImagePlan) -> dict[str, Any]:
    """Return metadata of an image that describe it and mark it as synthetic."""
    return {
        "Manufacturer": "none (synthetic image)",
        "SeriesDescription": f"synthetic {plan.contrast} {plan.protocol.plane} {plan.field}",
        "SliceThickness": plan.protocol.thickness,
        "SyntheticContrast": plan.contrast,
        "SyntheticFieldOfView": plan.field,
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")


def _write_root(out: Path, seed: int, *, parametric: bool) -> None:
    """Write the root files of the BIDS dataset and of its derivative."""
    version = totalspineseg_bids.__version__
    made_by = [{"Name": "totalspineseg_bids", "Version": version}]
    origin = "parametric spines" if parametric else "posed label maps"
    _write_json(
        out / "dataset_description.json",
        {
            "Name": f"Synthetic spine MRI (seed {seed})",
            "BIDSVersion": "1.11.0",
            "DatasetType": "raw",
            "License": "CC0" if parametric else "as the label maps it was made from",
            "Authors": ["totalspineseg_bids"],
            "GeneratedBy": made_by,
        },
    )
    write_text(
        out / "README.md",
        f"# Synthetic spine MRI\n\nMade by totalspineseg_bids {version} from {origin}, seed {seed}. No image shows a"
        " person.\nThe truth lies in derivatives/labels, on each image's own grid, with the ids of its dseg.tsv.\n",
    )
    labels = out / "derivatives" / "labels"
    _write_json(
        labels / "dataset_description.json",
        {
            "Name": f"Truth of synthetic spine MRI (seed {seed})",
            "BIDSVersion": "1.11.0",
            "DatasetType": "derivative",
            "GeneratedBy": made_by,
            "DatasetLinks": {"raw": "../.."},
        },
    )
    write_text(labels / "README.md", "# Labels\n\nTruth of the synthetic images: see dseg.tsv for the ids.\n")
    table = ["index\tname\tabbreviation\tcolor"]
    named = (label for label in anatomy.LABELS if not anatomy.is_unnamed(label.id))
    table += [f"{label.id}\t{label.name}\t{label.abbreviation}\t{label.hex_color}" for label in named]
    write_text(labels / "dseg.tsv", "\n".join(table) + "\n")


def _write_participants(out: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table of subjects, with those of earlier calls that this one did not write."""
    path, table = out / "participants.tsv", pd.DataFrame(rows, dtype=object)
    if path.exists():
        # A table from elsewhere in another encoding is ignored.
        earlier = pd.read_csv(path, sep="\t", dtype=str, encoding_errors="replace").reindex(columns=table.columns)
        names = earlier["participant_id"].fillna("")
        present = names.map(lambda name: name != "" and (out / name).is_dir()).astype(bool)
        table = pd.concat([table, earlier[present & ~names.isin(table["participant_id"])]])
    text = table.sort_values("participant_id").to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    write_text(path, text)
    _write_json(
        out / "participants.json",
        {
            "anatomy": {"Description": "What the body was made from"},
            "thoracic": {"Description": "Number of thoracic vertebrae"},
            "lumbar": {"Description": "Number of lumbar vertebrae"},
        },
    )
