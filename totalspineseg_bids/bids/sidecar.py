"""Content of the sidecars of the derivatives.

Source: BIDS specification 1.11 (``Sources``, ``SpatialReference``, ``Resolution``); the other keys are
specific to this program and are read by the group level and the reports.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import BY_ID, LabelScheme
from totalspineseg_bids.bids.names import DerivativeNames, SourceImage
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.columns import TableColumn, describe_columns
from totalspineseg_bids.measurement.levels import COLUMNS, PROFILE_COLUMNS, LevelMeasures, ProfilePoint
from totalspineseg_bids.segmentation.result import Component, LabelledSpine

#: Columns of the label table that come before the measures, by name and in order.
LABEL_COLUMNS = {
    entry.name: entry
    for entry in (
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
}
_PACKAGES = ("nnunetv2", "torch", "openvino", "numpy", "scipy", "nibabel")


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of everything that a result depends on; a rerun with equal digests is skipped."""

    input: str
    """SHA-256 of the image file, and of the localizer and the companions used with it."""
    config: str
    """SHA-256 of the settings that change results."""
    model: str
    """SHA-256 of the descriptions and weights of the model."""
    corrections: str = ""
    """SHA-256 of the corrections of the image; empty without any."""
    exports: str = ""
    """Tools that files are exported for, separated by spaces."""

    def as_dict(self) -> dict[str, str]:
        """Return the digests as a sidecar holds them."""
        whole = {"Input": self.input, "Configuration": self.config, "Model": self.model}
        further = {"Corrections": self.corrections, "Exports": self.exports}
        return {**whole, **{name: value for name, value in further.items() if value}}

    def of_segmentation(self) -> Digests:
        """Return the digests without what is done after the networks."""
        return Digests(self.input, self.config, self.model)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Provenance of a result."""

    source: SourceImage
    """Source image."""
    model: str
    """Name of the model set."""
    bundled: bool
    """True for the bundled model, which was trained on synthetic images and is meant for trying out the program."""
    digests: Digests
    """Digests of input, settings and model."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Settings that change the result, in readable form."""
    notes: tuple[str, ...] = ()
    """Oddities of the input file."""
    localizer: str | None = None
    """BIDS URI of the localizer labels that were used, if any."""
    labels_digest: str | None = None
    """SHA-256 of the label map before corrections, to which corrections refer; ``None`` without a map."""
    corrections: Mapping[str, object] | None = None
    """What a reader corrected; ``None`` for nothing."""

    @property
    def sources(self) -> list[str]:
        """BIDS URIs of the inputs."""
        return [self.source.uri, *([self.localizer] if self.localizer else [])]


def read_software_versions() -> dict[str, str]:
    """Return the versions of the packages that compute the result, without importing them."""
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
    """Return the rows of the label table: one per component, with its measures.

    Parameters
    ----------
    components : sequence of Component
        Labelled components, in the order of the rows.
    measures : sequence of LevelMeasures
        Measures of the components, in any order.
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
    """Format the label table as text; without rows it consists of its header."""
    return format_table((*LABEL_COLUMNS, *COLUMNS), rows)


def profile_table(points: Sequence[ProfilePoint]) -> str:
    """Format the table of areas along the column as text."""
    return format_table(list(PROFILE_COLUMNS), [point.as_row() for point in points])


def format_value_table(values: Iterable[tuple[int, str, str]]) -> str:
    r"""Format the look-up table of a label map from value, name and colour of its labels.

    >>> format_value_table([(1, "C1", "#ff0000")])
    'index\tname\tcolor\n1\tC1\t#ff0000\n'
    """
    columns = ("index", "name", "color")
    return format_table(columns, [dict(zip(columns, row, strict=True)) for row in values])


def make_main_sidecar(
    provenance: Provenance,
    spine: LabelledSpine,
    *,
    outputs: Sequence[str],
    figures: Mapping[str, str],
    posture: Mapping[str, Any],
    quality: Mapping[str, Any],
    resolution: str | None,
) -> dict[str, Any]:
    """Return the sidecar of the label image; its presence marks the image as complete.

    Parameters
    ----------
    provenance : Provenance
        Provenance of the result.
    spine : LabelledSpine
        Labelled spine.
    outputs : sequence of str
        Paths, below the output folder, of the files written for the image.
    figures : mapping of str to str
        Path of each figure below the output folder, by kind.
    posture : mapping of str to object
        Angles of the whole spine.
    quality : mapping of str to object
        Quality of the image.
    resolution : str or None
        ``res-`` entity of the image; ``None`` for the grid of the source.
    """
    return {
        **make_image_sidecar(provenance, "Vertebrae, discs, spinal cord and canal as labels", resolution),
        "Manual": "EditedMap" in (provenance.corrections or {}),
        "Status": spine.status.value,
        "Reason": spine.reason,
        "Flags": list(spine.flags),
        "InputNotes": list(provenance.notes),
        "LevelsInView": [c.level for c in spine.components if c.level is not None],
        "Posture": dict(posture),
        "ImageQuality": dict(quality),
        "Model": {"Name": provenance.model, "Bundled": provenance.bundled},
        "Settings": dict(provenance.settings),
        "Digests": provenance.digests.as_dict(),
        "LabelsDigest": provenance.labels_digest,
        "Corrections": provenance.corrections,
        "SoftwareUsed": read_software_versions(),
        "Outputs": sorted(outputs),
        "Figures": dict(sorted(figures.items())),
        **describe_label_columns(),
    }


def describe_label_columns() -> dict[str, Any]:
    """Return the data dictionary of the label table."""
    return describe_columns([*LABEL_COLUMNS.values(), *COLUMNS.values()])


def make_image_sidecar(provenance: Provenance, description: str, resolution: str | None) -> dict[str, Any]:
    """Return the entries that the sidecars of all derived images contain."""
    content: dict[str, Any] = {"Description": description, "Sources": provenance.sources}
    if resolution is not None:
        content["Resolution"] = f"{resolution} isotropic, axes along those of the scanner (RAS)"
    content["SpatialReference"] = provenance.source.uri
    return content


def format_json(content: Mapping[str, Any]) -> str:
    """Format the text of a JSON file; keys without a value are omitted."""
    kept = {key: value for key, value in content.items() if value is not None}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"


def derivative_uri(names: DerivativeNames, resolution: str | None) -> str:
    """Return the BIDS URI of a label image of this dataset."""
    return f"bids::{names.labels('.nii.gz', resolution)}"
