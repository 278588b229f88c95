"""Files at the root of the output whose bytes do not depend on the run.

Source: BIDS specification 1.11, derived datasets (``GeneratedBy``, ``DatasetLinks``) and segmentations' look-up tables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.parse import quote

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import LABELS, LabelScheme, itksnap_table, slicer_table
from totalspineseg_bids.bids.names import FIGURES, PROFILE, SEGMENTATION, UNCORRECTED
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.citation import CODE_URL, PROGRAM, PUBLICATIONS, make_bibliography, make_citation
from totalspineseg_bids.files import read_text
from totalspineseg_bids.imaging.atomic import write_text

BIDS_VERSION = "1.11.0"
#: Set by the container recipes; they fill ``GeneratedBy.Container``.
CONTAINER_TYPE = "TOTALSPINESEG_BIDS_CONTAINER_TYPE"
CONTAINER_TAG = "TOTALSPINESEG_BIDS_CONTAINER_TAG"
CONTAINER_URI = "TOTALSPINESEG_BIDS_CONTAINER_URI"
#: An image does not contain its own digest. The program that starts it sets this variable, which completes the URI.
CONTAINER_DIGEST = "TOTALSPINESEG_BIDS_CONTAINER_DIGEST"

_IGNORED = (
    "*.html",
    FIGURES,
    "group_*",
    "logs",
    f"*_{UNCORRECTED}",
    f"*_{PROFILE}.*",
    "*.mrk.json",
    "*.dcm",
    "*.ctbl",
    "*.label",
    # Entities of a source that BIDS allows in no segmentation; the names keep them, because they identify the image.
    *(f"*_{entity}-*" for entity in ("dir", "flip", "inv", "mt")),
    ".*.tmp",
)


#: Suffixes of anatomical images (BIDS specification 1.11, anatomy imaging data).
_SUFFIXES = (
    *("T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "UNIT1", "angio", "MTw"),
    *("T1map", "T2map", "T2starmap", "R1map", "R2map", "R2starmap", "PDmap", "MTRmap", "MTsat", "MTVmap", "Chimap"),
    *("MESE", "MEGRE", "VFA", "IRT1", "MP2RAGE", "MPM", "MTS", "MTR", "TB1map", "M0map", "S0map"),
)


def make_generated_by(environment: Mapping[str, str] | None = None) -> dict[str, object]:
    """Return the ``GeneratedBy`` entry of this program, with the container it runs in.

    Parameters
    ----------
    environment : mapping of str to str, optional
        Environment variables; those of the process by default.
    """
    env = os.environ if environment is None else environment
    entry: dict[str, object] = {
        "Name": PROGRAM,
        "Version": __version__,
        "CodeURL": CODE_URL,
        "Description": "Segmentation and labelling of the spine in MRI with the TotalSpineSeg method",
    }
    fields = {"Type": CONTAINER_TYPE, "Tag": CONTAINER_TAG, "URI": CONTAINER_URI}
    container = {key: env[name] for key, name in fields.items() if env.get(name)}
    if env.get(CONTAINER_DIGEST):
        uri = container.get("URI") or container.get("Tag", "")
        container["URI"] = f"{uri.partition('@')[0]}@{env[CONTAINER_DIGEST]}"
    if env.get("APPTAINER_CONTAINER") or env.get("SINGULARITY_CONTAINER"):
        # Takes precedence over an image built by Docker, whose environment variables remain set.
        container["Type"] = "singularity"
    if container:
        entry["Container"] = container
    return entry


def make_dataset_description(raw: Path, output: Path, raw_name: str | None, license_name: str | None = None) -> str:
    """Return the text of ``dataset_description.json``.

    Parameters
    ----------
    raw, output : Path
        Input dataset and output folder (absolute); the link between them is relative.
    raw_name : str or None
        Name of the input dataset.
    license_name : str or None
        Licence of the input dataset.
    """
    # BIDS asks for URIs, in which spaces and other characters of a path are escaped (RFC 3986).
    link = quote(os.fsencode(Path(os.path.relpath(raw, output)).as_posix()))
    content = {
        "Name": f"Spine segmentation of {raw_name}" if raw_name else "Spine segmentation",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        **({"License": license_name} if license_name else {}),
        "GeneratedBy": [make_generated_by()],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
        "ReferencesAndLinks": [f"{publication.reference} {publication.link}" for publication in PUBLICATIONS],
        "HowToAcknowledge": "Please cite the publications under ReferencesAndLinks.",
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def make_lookup_table(scheme: LabelScheme) -> str:
    """Return the look-up table of all labels as tab-separated text."""
    names = ("index", "name", "abbreviation", "color")
    rows = sorted((label.id_in(scheme), label.name, label.abbreviation, label.hex_color) for label in LABELS)
    return format_table(names, [dict(zip(names, row, strict=True)) for row in rows])


def make_readme(raw_name: str | None) -> str:
    """Return the text of ``README.md``.

    Parameters
    ----------
    raw_name : str or None
        Name of the input dataset.
    """
    of_dataset = f" of the dataset {raw_name}" if raw_name else ""
    return f"""# Spine segmentation{of_dataset}

Vertebrae, intervertebral discs, spinal cord and spinal canal in MRI, segmented and labelled with {PROGRAM}.

- `sub-*.html` shows the results of a participant, `group.html` those of all.
- `sub-*/**/*_seg-{SEGMENTATION}_*_dseg.nii.gz` are the label maps, the tables beside them levels and measures.
- `*_seg-levels_*_dseg.nii.gz` are disc levels as single voxels, `*_probseg.nii.gz` probabilities of cord and canal.
- `group_*.tsv` are tables of all images, described by the JSON files beside them.
- `descriptions.tsv` explains the values of `desc-` in file names.
- `logs/CITATION.md` and `logs/CITATION.bib` have a text for a methods section and the publications to cite.

The data are made from those of the source dataset, under whose licence they are. Research software: not for diagnosis.
"""


def make_descriptions() -> str:
    """Return ``descriptions.tsv``: the meaning of the values of ``desc-``, which are the suffixes of the images."""
    rows = [
        {"desc_id": f"desc-{suffix}", "description": f"Made from the image with the suffix {suffix}"}
        for suffix in _SUFFIXES
    ]
    return format_table(("desc_id", "description"), rows)


def read_dataset_texts(dataset: Path) -> dict[str, str]:
    """Return the fields of ``dataset_description.json`` that are text; empty if there are none that can be read."""
    try:
        content = json.loads(read_text(dataset / "dataset_description.json"))
    except (OSError, ValueError):
        return {}
    fields = content.items() if isinstance(content, dict) else ()
    return {name: text for name, text in fields if isinstance(text, str) and text.strip()}


def write_root_files(raw: Path, output: Path, scheme: LabelScheme, export: Collection[str] = ()) -> None:
    """Write description, ``.bidsignore`` and tables if they are absent or differ, and a README if there is none.

    Parameters
    ----------
    raw, output : Path
        Input dataset and output folder (absolute).
    scheme : LabelScheme
        Label scheme of the look-up table.
    export : collection of str
        Tools for which to write the look-up table too: ``slicer`` (colour table), ``itksnap`` (label descriptions).

    Raises
    ------
    OSError
        If they cannot be written.
    """
    texts = read_dataset_texts(raw)
    name_of_raw = texts.get("Name")
    files = {
        "dataset_description.json": make_dataset_description(
            raw, output, name_of_raw, license_name=texts.get("License")
        ),
        "descriptions.tsv": make_descriptions(),
        "descriptions.json": json.dumps({"Description": "Meaning of the desc- entities"}, indent=2) + "\n",
        ".bidsignore": "\n".join(_IGNORED) + "\n",
        f"seg-{SEGMENTATION}_dseg.tsv": make_lookup_table(scheme),
    }
    for tool, extension, make_table in (("slicer", ".ctbl", slicer_table), ("itksnap", ".label", itksnap_table)):
        name = f"seg-{SEGMENTATION}_dseg{extension}"
        # A table of an earlier run would name the ids of its label scheme.
        if tool in export or (output / name).is_file():
            files[name] = make_table(scheme)
    # Not by a search, because the folder of a large dataset has thousands of entries.
    if not any((output / f"README{extension}").is_file() for extension in ("", ".md", ".rst", ".txt")):
        files["README.md"] = make_readme(name_of_raw)
    _write_changed(output, files)


def write_citation(folder: Path, model: str) -> None:
    """Write a text for a methods section and the references, as Markdown and as BibTeX.

    Parameters
    ----------
    folder : Path
        Folder of both files.
    model : str
        Name of the model set.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    _write_changed(folder, {"CITATION.md": make_citation(model), "CITATION.bib": make_bibliography()})


def _write_changed(folder: Path, files: Mapping[str, str]) -> None:
    # Several processes may start in one folder, so files that are up to date are not rewritten.
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
            write_text(path, text)
