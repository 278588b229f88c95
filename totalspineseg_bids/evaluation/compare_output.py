"""Comparisons of models as text, TSV, JSON and a page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from totalspineseg_bids.evaluation.compare import Comparison, Difference
from totalspineseg_bids.evaluation.evaluate import METRICS, Metric
from totalspineseg_bids.evaluation.evaluate_output import (
    align_columns,
    environment,
    format_number,
    millimetres,
    to_json_value,
    to_tsv,
)
from totalspineseg_bids.evaluation.metrics import GROUPS
from totalspineseg_bids.imaging.atomic import write_text

#: What the text says of each contrast; the page and the tables have everything.
_MAIN = ("dice_levels", "nsd_levels", "identified_levels", "all_levels_right", "silently_wrong")


def format_figure(metric: Metric, value: float) -> str:
    """Format a metric for display."""
    return millimetres(value) if metric.unit == "mm" else format_number(value, percent=metric.unit == "rate")


def format_difference(metric: Metric, difference: Difference) -> str:
    """Return a difference with its interval, such as ``+0.012 (-0.003 to +0.027)``."""
    if math.isnan(difference.value):
        return "–"
    scale, digits = {"share": (1.0, 3), "rate": (100.0, 0), "mm": (1.0, 1)}[metric.unit]
    value, low, high = (
        f"{scale * number:+.{digits}f}" for number in (difference.value, difference.low, difference.high)
    )
    return value if math.isnan(difference.low) else f"{value} ({low} to {high})"


def comparison_table(comparison: Comparison) -> str:
    """Return the comparison as text: metrics in rows, models in columns, differences to the first model."""
    names = list(comparison.models)
    head = ["", *names, *(f"{name} - {names[0]} (95 %)" for name in names[1:])]
    lines = [f"{len(comparison.images)} images, the same for every model; NSD at {_tolerance(comparison):g} mm"]
    for tag, value, chosen in comparison.groups():
        rows = [[f"{tag} {value} ({len(chosen)})" if tag != "all" else "all", *head[1:]]]
        for metric in METRICS:
            figures = [comparison.figure(metric, name, chosen) for name in names]
            if tag != "all" and metric.key not in _MAIN:
                continue
            if all(math.isnan(figure) for figure in figures):
                continue
            row = [metric.title, *(format_figure(metric, figure) for figure in figures)]
            row += [format_difference(metric, comparison.difference(metric, name, chosen)) for name in names[1:]]
            rows.append(row)
        lines += ["", *align_columns(rows)]
    lines += _remarks(comparison)
    return "\n".join(lines) + "\n"


def _tolerance(comparison: Comparison) -> float:
    return next(iter(comparison.models.values())).tolerance_mm


def _remarks(comparison: Comparison) -> list[str]:
    lines = [
        f"{name}: {number} images without a prediction count as empty"
        for name, number in (comparison.without_prediction or {}).items()
        if number
    ]
    return lines + [f"left out for every model: {name}: {reason}" for name, reason in comparison.left_out]


def _metric_rows(comparison: Comparison) -> list[dict[str, Any]]:
    names = list(comparison.models)
    rows = []
    for tag, value, chosen in comparison.groups():
        for metric in METRICS:
            row: dict[str, Any] = {"group_by": tag, "value": value, "images": len(chosen), "metric": metric.key}
            row |= {name: comparison.figure(metric, name, chosen) for name in names}
            for name in names[1:]:
                difference = comparison.difference(metric, name, chosen)
                row[f"{name}_minus_{names[0]}"] = difference.value
                row[f"{name}_minus_{names[0]}_low"] = difference.low
                row[f"{name}_minus_{names[0]}_high"] = difference.high
            rows.append(row)
    return rows


def _level_rows(comparison: Comparison) -> list[dict[str, Any]]:
    by_model = {
        name: {row["name"]: row for row in evaluation.by_level()} for name, evaluation in comparison.models.items()
    }
    first = next(iter(by_model.values()))
    keys = ("dice", "nsd", "identification_rate", "localisation_mm")
    return [
        {
            "name": level,
            "group": row["group"],
            "images": row["images"],
            **{f"{key}_{name}": levels[level][key] for key in keys for name, levels in by_model.items()},
        }
        for level, row in first.items()
    ]


def _image_rows(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for number, image in enumerate(comparison.images):
        own = {name: evaluation.images[number] for name, evaluation in comparison.models.items()}
        row: dict[str, Any] = {"image": image.name, **image.tags}
        row |= {f"outcome_{name}": found.outcome.value for name, found in own.items()}
        figures = {name: comparison.models[name].summary([found]) for name, found in own.items()}
        row |= {f"dice_{name}": figure["dice_levels"] for name, figure in figures.items()}
        row |= {f"nsd_{name}": figure["nsd_levels"] for name, figure in figures.items()}
        rows.append(row)
    return rows


def _page_parts(comparison: Comparison) -> list[dict[str, Any]]:
    names = list(comparison.models)
    parts = []
    for tag, value, chosen in comparison.groups():
        rows = []
        for metric in METRICS:
            figures = [comparison.figure(metric, name, chosen) for name in names]
            finite = [metric.better * figure for figure in figures if not math.isnan(figure)]
            if not finite:
                continue
            best = max(finite) if len(set(finite)) > 1 else None
            rows.append(
                {
                    "title": metric.title,
                    "cells": [
                        {
                            "text": format_figure(metric, figure),
                            "best": best is not None and metric.better * figure == best,
                            "length": figure if metric.unit != "mm" else float("nan"),
                        }
                        for figure in figures
                    ],
                    "differences": [
                        format_difference(metric, comparison.difference(metric, name, chosen)) for name in names[1:]
                    ],
                }
            )
        parts.append({"tag": tag, "value": value, "images": len(chosen), "rows": rows})
    return parts


def comparison_page(comparison: Comparison) -> str:
    """Return the comparison as an HTML page that names no other file and holds no script."""
    names = list(comparison.models)
    levels = _level_rows(comparison)
    template = environment().get_template("comparison.html.j2")
    return template.render(
        title="Models side by side",
        names=names,
        tolerance=_tolerance(comparison),
        images=len(comparison.images),
        parts=_page_parts(comparison),
        levels=levels,
        group_names=[name for name in GROUPS.values() if any(row["group"] == name for row in levels)],
        image_rows=_image_rows(comparison),
        remarks=_remarks(comparison),
    )


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write ``comparison.json``, ``comparison.tsv``, ``levels.tsv``, ``images.tsv`` and ``comparison.html``.

    Parameters
    ----------
    comparison : Comparison
        What to write.
    folder : Path
        Made if absent.
    """
    rows, levels, images = _metric_rows(comparison), _level_rows(comparison), _image_rows(comparison)
    content = {
        "models": list(comparison.models),
        "images": len(comparison.images),
        "nsd_tolerance_mm": _tolerance(comparison),
        "without_prediction": comparison.without_prediction,
        "left_out": [{"image": name, "reason": reason} for name, reason in comparison.left_out],
        "metrics": rows,
        "levels": levels,
    }
    write_text(folder / "comparison.json", json.dumps(to_json_value(content), indent=1) + "\n")
    write_text(folder / "comparison.tsv", to_tsv(rows))
    write_text(folder / "levels.tsv", to_tsv(levels))
    write_text(folder / "images.tsv", to_tsv(images))
    write_text(folder / "comparison.html", comparison_page(comparison))
