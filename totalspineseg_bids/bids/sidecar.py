"""Content of the sidecars of the derivatives.

Source: BIDS specification 1.11 (``Sources``, ``SpatialReference``, ``Resolution``); the other keys are
specific to this program and are read by the group level and the reports.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import BY_ID, LabelScheme
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.columns import TableColumn, describe_columns
from totalspineseg_bids.files import installed_version
from totalspineseg_bids.measurement.levels import COLUMNS, LevelMeasures
from totalspineseg_bids.segmentation.result import Component

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
#: Data dictionary of the label table.
LABEL_DICTIONARY = describe_columns([*LABEL_COLUMNS.values(), *COLUMNS.values()])
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


def read_software_versions() -> dict[str, str]:
    """Return the versions of the packages that compute the result, without importing them."""
    versions = {"totalspineseg_bids": __version__, "python": platform.python_version()}
    installed = ((package, installed_version(package)) for package in _PACKAGES)
    return {**versions, **{package: version for package, version in installed if version}}


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


def format_value_table(values: Iterable[tuple[int, str, str]]) -> str:
    r"""Format the look-up table of a label map from value, name and colour of its labels.

    >>> format_value_table([(1, "C1", "#ff0000")])
    'index\tname\tcolor\n1\tC1\t#ff0000\n'
    """
    columns = ("index", "name", "color")
    return format_table(columns, [dict(zip(columns, row, strict=True)) for row in values])


def make_image_sidecar(description: str, sources: Sequence[str], resolution: str | None) -> dict[str, Any]:
    """Return the entries that the sidecars of all derived images contain.

    Parameters
    ----------
    description : str
        Content of the image.
    sources : sequence of str
        BIDS URIs of the inputs, the image first.
    resolution : str or None
        ``res-`` entity of the image; ``None`` for the grid of the source.
    """
    content: dict[str, Any] = {"Description": description, "Sources": list(sources)}
    if resolution is not None:
        content["Resolution"] = f"{resolution} isotropic, axes along those of the scanner (RAS)"
    content["SpatialReference"] = sources[0]
    return content


def format_json(content: Mapping[str, Any]) -> str:
    """Format the text of a JSON file; keys without a value are omitted."""
    kept = {key: value for key, value in content.items() if value is not None}
    return json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
