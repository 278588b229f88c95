"""The page of a participant."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from markupsafe import Markup
from PIL import Image, UnidentifiedImageError

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import BY_ID, DISC_LEVELS, SCHEME_ALIASES, VERTEBRA_LEVELS, Structure
from totalspineseg_bids.bids.derivatives import ImageDerivatives
from totalspineseg_bids.bids.names import ENTITY_NAMES
from totalspineseg_bids.bids.tables import read_optional_table
from totalspineseg_bids.citation import describe_method
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.measurement.levels import COLUMNS, MEASURES
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS
from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS
from totalspineseg_bids.report.environment import (
    asset,
    environment,
    headline,
    json_block,
    levels_range,
    number,
    present,
)
from totalspineseg_bids.report.figures import VIEWS
from totalspineseg_bids.report.levels_table import confidence_bars, display_name, levels_table
from totalspineseg_bids.report.profile_chart import draw_profile
from totalspineseg_bids.report.viewer import GREY, LABELS, read_layout
from totalspineseg_bids.report.volume import SCRIPT, VOLUME, viewer_assets

#: Digits of the digest of the label map in a table of corrections.
_DIGEST_DIGITS: Final = 16
_CAPTIONS: Final = {
    "sagittal": "Sagittal, curved along the spine",
    "coronal": "Coronal, curved through the vertebral bodies",
    "straight": "Straightened along the canal",
    "axial": "Axial, perpendicular to the canal",
}


#: Hues of Okabe and Ito, Color Universal Design (2008), https://jfly.uni-koeln.de/color/. Vertebrae and discs each
#: cycle through three hues, so that neighbours always differ, also beside a supernumerary level.
_CYCLES: Final = {
    Structure.VERTEBRA: ("#0072b2", "#e69f00", "#009e73"),
    Structure.DISC: ("#56b4e9", "#f0e442", "#d9d9d9"),
    Structure.CORD: ("#ffffff",),
    Structure.CANAL: ("#cc79a7",),
    Structure.SACRUM: ("#d55e00",),
}


@cache
def colour_blind_palette() -> dict[str, str]:
    """Map the colour of each label to its colour-blind-safe substitute, both as ``#rrggbb``.

    Examples
    --------
    >>> colour_blind_palette()[anatomy.vertebra("S").hex_color]
    '#d55e00'
    """
    colours: dict[str, str] = {}
    counts = dict.fromkeys(_CYCLES, 0)
    for label in anatomy.LABELS:
        cycle = _CYCLES[label.structure]
        colours.setdefault(label.hex_color, cycle[counts[label.structure] % len(cycle)])
        counts[label.structure] += 1
    return colours


#: Explanations of the flags of a labelled spine (docs/method.md) and of the notes of `imaging.io.load_image`, without
#: the level or the number behind a colon.
_FINDINGS: Final = MappingProxyType(
    {
        "T13": "thirteen thoracic vertebrae",
        "L6": "six lumbar vertebrae",
        "11-thoracic": "eleven thoracic vertebrae",
        "4-lumbar": "four lumbar vertebrae",
        "missing-disc": "no disc was found there, as between fused vertebrae",
        "split-disc": "found in one piece with its neighbour and divided",
        "joined-disc": "found in pieces and joined",
        "fused-vertebra": "two vertebrae without a disc between them, divided equally",
        "odd-size": "much larger or smaller than its neighbours",
        "sliver": "the field of view shows less than a tenth of it",
        "false-disc": "something like a disc that does not fit the column was left out",
        "false-vertebra": "something like a vertebra that does not fit the column was left out",
        "doubtful-levels": "the table names the levels that may be wrong, and why",
        "session-disagrees": "another image of this session names the same structures differently",
        "step2-empty": "the second network found nothing; labels and shapes come from the first one",
        "coarse-model": "levels only; the shapes are not to be measured",
        "corrected": "by a reader",
        "sheared-affine": "the axes in the header are not perpendicular; ITK and programs built on it read neither "
        "image nor labels, but labels on the 1 mm grid (--output-resolution both)",
        "qform-sform-differ": "qform and sform of the header place the image differently; the sform is used here, "
        "other programs may use the qform",
        "no-orientation-in-header": "the header does not say which way the image lies; check that head and feet, and "
        "left and right, are not exchanged",
        "intensities-scaled": "tiny or huge values were multiplied by this factor",
        "volume": "the series has several volumes; this one, or their mean, was processed",
        "intensity-outliers": "that many voxels are far brighter or darker than the rest; they were clipped",
        "non-finite-voxels": "that many voxels are NaN or infinite; they were replaced",
    }
)


def describe_finding(flag: str) -> str:
    """Return the explanation of a finding, or an empty text if there is none.

    Examples
    --------
    >>> describe_finding("non-finite-voxels:12")
    'that many voxels are NaN or infinite; they were replaced'
    """
    return _FINDINGS.get(flag.partition(":")[0], "")


def write_subject_report(
    path: Path,
    participant: str,
    images: Sequence[ImageDerivatives],
    *,
    band: Sequence[Mapping[str, str]] = (),
    self_contained: bool = False,
) -> None:
    """Write the page of a participant.

    Parameters
    ----------
    path : Path
        Destination, in the folder of the derivatives; written atomically.
    participant : str
        Label with prefix, such as ``sub-01``.
    images : sequence of ImageDerivatives
        Images to show, in order.
    band : sequence of mapping of str to str
        Rows of the table of areas along the column of a group, to draw behind those of each image.
    self_contained : bool
        Embed the full-resolution viewer and its data too, so that the page is a single file.

    Raises
    ------
    OSError
        If the page cannot be written.
    """
    template = environment().get_template("subject.html.j2")
    text = template.render(
        title=f"{participant}: spine report",
        participant=participant,
        bundled=any(image.bundled for image in images),
        images=[
            _image(n, image, path.parent, band, self_contained=self_contained)
            for n, image in enumerate(images, start=1)
        ],
        embedded=_embedded(images, path.parent) if self_contained else [],
        methods=_methods(images),
        colours=json_block(colour_blind_palette()),
        dictionary=[(name, {"Units": "", **COLUMNS[name].describe()}) for name in MEASURES],
        level_names=json_block({"vertebra": VERTEBRA_LEVELS, "sacrum": ["S"], "disc": DISC_LEVELS}),
        script=asset("subject.js") + asset("viewer.js") + asset("full_viewer.js") + asset("corrections.js"),
    )
    write_bytes(path, text.encode())


def _methods(images: Sequence[ImageDerivatives]) -> list[str]:
    """Describe the method for a methods section, once per model."""
    return [describe_method(model) for model in sorted({_model(image) for image in images} - {""})]


def _model(image: ImageDerivatives) -> str:
    return image.model + (" (trained on synthetic images, for trying out)" if image.bundled else "")


def _image(
    number: int, image: ImageDerivatives, folder: Path, band: Sequence[Mapping[str, str]], *, self_contained: bool
) -> dict[str, Any]:
    named = [(ENTITY_NAMES.get(key, key), value) for key, value in image.source.entities.items() if key != "sub"]
    entities = [*named, ("suffix", image.source.suffix)]
    corrections = _corrections(image)
    return {
        "title": image.source.name,
        "short": " ".join(value for _, value in entities),
        "status": image.status,
        "headline": headline(image.status),
        "reason": present(image.reason),
        "entities": entities,
        "seen": levels_range([present(row.get("level")) for row in image.rows]),
        "flags": [(flag, describe_finding(flag)) for flag in image.flags],
        "certainty": confidence_bars(image.rows, number),
        "views": _views(image, folder),
        "volume": _volume(image, folder),
        "full": _full(image, folder, self_contained=self_contained),
        "table": levels_table(image.rows, number),
        "profile": draw_profile(read_optional_table(folder / image.names.profile(".tsv")), band),
        "correct": _correct(image, corrections),
        "corrections": [_describe_correction(row) for row in corrections],
        "edited_map": Path(image.corrections.get("EditedMap", "")).name,
        "posture": _posture(image.measures),
        "quality": _quality(image.measures),
        "provenance": _provenance(image),
    }


def _provenance(image: ImageDerivatives) -> list[tuple[str, str]]:
    """Return the entries on provenance, with their headings."""
    entries = {"Source": image.source.relative, "Model": _model(image)}
    for key, title in (("Digests", " digest"), ("Settings", ""), ("SoftwareUsed", "")):
        value = image.sidecar.get(key)
        if isinstance(value, Mapping):
            entries |= {f"{name}{title}": _text(item) for name, item in value.items() if item is not None}
    entries["label_scheme"] = SCHEME_ALIASES.get(entries.get("label_scheme", ""), entries.get("label_scheme", ""))
    return [(key, value) for key, value in entries.items() if value]


def _text(value: object) -> str:
    """Write a value of a sidecar for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _corrections(image: ImageDerivatives) -> list[dict[str, str]]:
    """Return the corrections that were applied as lines of a table of corrections, without the image."""
    cells = {"label": "Label", "correction": "Correction", "scope": "Scope", "map": "LabelsDigest", "note": "Note"}
    return [{name: row.get(key, "") for name, key in cells.items()} for row in image.corrections.get("Rows", ())]


def _correct(image: ImageDerivatives, corrections: Sequence[Mapping[str, str]]) -> str | None:
    """Return what the form of corrections needs, as JSON; ``None`` if there is nothing to correct."""
    kinds = ("vertebra", "disc", "sacrum")
    structures = [
        (present(row.get("name")), display_name(present(row.get("abbreviation"))), present(row.get("structure")))
        for row in image.rows
        if present(row.get("structure")) in kinds
    ]
    digest = str(image.sidecar.get("LabelsDigest") or "")[:_DIGEST_DIGITS]
    if not digest or not structures:
        return None
    content = {"image": image.source.name, "map": digest, "rows": corrections, "structures": structures}
    return json.dumps(content, separators=(",", ":"))


def _describe_correction(row: Mapping[str, str]) -> str:
    follows = {"column": ", all levels follow", "above": ", all above follow", "below": ", all below follow"}
    note = f" ({row['note']})" if row.get("note") else ""
    return f"{row['label']} is {row['correction']}{follows.get(row.get('scope', ''), '')}{note}"


def _posture(entries: Mapping[str, str]) -> list[dict[str, str]]:
    """Select and format the alignment angles among the measures of an image."""
    levels = present(entries.get("coronal-cobb-levels"))
    found = []
    for name, entry in POSTURE_COLUMNS.items():
        value = number(entries.get(name))
        if value is None:
            continue
        text = f"{value:.0f}°" + (f" ({levels})" if name == "coronal-cobb-deg" and levels else "")
        found.append({"name": entry.title, "value": text, "description": entry.description})
    return found


def _quality(entries: Mapping[str, str]) -> list[dict[str, str]]:
    """Select the measures of image quality among the measures of an image."""
    return [
        {"name": column.title, "value": entries[name], "description": column.description}
        for name, column in QUALITY_COLUMNS.items()
        if number(entries.get(name)) is not None
    ]


def _views(image: ImageDerivatives, folder: Path) -> list[dict[str, Any]]:
    views = []
    for view in VIEWS:
        if view not in image.figures:
            continue
        sources = [_source(image.figures.get(view + layer), folder) for layer in ("", "-fill", "-lines")]
        if sources[0] is None:
            continue
        views.append(
            {
                "base": sources[0][0],
                "size": sources[0][1],
                "fill": sources[1][0] if sources[1] else None,
                "lines": sources[2][0] if sources[2] else None,
                "alt": f"{_CAPTIONS[view]}: {image.source.name}",
                "caption": _CAPTIONS[view],
                "wide": view == "axial",
            }
        )
    return views


def _volume(image: ImageDerivatives, folder: Path) -> dict[str, str] | None:
    """Return the data of the viewer: image, labels, arrangement of the mosaic, and names; ``None`` without it."""
    grey, labels = _source(image.figures.get(GREY), folder), image.figures.get(LABELS)
    if grey is None or labels is None:
        return None
    try:
        content = (folder / labels).read_bytes()
    except OSError:
        return None
    found = read_layout(content)
    if found is None:
        return None
    layout, ids = found
    sure = {present(row.get("name")): number(row.get("confidence")) for row in image.rows}
    known = [BY_ID[i] for i in ids if i in BY_ID]
    names = [[k.id, display_name(k.abbreviation), k.hex_color, k.structure.text, sure.get(k.name)] for k in known]
    return {
        "grey": grey[0],
        "labels": f"data:image/png;base64,{base64.b64encode(content).decode()}",
        "layout": json.dumps(layout, separators=(",", ":")),
        "names": json.dumps(names, separators=(",", ":")),
    }


def _full(image: ImageDerivatives, folder: Path, *, self_contained: bool) -> dict[str, str] | None:
    """Return the scripts of the full-resolution viewer; ``None`` if the image has none or a file is missing."""
    path = image.figures.get(VOLUME)
    if path is None or not (folder / path).is_file():
        return None
    key = Path(path).stem.removesuffix(f"_{VOLUME}")
    if self_contained:
        return {"key": key, "path": "", "script": ""}
    return {"key": key, "path": path, "script": SCRIPT} if (folder / SCRIPT).is_file() else None


def _embedded(images: Sequence[ImageDerivatives], folder: Path) -> list[Markup]:
    """Return the scripts of a self-contained page: the viewer and the data of each image."""
    data = [folder / path for image in images if (path := image.figures.get(VOLUME))]
    texts = [path.read_text(encoding="utf-8") for path in data if path.is_file()]
    scripts = [viewer_assets()[SCRIPT].decode(), *texts] if texts and viewer_assets() else []
    return [Markup(text) for text in scripts]  # noqa: S704 - scripts of this program, without "</script"


def _source(name: str | None, folder: Path) -> tuple[str, tuple[int, int]] | None:
    """Return the ``src`` and the size of a picture; ``None`` if the file is missing or damaged."""
    if name is None:
        return None
    try:
        content = (folder / name).read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            size, kind = picture.size, (picture.format or "PNG").lower()
    except (OSError, UnidentifiedImageError):
        return None
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}", size
