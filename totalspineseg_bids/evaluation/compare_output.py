"""Comparisons of models as text, TSV, JSON and a page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from totalspineseg_bids.evaluation import evaluate_output
from totalspineseg_bids.evaluation.compare import ComparedMetric, Comparison, Difference
from totalspineseg_bids.evaluation.evaluate import Metric
from totalspineseg_bids.evaluation.metrics import GROUPS
from totalspineseg_bids.imaging.atomic import write_text

#: What the text says of each contrast; the page and the tables have everything.
_MAIN = ("dice_levels", "nsd_levels", "identified_levels", "all_levels_right", "silently_wrong")


def format_difference(metric: Metric, difference: Difference) -> str:
    """Return a difference with its interval, such as ``+0.012 (-0.003 to +0.027)``."""
    if math.isnan(difference.value):
        return "–"
    scale, digits, _ = evaluate_output.UNITS[metric.unit]
    value, low, high = (f"{scale * number:+.{digits}f}" for number in difference)
    return value if math.isnan(difference.low) else f"{value} ({low} to {high})"


def comparison_table(comparison: Comparison) -> str:
    """Return the comparison as text: metrics in rows, models in columns, differences to the first model."""
    names = list(comparison.models)
    head = [*names, *(f"{name} - {names[0]} (95 %)" for name in names[1:])]
    lines = [
        f"{len(comparison.images)} images, the same for every model; NSD at {comparison.reference.tolerance_mm:g} mm"
    ]
    for tag, value, part in comparison.groups():
        rows = [["all" if tag == "all" else f"{tag} {value} ({len(part.images)})", *head]]
        for row in _rows_with_figures(part):
            if tag == "all" or row.metric.key in _MAIN:
                figures = [evaluate_output.format_figure(figure, row.metric.unit) for figure in row.figures.values()]
                differences = [format_difference(row.metric, found) for found in row.differences.values()]
                rows.append([row.metric.title, *figures, *differences])
        lines += ["", *evaluate_output.align_columns(rows)]
    return "\n".join([*lines, *_remarks(comparison)]) + "\n"


def _rows_with_figures(comparison: Comparison) -> list[ComparedMetric]:
    return [row for row in comparison.rows() if not all(math.isnan(figure) for figure in row.figures.values())]


def _remarks(comparison: Comparison) -> list[str]:
    lines = [
        f"{name}: {number} images without a prediction count as empty"
        for name, number in comparison.without_prediction.items()
        if number
    ]
    return lines + [f"left out for every model: {name}: {reason}" for name, reason in comparison.left_out]


def _metric_rows(comparison: Comparison) -> list[dict[str, Any]]:
    first, rows = next(iter(comparison.models)), []
    for tag, value, part in comparison.groups():
        for metric, figures, differences in part.rows():
            row = {"group_by": tag, "value": value, "images": len(part.images), "metric": metric.key, **figures}
            for name, found in differences.items():
                for end, number in (("", found.value), ("_low", found.low), ("_high", found.high)):
                    row[f"{name}_minus_{first}{end}"] = number
            rows.append(row)
    return rows


def _level_rows(comparison: Comparison) -> list[dict[str, Any]]:
    by_model = {
        name: {row["name"]: row for row in evaluation.by_level()} for name, evaluation in comparison.models.items()
    }
    keys = ("dice", "nsd", "identification_rate", "localisation_mm")
    return [
        {
            "name": level,
            "group": row["group"],
            "images": row["images"],
            **{f"{key}_{name}": levels[level][key] for key in keys for name, levels in by_model.items()},
        }
        for level, row in next(iter(by_model.values())).items()
    ]


def _image_rows(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for number, image in enumerate(comparison.images):
        own = {name: evaluation.part([number]) for name, evaluation in comparison.models.items()}
        row: dict[str, Any] = {"image": image.name, **image.tags}
        row |= {f"outcome_{name}": found.images[0].outcome.value for name, found in own.items()}
        row |= {
            f"{key}_{name}": found.figure(f"{key}_levels") for key in ("dice", "nsd") for name, found in own.items()
        }
        rows.append(row)
    return rows


def _page_row(row: ComparedMetric) -> dict[str, Any]:
    metric = row.metric
    finite = [metric.better * figure for figure in row.figures.values() if not math.isnan(figure)]
    best = max(finite) if len(set(finite)) > 1 else math.nan
    return {
        "title": metric.title,
        "cells": [
            {
                "text": evaluate_output.format_figure(figure, metric.unit),
                "best": metric.better * figure == best,
                "length": figure if metric.unit != "mm" else math.nan,
            }
            for figure in row.figures.values()
        ],
        "differences": [format_difference(metric, found) for found in row.differences.values()],
    }


def comparison_page(comparison: Comparison) -> str:
    """Return the comparison as an HTML page that names no other file and holds no script."""
    names = list(comparison.models)
    levels = _level_rows(comparison)
    template = evaluate_output.environment().get_template("comparison.html.j2")
    return template.render(
        title="Models side by side",
        names=names,
        tolerance=comparison.reference.tolerance_mm,
        images=len(comparison.images),
        parts=[(*group, [_page_row(row) for row in _rows_with_figures(group[2])]) for group in comparison.groups()],
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
        "nsd_tolerance_mm": comparison.reference.tolerance_mm,
        "without_prediction": comparison.without_prediction,
        "left_out": [{"image": name, "reason": reason} for name, reason in comparison.left_out],
        "metrics": rows,
        "levels": levels,
    }
    write_text(folder / "comparison.json", json.dumps(evaluate_output.to_json_value(content), indent=1) + "\n")
    write_text(folder / "comparison.tsv", evaluate_output.to_tsv(rows))
    write_text(folder / "levels.tsv", evaluate_output.to_tsv(levels))
    write_text(folder / "images.tsv", evaluate_output.to_tsv(images))
    write_text(folder / "comparison.html", comparison_page(comparison))
