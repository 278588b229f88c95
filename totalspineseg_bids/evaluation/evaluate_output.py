"""Evaluations as TSV, JSON, text, and a self-contained HTML page without scripts."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2

from totalspineseg_bids import __version__
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.evaluation.evaluate import METRICS, Evaluation
from totalspineseg_bids.evaluation.metrics import GROUPS, Outcome
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.report.environment import make_environment

_WORST_FIRST = (Outcome.WRONG, Outcome.EMPTY, Outcome.ABSTAINED, Outcome.INCOMPLETE, Outcome.RIGHT)
#: What each outcome means, for the page.
OUTCOME_TEXT: dict[Outcome, str] = {
    Outcome.RIGHT: "every level in full view named correctly",
    Outcome.INCOMPLETE: "no level wrong, but some not found",
    Outcome.WRONG: "a level named that is another one, or none",
    Outcome.ABSTAINED: "structures found, no level named",
    Outcome.EMPTY: "nothing found",
}


#: Factor, decimals and sign with which a figure of each unit is shown.
UNITS: dict[str, tuple[float, int, str]] = {"share": (1.0, 3, ""), "rate": (100.0, 0, " %"), "mm": (1.0, 1, "")}


def format_figure(value: float, unit: str = "share") -> str:
    """Return a figure as its unit is shown (`UNITS`); a dash for none."""
    scale, digits, sign = UNITS[unit]
    return "–" if math.isnan(value) else f"{scale * value:.{digits}f}{sign}"


_rate = partial(format_figure, unit="rate")


def bar(value: float) -> int:
    """Return the length of a bar in per cent of its cell."""
    return 0 if math.isnan(value) else round(100 * min(1.0, max(0.0, value)))


@cache
def environment() -> jinja2.Environment:
    """Return the templates of this package, with the filters that they use; undefined names are errors."""
    made = make_environment("totalspineseg_bids.evaluation", "templates")
    made.filters.update(three=format_figure, percent=_rate, mm=partial(format_figure, unit="mm"), bar=bar)
    made.globals.update(version=__version__, groups=list(GROUPS.values()))
    return made


def _image_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the rows of the images, worst outcome first."""
    rows = [
        {
            "name": image.name,
            "outcome": image.outcome.value,
            "tags": image.tags,
            "figures": evaluation.part([number]).summary(),
            "misnamed": [row.level for row in image.levels if row.misnamed],
            "missed": [row.level for row in image.levels if row.full_view and row.identified is False],
        }
        for number, image in enumerate(evaluation.images)
    ]
    return sorted(rows, key=lambda row: (_WORST_FIRST.index(row["outcome"]), row["name"]))


def evaluation_page(evaluation: Evaluation, extra: dict[str, Any] | None = None) -> str:
    """Return an evaluation as an HTML page.

    Parameters
    ----------
    evaluation : Evaluation
        Results.
    extra : dict of str to Any, optional
        Entries to show in the head, such as the model's name.

    Returns
    -------
    str
        A whole page; it holds styles and figures, no script, and names no other file.
    """
    groups = evaluation.groups()
    contrasts = [group for group in groups if group[0] == "contrast"]
    columns = groups[:1] + (contrasts if len(contrasts) > 1 else [])
    levels = {value: part.by_level() for _, value, part in columns}
    template = environment().get_template("evaluation.html.j2")
    return template.render(
        title="Evaluation",
        extra={key: value for key, value in (extra or {}).items() if isinstance(value, str | int | float)},
        tolerance=evaluation.tolerance_mm,
        summary=evaluation.summary(),
        parts=[("all images" if tag == "all" else f"{tag}: {value}", part.summary()) for tag, value, part in groups],
        level_columns=[(value, {row["name"]: row for row in rows}) for value, rows in levels.items()],
        levels=levels["all"],
        images=_image_rows(evaluation),
        tags=evaluation.tags(),
        failed=evaluation.failed,
        outcome_text={outcome.value: text for outcome, text in OUTCOME_TEXT.items()},
    )


#: Columns of ``structures.tsv`` after image and tags: attributes of `LevelResult`.
_STRUCTURE_COLUMNS = (
    *("name", "group", "in_truth", "in_prediction", "full_view", "dice", "nsd"),
    *("truth_mm3", "predicted_mm3", "identified", "misnamed", "distance_mm"),
)


def _rounded(value: Any) -> Any:  # noqa: ANN401
    """Return what a table shows: nothing for NaN, 0 and 1 for Booleans, four decimals."""
    if isinstance(value, bool):
        return int(value)
    return ("" if math.isnan(value) else f"{value:.4f}") if isinstance(value, float) else value


def to_tsv(rows: Sequence[dict[str, Any]]) -> str:
    """Return rows with the same keys as tab-separated text with a header."""
    return format_table(list(rows[0]), [{key: _rounded(value) for key, value in row.items()} for row in rows])


def to_json_value(value: Any) -> Any:  # noqa: ANN401
    """Return a value that JSON can hold: NaN becomes null."""
    if isinstance(value, dict):
        return {key: to_json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_evaluation(evaluation: Evaluation, folder: Path, extra: dict[str, Any] | None = None) -> None:
    """Write an evaluation as JSON, tables and a page.

    ``evaluation.json`` has everything except the single structures. ``images.tsv`` has one row per image,
    ``structures.tsv`` one per image and structure, ``levels.tsv`` one per level over all images and over those of each
    value of each tag. ``evaluation.html`` is self-contained.

    Parameters
    ----------
    evaluation : Evaluation
        What to write.
    folder : Path
        Made if absent.
    extra : dict of str to Any, optional
        Further entries of the JSON, such as the model's name.
    """
    tags = evaluation.tags()
    images, structures = [], []
    for number, image in enumerate(evaluation.images):
        own = {tag: image.tags.get(tag, "n/a") for tag in tags}
        part = evaluation.part([number])
        images.append(
            {
                "image": image.name,
                **own,
                "outcome": image.outcome.value,
                "landmark_in_view": image.landmark_in_view,
                **{
                    metric.key: part.figure(metric.key)
                    for metric in METRICS
                    if metric.key.startswith(("dice_", "nsd_"))
                },
                "levels_in_full_view": image.levels_in_full_view,
                "identification_rate": part.figure("identified_levels"),
                "localisation_mm": part.figure("localisation_mm"),
            }
        )
        structures += [
            {"image": image.name, **own, **{column: getattr(row, column) for column in _STRUCTURE_COLUMNS}}
            for row in image.levels
        ]
    by_tag: dict[str, dict[str, Any]] = defaultdict(dict)
    levels_by_tag: dict[str, dict[str, Any]] = defaultdict(dict)
    levels: list[dict[str, Any]] = []
    for tag, value, part in evaluation.groups():
        by_tag[f"by_{tag}"][value] = part.summary()
        levels_by_tag[f"levels_by_{tag}"][value] = part.by_level()
        levels += [{"group_by": tag, "value": value, **row} for row in part.by_level()]
    content = {
        **(extra or {}),
        "nsd_tolerance_mm": evaluation.tolerance_mm,
        "summary": by_tag.pop("by_all")["all"],
        **by_tag,
        "levels": levels_by_tag.pop("levels_by_all")["all"],
        **levels_by_tag,
        "failed": [{"image": name, "reason": reason} for name, reason in evaluation.failed],
    }
    write_text(folder / "images.tsv", to_tsv(images))
    write_text(folder / "structures.tsv", to_tsv(structures))
    write_text(folder / "levels.tsv", to_tsv(levels))
    write_text(folder / "evaluation.json", json.dumps(to_json_value(content), indent=1) + "\n")
    write_text(folder / "evaluation.html", evaluation_page(evaluation, extra))


def align_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip() for row, cells in zip(rows, padded, strict=True)]


def evaluation_table(evaluation: Evaluation) -> str:
    """Return the figures as text: over all, by each tag, and by level."""
    groups = evaluation.groups()
    figures = {value if tag == "all" else f"{tag} {value}": part.summary() for tag, value, part in groups}
    by_group = [
        {
            "": name,
            "images": str(found["images"]),
            "levels": format_figure(found["dice_levels"]),
            **{group: format_figure(found["dice"][group]) for group in GROUPS.values()},
            "NSD": format_figure(found["nsd_levels"]),
            "all right": _rate(found["all_levels_right"]),
            "with landmark": _rate(found["all_levels_right_with_landmark"]),
            "abstained": str(found["outcomes"][Outcome.ABSTAINED.value] + found["outcomes"][Outcome.EMPTY.value]),
            "wrong": str(found["silently_wrong"]),
        }
        for name, found in figures.items()
    ]
    by_level = [
        {
            "level": row["name"],
            "images": str(row["images"]),
            "Dice": format_figure(row["dice"]),
            "NSD": format_figure(row["nsd"]),
            "identified": _rate(row["identification_rate"]),
            "distance mm": format_figure(row["localisation_mm"]),
        }
        for row in evaluation.by_level()
    ]
    tables = [align_columns([list(rows[0]), *(list(row.values()) for row in rows)]) for rows in (by_group, by_level)]
    nsd = f"normalised surface distance (NSD) of the levels at {evaluation.tolerance_mm:g} mm"
    lines = [
        f"Dice over structures in full view; {nsd}; share of images with every level in full view right",
        *tables[0],
        "",
        *tables[1],
        *(f"identified {group}: {_rate(found)}" for group, found in figures["all"]["identification_rate"].items()),
        f"mean distance of centroids: {format_figure(figures['all']['localisation_mm'])} mm",
        *(f"not compared: {name}: {reason}" for name, reason in evaluation.failed),
    ]
    return "\n".join(lines) + "\n"
