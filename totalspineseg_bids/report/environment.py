"""Templates and the few words that both pages share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Final

import jinja2
from markupsafe import Markup

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import VERTEBRA_LEVELS

_PACKAGE = "totalspineseg_bids.report"
MISSING: Final = frozenset({"", "n/a", "N/A", "nan", "None"})
_UNITS = {"mm^2": "mm²", "mm^3": "mm³", "degree": "°"}


@cache
def environment() -> jinja2.Environment:
    """Return the template environment; everything is escaped unless a template says otherwise."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE, "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.globals.update(version=__version__, style=asset("style.css"), units=unit_sign)
    return made


@cache
def asset(name: str) -> Markup:
    """Return a style sheet or script of the package, to be put into a page as it is."""
    text = resources.files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - a file of this package


def json_block(content: object) -> Markup:
    """Return data for a ``<script type="application/json">``: no ``<`` in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(safe)  # noqa: S704 - escaped above


def unit_sign(unit: str) -> str:
    """Return a unit of a sidecar as people write it."""
    return _UNITS.get(unit, unit)


def present(value: str | None) -> str:
    """Return a cell of a table, empty where it has no value."""
    return "" if value is None or value.strip() in MISSING else value.strip()


def number(value: str | None) -> float | None:
    """Return the number in a cell of a table, ``None`` where there is none."""
    text = present(value)
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) != float("inf") and found == found else None  # noqa: PLR0124 - NaN


def is_true(value: str | None) -> bool:
    """Tell whether a cell of a table says yes."""
    return present(value).lower() in {"true", "yes", "1"}


def levels_range(levels: Sequence[str]) -> str:
    """Summarise levels: first and last vertebra in craniocaudal order, such as ``C2–T4``."""
    found = [level for level in VERTEBRA_LEVELS if level in set(levels)]
    if not found:
        return ""
    return found[0] if len(found) == 1 else f"{found[0]}–{found[-1]}"


def is_bundled(provenance: Mapping[str, str]) -> bool:
    """Tell from provenance (or a row of the image table) whether the bundled model made a result."""
    for key, value in provenance.items():
        name = key.lower()
        if name == "bundled" and is_true(str(value)):
            return True
        if name.startswith("model") and "bundled" in str(value).lower():
            return True
    return False


def headline(status: str) -> str:
    """Return what a status means, in a sentence."""
    return {
        "labelled": "The levels are labelled.",
        "abstained": "Structures were found, but their levels could not be decided: they are numbered, not named.",
        "no-spine": "There is no spine in view.",
        "failed": "The image could not be processed.",
    }.get(status, f"Status: {status}.")
