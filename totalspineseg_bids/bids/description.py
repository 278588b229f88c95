"""Files at the root of the output whose bytes do not depend on the run.

Source: BIDS specification 1.11, derived datasets (``GeneratedBy``, ``DatasetLinks``) and segmentations' look-up tables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import LABELS, LabelScheme
from totalspineseg_bids.bids.names import FIGURES, SEGMENTATION, UNCORRECTED
from totalspineseg_bids.files import read_text
from totalspineseg_bids.imaging.atomic import write_text

BIDS_VERSION = "1.11.0"
PROGRAM = "totalspineseg_bids"
#: Set by the container recipes; they fill ``GeneratedBy.Container``.
CONTAINER_TYPE = "TOTALSPINESEG_BIDS_CONTAINER_TYPE"
CONTAINER_TAG = "TOTALSPINESEG_BIDS_CONTAINER_TAG"
CONTAINER_URI = "TOTALSPINESEG_BIDS_CONTAINER_URI"
#: An image does not contain its own digest. The program that starts it sets this variable, which completes the URI.
CONTAINER_DIGEST = "TOTALSPINESEG_BIDS_CONTAINER_DIGEST"

_REFERENCES = (
    (
        "Warszawer Y, Molinier N, Valošek J, Shirbint E, Benveniste PL, Achiron A, Eshaghi A, Cohen-Adad J. Fully "
        "Automatic Vertebrae and Spinal Cord Segmentation Using a Hybrid Approach Combining nnU-Net and Iterative "
        "Algorithm. ISMRM 2024"
    ),
    "https://doi.org/10.1038/s41592-020-01008-z",
)
_IGNORED = ("*.html", FIGURES, "group_*", "logs", f"*_{UNCORRECTED}", ".*.tmp")


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


def make_dataset_description(
    raw: Path, output: Path, raw_name: str | None, environment: Mapping[str, str] | None = None
) -> str:
    """Return the text of ``dataset_description.json``.

    Parameters
    ----------
    raw, output : Path
        Input dataset and output folder (absolute); the link between them is relative.
    raw_name : str or None
        Name of the input dataset.
    environment : mapping of str to str, optional
        Environment variables; those of the process by default.
    """
    link = Path(os.path.relpath(raw, output)).as_posix()
    content = {
        "Name": f"Spine segmentation of {raw_name}" if raw_name else "Spine segmentation",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [make_generated_by(environment)],
        "SourceDatasets": [{"URL": link}],
        "DatasetLinks": {"raw": link},
        "ReferencesAndLinks": list(_REFERENCES),
        "HowToAcknowledge": "Please cite the publications under ReferencesAndLinks.",
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def make_lookup_table(scheme: LabelScheme) -> str:
    """Return the look-up table of all labels as tab-separated text."""
    rows = sorted((label.id_in(scheme), label) for label in LABELS)
    lines = ["index\tname\tabbreviation\tcolor"]
    lines += [f"{index}\t{label.name}\t{label.abbreviation}\t{label.hex_color}" for index, label in rows]
    return "\n".join(lines) + "\n"


def read_dataset_name(dataset: Path) -> str | None:
    """Return the ``Name`` of a dataset; ``None`` if it has none that can be read."""
    try:
        content = json.loads(read_text(dataset / "dataset_description.json"))
    except (OSError, ValueError):
        return None
    name = content.get("Name") if isinstance(content, dict) else None
    return name if isinstance(name, str) and name.strip() else None


def write_root_files(raw: Path, output: Path, scheme: LabelScheme) -> None:
    """Write description, ``.bidsignore`` and look-up table if they are absent or differ.

    Parameters
    ----------
    raw, output : Path
        Input dataset and output folder (absolute).
    scheme : LabelScheme
        Label scheme of the look-up table.

    Raises
    ------
    OSError
        If they cannot be written.
    """
    files = {
        "dataset_description.json": make_dataset_description(raw, output, read_dataset_name(raw)),
        ".bidsignore": "\n".join(_IGNORED) + "\n",
        f"seg-{SEGMENTATION}_dseg.tsv": make_lookup_table(scheme),
    }
    for name, text in files.items():
        path = output / name
        # Several processes may start in one folder, so files that are up to date are not rewritten.
        if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
            write_text(path, text)
