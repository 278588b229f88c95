"""Confidence bars and table of measures of one image on the page of a participant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from totalspineseg_bids.measurement.levels import COLUMNS, MEASURES
from totalspineseg_bids.report.environment import is_true, number, present, unit_symbol

_SHORT_NAMES: Final = {
    "height-anterior-mm": "Anterior h.",
    "height-middle-mm": "Middle h.",
    "height-posterior-mm": "Posterior h.",
    "height-index": "Height index",
    "slip-mm": "Slip",
    "wedge-deg": "Wedge",
    "foramen-left-mm": "Foramen left",
    "foramen-right-mm": "Foramen right",
    "canal-ap-mm": "Canal AP",
    "canal-lr-mm": "Canal LR",
    "cord-ap-mm": "Cord AP",
    "cord-lr-mm": "Cord LR",
    "cord-canal-ratio": "Cord / canal",
}
_GROUPS: Final = (("vertebra", "Vertebrae"), ("sacrum", "Vertebrae"), ("disc", "Discs"), ("spinal_", "Cord and canal"))


def confidence_bars(rows: Sequence[Mapping[str, str]], image: int) -> list[list[dict[str, Any]]]:
    """Return the confidence of each level: one list of vertebrae and one of discs, in the order of the table."""
    lines: dict[str, list[dict[str, Any]]] = {"Vertebrae": [], "Discs": []}
    for position, row in enumerate(rows):
        group = _group(row)
        if group not in lines:
            continue
        entry = _row(row, (), _anchor(image, position))
        sure = entry["confidence"]
        words = [entry["label"], "no level" if sure is None else f"confidence {sure:.2f}"]
        # A measured body is complete even if the posterior elements are cut off, which the remarks state.
        cut = entry["partial"] and number(row.get("height-mm")) is None
        words += ["cut by the field of view"] if cut else []
        lines[group].append(
            {**entry, "partial": cut, "title": ", ".join([*words, *([entry["note"]] if entry["note"] else [])])}
        )
    return [line for line in lines.values() if line]


def _anchor(image: int, position: int) -> str:
    return f"image-{image}-row-{position + 1}"


def display_name(abbreviation: str) -> str:
    """Spell out the abbreviations of cord, canal and sacrum; others stay as they are."""
    return {"SC": "Spinal cord", "canal": "Spinal canal", "S": "Sacrum"}.get(abbreviation, abbreviation)


def levels_table(rows: Sequence[Mapping[str, str]], image: int) -> list[dict[str, Any]]:
    """Return a table for each kind of structure; columns without any value are omitted."""
    groups: dict[str, list[tuple[int, Mapping[str, str]]]] = {name: [] for _, name in _GROUPS}
    for position, row in enumerate(rows):
        groups.setdefault(_group(row), []).append((position, row))
    tables = []
    for title, members in groups.items():
        names = [name for name in MEASURES if any(present(row.get(name)) for _, row in members)]
        columns = [
            {
                "name": _SHORT_NAMES.get(name, COLUMNS[name].title),
                "unit": unit_symbol(COLUMNS[name].unit),
                "description": COLUMNS[name].description,
            }
            for name in names
        ]
        entries = [_row(row, names, _anchor(image, position)) for position, row in members]
        shown = {
            "has_confidence": any(entry["confidence"] is not None for entry in entries),
            "has_notes": any(entry["note"] for entry in entries),
        }
        tables.append({"name": title, "columns": columns, "rows": entries, **shown})
    return [table for table in tables if table["rows"]]


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
        "label": display_name(text),
        "color": color if re.fullmatch("#[0-9a-fA-F]{6}", color) else "#888888",
        "confidence": confidence,
        "partial": partial,
        "cells": [_cell(row.get(name), name) for name in names],
        "note": "; ".join(remark for remark in dict.fromkeys(remarks) if remark),
    }


def _cell(value: str | None, name: str) -> str:
    found = number(value)
    if found is None:
        return "–"
    if name == "volume-mm3":
        # Narrow no-break space as the thousands separator.
        return f"{found:,.0f}".replace(",", "\u202f")
    column = COLUMNS[name]
    if column.significant:
        return f"{found:.4g}"
    return f"{found:.1f}" if column.unit else f"{found:.2f}"
