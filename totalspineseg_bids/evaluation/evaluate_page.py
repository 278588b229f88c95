"""Evaluations as a self-contained HTML page without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2

from totalspineseg_bids import __version__
from totalspineseg_bids.evaluation.evaluate import Evaluation
from totalspineseg_bids.evaluation.metrics import GROUPS, ImageResult, Outcome

_WORST_FIRST = (Outcome.WRONG, Outcome.EMPTY, Outcome.ABSTAINED, Outcome.INCOMPLETE, Outcome.RIGHT)
#: What each outcome means, for the page.
OUTCOME_TEXT: dict[Outcome, str] = {
    Outcome.RIGHT: "every level in full view named correctly",
    Outcome.INCOMPLETE: "no level wrong, but some not found",
    Outcome.WRONG: "a level named that is another one, or none",
    Outcome.ABSTAINED: "structures found, no level named",
    Outcome.EMPTY: "nothing found",
}


def three(value: float) -> str:
    """Return a figure with three decimals, a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """Return a share as whole per cent, a dash for NaN."""
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def millimetres(value: float) -> str:
    """Return a distance with one decimal, a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.1f}"


def bar(value: float) -> int:
    """Return the length of a bar in per cent of its cell."""
    return 0 if math.isnan(value) else round(100 * min(1.0, max(0.0, value)))


@cache
def environment() -> jinja2.Environment:
    """Return the templates of this package, with the filters that they use; undefined names are errors."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("totalspineseg_bids.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(three=three, percent=percent, mm=millimetres, bar=bar)
    made.globals.update(version=__version__, groups=list(GROUPS.values()))
    return made


def _image_rows(images: Sequence[ImageResult], evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the rows of the images, worst outcome first."""
    return [
        {
            "name": image.name,
            "outcome": image.outcome.value,
            "tags": image.tags,
            "figures": evaluation.summary([image]),
            "misnamed": [row.level for row in image.levels if row.misnamed],
            "missed": [row.level for row in image.levels if row.full_view and row.identified is False],
        }
        for image in sorted(images, key=lambda item: (_WORST_FIRST.index(item.outcome), item.name))
    ]


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
    summary = evaluation.summary()
    parts = [("all images", summary)]
    parts += [(f"{tag}: {value}", found) for tag in evaluation.tags() for value, found in evaluation.by(tag).items()]
    columns = [("all", evaluation.by_level())]
    if "contrast" in evaluation.tags():
        groups = evaluation.groups("contrast")
        columns += [(value, evaluation.by_level(images)) for value, images in groups.items() if len(groups) > 1]
    by_name = [(title, {row["name"]: row for row in rows}) for title, rows in columns]
    template = environment().get_template("evaluation.html.j2")
    return template.render(
        title="Evaluation",
        extra={key: value for key, value in (extra or {}).items() if isinstance(value, str | int | float)},
        tolerance=evaluation.tolerance_mm,
        summary=summary,
        parts=parts,
        level_columns=by_name,
        levels=evaluation.by_level(),
        images=_image_rows(evaluation.images, evaluation),
        tags=evaluation.tags(),
        failed=evaluation.failed,
        outcome_text={outcome.value: text for outcome, text in OUTCOME_TEXT.items()},
    )
