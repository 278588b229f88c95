"""The page of a participant."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image, UnidentifiedImageError

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import BY_ID
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.measurement.levels import COLUMNS, MEASURES
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS
from totalspineseg_bids.report.environment import (
    asset,
    environment,
    headline,
    is_bundled,
    is_true,
    json_block,
    levels_range,
    number,
    present,
    unit_symbol,
)
from totalspineseg_bids.report.figures import VIEWS
from totalspineseg_bids.report.image_report import ImageReport
from totalspineseg_bids.report.palette import colour_blind_palette
from totalspineseg_bids.report.viewer import GREY, LABELS, read_layout

_CAPTIONS: Final = {
    "sagittal": "Sagittal, curved along the spine",
    "coronal": "Coronal, curved through the vertebral bodies",
    "straight": "Straightened along the canal",
    "axial": "Axial, perpendicular to the canal",
}
_SHORT_NAMES: Final = {
    "volume-mm3": "Volume",
    "height-mm": "Mean height",
    "height-anterior-mm": "Anterior h.",
    "height-middle-mm": "Middle h.",
    "height-posterior-mm": "Posterior h.",
    "height-index": "Height index",
    "slip-mm": "Slip",
    "wedge-deg": "Wedge",
    "canal-area-mm2": "Canal area",
    "canal-ap-mm": "Canal AP",
    "canal-lr-mm": "Canal LR",
    "cord-area-mm2": "Cord area",
    "cord-ap-mm": "Cord AP",
    "cord-lr-mm": "Cord LR",
    "cord-canal-ratio": "Cord / canal",
}
_GROUPS: Final = (("vertebra", "Vertebrae"), ("sacrum", "Vertebrae"), ("disc", "Discs"), ("spinal_", "Cord and canal"))


def write_subject_report(
    path: Path,
    participant: str,
    images: Sequence[ImageReport],
    *,
    group_page: str | None = None,
    inline_figures: bool = True,
) -> None:
    """Write the page of a participant.

    Parameters
    ----------
    path
        The page; written atomically.
    participant
        Its name, such as ``sub-01``.
    images
        What to show, in order.
    group_page
        Relative path of the group page to link to.
    inline_figures
        Put the figures into the page, so that it is one file to send; otherwise they are linked to.

    Raises
    ------
    OSError
        If the page cannot be written.
    """
    template = environment().get_template("subject.html.j2")
    text = template.render(
        title=f"{participant}: spine report",
        participant=participant,
        group_page=group_page,
        bundled=any(is_bundled(image.provenance) for image in images),
        images=[_image(n, image, path.parent, inline=inline_figures) for n, image in enumerate(images, start=1)],
        methods=_methods(images),
        colours=json_block(colour_blind_palette()),
        dictionary=[(name, {"Units": "", **COLUMNS[name].describe()}) for name in MEASURES],
        script=asset("subject.js") + asset("viewer.js"),
    )
    write_bytes(path, text.encode())


def _methods(images: Sequence[ImageReport]) -> list[str]:
    """Say what was done, for a methods section, once for each model that was used."""
    models = sorted({image.provenance["Model"] for image in images if image.provenance.get("Model")})
    return [
        f"Vertebrae, intervertebral discs, spinal cord and spinal canal were segmented and labelled with"
        f" totalspineseg_bids {__version__} (model {model}), which follows TotalSpineSeg (Warszawer et al., 2024) and"
        " uses nnU-Net (Isensee et al., 2021): a first network finds the structures and landmark discs, a second one"
        " parts neighbouring vertebrae, and the levels are named from all landmarks together; where they do not decide,"
        " no level is given. Body and disc heights, wedge angles and slip were measured in the frame of each level;"
        " areas and diameters of canal and cord perpendicular to the centreline of the canal. Levels that the field of"
        " view cuts were left out."
        for model in models
    ]


def _image(number: int, image: ImageReport, folder: Path, *, inline: bool) -> dict[str, Any]:
    entities = [(key, value) for key, value in image.entities.items() if key != "subject" and value]
    levels = [row.get("level") or _level_of(row) for row in image.rows]
    return {
        "title": image.title,
        "short": " ".join(value for _, value in entities) or image.title,
        "status": image.status,
        "headline": headline(image.status),
        "reason": present(image.reason),
        "entities": entities,
        "seen": levels_range(levels),
        "flags": list(image.flags),
        "certainty": _certainty(image.rows, number),
        "views": _views(image, folder, inline=inline),
        "volume": _volume(image, folder),
        "table": _table(image.rows, number),
        "posture": _posture(image.provenance),
        "provenance": [(k, v) for k, v in image.provenance.items() if str(v) and k not in POSTURE_COLUMNS],
    }


def _posture(entries: Mapping[str, str]) -> list[dict[str, str]]:
    """Pick the angles of the column out of what is known about an image."""
    levels = present(entries.get("coronal-cobb-levels"))
    found = []
    for name, entry in POSTURE_COLUMNS.items():
        value = number(entries.get(name))
        if value is None:
            continue
        text = f"{value:.0f}°" + (f" ({levels})" if name == "coronal-cobb-deg" and levels else "")
        found.append({"name": entry.title, "value": text, "description": entry.description})
    return found


def _level_of(row: Mapping[str, str]) -> str:
    name = present(row.get("name"))
    return "S" if name == "sacrum" else name.removeprefix("vertebrae_")


def _views(image: ImageReport, folder: Path, *, inline: bool) -> list[dict[str, Any]]:
    views = []
    for view in VIEWS:
        if view not in image.figures:
            continue
        sources = [_source(image.figures.get(view + layer), folder, inline=inline) for layer in ("", "-fill", "-lines")]
        if sources[0] is None:
            continue
        views.append(
            {
                "base": sources[0][0],
                "size": sources[0][1],
                "fill": sources[1][0] if sources[1] else None,
                "lines": sources[2][0] if sources[2] else None,
                "alt": f"{_CAPTIONS[view]}: {image.title}",
                "caption": _CAPTIONS[view],
                "wide": view == "axial",
            }
        )
    return views


def _volume(image: ImageReport, folder: Path) -> dict[str, str] | None:
    """Return what the viewer takes: image and labels inside the page, their layout, and the names of the labels."""
    grey, labels = _source(image.figures.get(GREY), folder, inline=True), image.figures.get(LABELS)
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
    names = [[k.id, _label_name(k.abbreviation), k.hex_color, k.structure.value, sure.get(k.name)] for k in known]
    return {
        "grey": grey[0],
        "labels": f"data:image/png;base64,{base64.b64encode(content).decode()}",
        "layout": json.dumps(layout, separators=(",", ":")),
        "names": json.dumps(names, separators=(",", ":")),
    }


def _certainty(rows: Sequence[Mapping[str, str]], image: int) -> list[list[dict[str, Any]]]:
    """Return vertebrae and discs with their confidence, each in a line of its own, in the order of the table."""
    lines: dict[str, list[dict[str, Any]]] = {"Vertebrae": [], "Discs": []}
    for position, row in enumerate(rows):
        group = _group(row)
        if group not in lines:
            continue
        entry = _row(row, (), _anchor(image, position))
        sure = entry["confidence"]
        words = [entry["label"], "no level" if sure is None else f"confidence {sure:.2f}"]
        # A body that is measured is whole, whatever is cut of the arch; the remarks say that.
        cut = entry["partial"] and number(row.get("height-mm")) is None
        words += ["cut by the field of view"] if cut else []
        lines[group].append(
            {**entry, "partial": cut, "title": ", ".join([*words, *([entry["note"]] if entry["note"] else [])])}
        )
    return [line for line in lines.values() if line]


def _anchor(image: int, position: int) -> str:
    return f"image-{image}-row-{position + 1}"


def _label_name(abbreviation: str) -> str:
    return {"SC": "Spinal cord", "canal": "Spinal canal", "S": "Sacrum"}.get(abbreviation, abbreviation)


def _source(name: str | None, folder: Path, *, inline: bool) -> tuple[str, tuple[int, int] | None] | None:
    """Return what goes into ``src`` and the size of the picture; ``None`` where there is no such file."""
    if name is None:
        return None
    try:
        content = (folder / name).read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            size, kind = picture.size, (picture.format or "PNG").lower()
    except (OSError, UnidentifiedImageError):
        return None
    if not inline:
        return name, size
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}", size


def _table(rows: Sequence[Mapping[str, str]], image: int) -> dict[str, Any]:
    """Arrange rows in groups; columns without any value are left out."""
    names = [name for name in MEASURES if any(present(row.get(name)) for row in rows)]
    columns = [
        {
            "name": _SHORT_NAMES.get(name, COLUMNS[name].title),
            "unit": unit_symbol(COLUMNS[name].unit),
            "description": COLUMNS[name].description,
        }
        for name in names
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for position, row in enumerate(rows):
        groups.setdefault(_group(row), []).append(_row(row, names, _anchor(image, position)))
    ordered = [name for _, name in _GROUPS] + list(groups)
    return {
        "columns": columns,
        "groups": [{"name": name, "rows": groups[name]} for name in dict.fromkeys(ordered) if name in groups],
        "has_notes": any(entry["note"] for group in groups.values() for entry in group),
    }


def _group(row: Mapping[str, str]) -> str:
    text = present(row.get("structure")) or present(row.get("name"))
    return next((name for start, name in _GROUPS if text.startswith(start)), "Other")


def _row(row: Mapping[str, str], names: Sequence[str], anchor: str) -> dict[str, Any]:
    partial = is_true(row.get("partial"))
    color = present(row.get("color"))
    runner_up, confidence = present(row.get("runner-up")), number(row.get("confidence"))
    remarks = [present(row.get("reason")), present(row.get("measure-note"))]
    if runner_up and (confidence is None or confidence < 0.9):
        remarks.insert(0, f"or {runner_up}")
    text = present(row.get("abbreviation")) or present(row.get("name")) or present(row.get("index"))
    return {
        "anchor": anchor,
        "label": _label_name(text),
        "color": color if _is_color(color) else "#888888",
        "confidence": confidence,
        "partial": partial,
        "cells": [_cell(row.get(name), name) for name in names],
        "note": "; ".join(remark for remark in dict.fromkeys(remarks) if remark),
    }


def _is_color(text: str) -> bool:
    digits = text.removeprefix("#")
    return text.startswith("#") and len(digits) == 6 and all(d in "0123456789abcdefABCDEF" for d in digits)


def _cell(value: str | None, name: str) -> str:
    found = number(value)
    if found is None:
        return "–"
    if name == "volume-mm3":
        # A space that does not break, as the SI asks for.
        return f"{found:,.0f}".replace(",", "\u202f")
    return f"{found:.2f}" if name in {"height-index", "cord-canal-ratio"} else f"{found:.1f}"
