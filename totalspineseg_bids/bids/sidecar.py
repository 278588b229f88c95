"""What the sidecars of the derivatives say.

Source: BIDS specification 1.10 (``Sources``, ``SpatialReference``, ``Resolution``); the other keys are this
program's own and are read again by the group level and the reports.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import BY_ID, LabelScheme
from totalspineseg_bids.bids.names import DerivativeNames, SourceImage
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.columns import TableColumn, describe_columns, index_columns
from totalspineseg_bids.measurement.levels import COLUMNS, LevelMeasures
from totalspineseg_bids.segmentation.result import Component, LabelledSpine

#: Columns of the label table that come before the measures, by name and in order.
LABEL_COLUMNS = index_columns(
    TableColumn("index"),
    TableColumn("name"),
    TableColumn("abbreviation"),
    TableColumn("color"),
    TableColumn("structure", "Kind of structure: vertebra, sacrum, disc, spinal_cord or spinal_canal"),
    TableColumn("level", "Anatomical level; n/a where it has none or the evidence does not decide it"),
    TableColumn(
        "confidence",
        "How sure the level is, from 0 to 1; n/a for structures without a level",
        kind="number",
        decimals=3,
    ),
    TableColumn("runner-up", "The next best level"),
    TableColumn("reason", "Why there is no level, or why it is doubtful"),
)
_PACKAGES = ("nnunetv2", "torch", "openvino", "numpy", "scipy", "nibabel")


@dataclass(frozen=True, slots=True)
class Digests:
    """What a result depends on; a rerun with the same three has nothing to do.

    Attributes
    ----------
    input, config, model
        SHA-256 of the image file (and of the localizer used with it), of the settings, and of the model's weights.
    """

    input: str
    config: str
    model: str

    def as_dict(self) -> dict[str, str]:
        """Return the digests as a sidecar holds them."""
        return {"Input": self.input, "Configuration": self.config, "Model": self.model}


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a result comes from."""

    source: SourceImage
    """The image."""
    model: str
    """Name of the model set."""
    bundled: bool
    """Whether that is the one for trying out, trained on synthetic images."""
    digests: Digests
    """What it depends on."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings that change the result, for a person to read."""
    notes: tuple[str, ...] = ()
    """Oddities of the input file."""
    localizer: str | None = None
    """BIDS URI of the labels that helped, where there were any."""

    @property
    def sources(self) -> list[str]:
        """BIDS URIs of what went in."""
        return [self.source.uri, *([self.localizer] if self.localizer else [])]


def read_software_versions() -> dict[str, str]:
    """Return the versions of what computes the result (without importing any of it)."""
    versions = {"totalspineseg_bids": __version__, "python": platform.python_version()}
    installed = ((package, _version(package)) for package in _PACKAGES)
    return {**versions, **{package: version for package, version in installed if version}}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def make_label_rows(
    components: Sequence[Component], measures: Sequence[LevelMeasures], scheme: LabelScheme
) -> list[dict[str, str]]:
    """Return the rows of the label table: one a component, its ids in ``scheme``, with its measures.

    Parameters
    ----------
    components : sequence of Component
        What was found, in the order of the rows.
    measures : sequence of LevelMeasures
        Their measures, in any order.
    scheme : LabelScheme
        Label scheme of the output.
    """
    by_label = {row.label_id: row for row in measures}
    rows = []
    for component in components:
        label = BY_ID[component.label_id]
        has_level = component.level is not None
        row = {
            "index": str(label.id_in(scheme)),
            "name": label.name,
            "abbreviation": label.abbreviation,
            "color": label.hex_color,
            "structure": component.structure.text,
            "level": component.level or "",
            "confidence": LABEL_COLUMNS["confidence"].format(component.confidence) if has_level else "",
            "runner-up": component.runner_up or "",
            "reason": component.reason or "",
        }
        if component.label_id in by_label:
            row.update(by_label[component.label_id].as_row())
        else:
            row["volume-mm3"] = COLUMNS["volume-mm3"].format(component.volume_mm3)
        rows.append(row)
    return rows


def label_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the label table as text; without rows it is its header."""
    return format_table((*LABEL_COLUMNS, *COLUMNS), rows)


def make_main_sidecar(
    provenance: Provenance,
    spine: LabelledSpine,
    *,
    outputs: Sequence[str],
    figures: Mapping[str, str],
    posture: Mapping[str, Any],
    resolution: str | None,
) -> dict[str, Any]:
    """Return the sidecar of the label image, whose presence says that the image is done.

    Parameters
    ----------
    provenance : Provenance
        Where the result comes from.
    spine : LabelledSpine
        The result.
    outputs : sequence of str
        Names, below the output folder, of the files written for the image.
    figures : mapping of str to str
        Path of each figure below the output folder, by kind.
    posture : mapping of str to object
        Angles of the whole spine.
    resolution : str or None
        ``res-`` entity of the image, ``None`` on the grid of the source.
    """
    return {
        **make_image_sidecar(provenance, "Vertebrae, discs, spinal cord and canal as labels", resolution),
        "Manual": False,
        "Status": spine.status.value,
        "Reason": spine.reason,
        "Flags": list(spine.flags),
        "InputNotes": list(provenance.notes),
        "LevelsInView": [c.level for c in spine.components if c.level is not None],
        "Posture": dict(posture),
        "Model": {"Name": provenance.model, "Bundled": provenance.bundled},
        "Settings": dict(provenance.settings),
        "Digests": provenance.digests.as_dict(),
        "SoftwareUsed": read_software_versions(),
        "Outputs": sorted(outputs),
        "Figures": dict(sorted(figures.items())),
        **describe_label_columns(),
    }


def describe_label_columns() -> dict[str, Any]:
    """Return the data dictionary of the label table."""
    return describe_columns([*LABEL_COLUMNS.values(), *COLUMNS.values()])


def make_image_sidecar(provenance: Provenance, description: str, resolution: str | None) -> dict[str, Any]:
    """Return what the sidecar of every derived image says."""
    content: dict[str, Any] = {"Description": description, "Sources": provenance.sources}
    if resolution is not None:
        content["Resolution"] = f"{resolution} isotropic, axes along those of the scanner (RAS)"
    content["SpatialReference"] = provenance.source.uri
    return content


def format_json(content: Mapping[str, Any]) -> str:
    """Return the text of a JSON file; keys without a value are left out."""
    kept = {key: value for key, value in content.items() if value is not None}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"


def derivative_uri(names: DerivativeNames, resolution: str | None) -> str:
    """Return the BIDS URI of a label image of this dataset."""
    return f"bids::{names.labels('.nii.gz', resolution)}"
