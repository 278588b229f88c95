"""Jinja2 environment and the formatting that both pages share."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Final

import jinja2
from markupsafe import Markup

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import VERTEBRA_LEVELS
from totalspineseg_bids.citation import PUBLICATIONS

_PACKAGE = "totalspineseg_bids.report"
#: Cells that hold no value.
MISSING_CELLS: Final = frozenset({"", "n/a", "N/A", "nan", "None"})
_UNITS = {"mm^2": "mm²", "mm^3": "mm³", "degree": "°", "arbitrary": ""}
_HEADLINES: Final = {
    "labelled": "The levels were labelled.",
    "abstained": "Structures were segmented, but their levels could not be determined: they are numbered, not named.",
    "no-spine": "No spine was found in the field of view.",
    "failed": "The image could not be processed.",
}


def make_environment(package: str, folder: str, *, autoescape: bool = True) -> jinja2.Environment:
    """Return the environment of the templates in a folder of a package; names that they lack are errors."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=autoescape,  # noqa: S701 - off for Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


@cache
def environment() -> jinja2.Environment:
    """Return the template environment, which escapes all values by default."""
    jinja = make_environment(_PACKAGE, "templates")
    jinja.globals.update(version=__version__, style=asset("style.css"), units=unit_symbol, publications=PUBLICATIONS)
    return jinja


@cache
def asset(name: str) -> Markup:
    """Read a style sheet or script of this package, to embed unescaped."""
    text = resources.files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8")
    return Markup(text)  # noqa: S704 - a file of this package


def json_block(content: object) -> Markup:
    r"""Encode data for a ``<script type="application/json">`` element.

    Examples
    --------
    >>> str(json_block({"a": "</script>"}))
    '{"a":"\\u003c/script>"}'
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return Markup(safe)  # noqa: S704 - no character is left that could end the element


def unit_symbol(unit: str) -> str:
    """Convert a unit of a BIDS sidecar to its printed form: ``mm^2`` to ``mm²``."""
    return _UNITS.get(unit, unit)


def present(value: str | None) -> str:
    """Strip a table cell; return an empty string for a missing value such as ``n/a``."""
    text = (value or "").strip()
    return "" if text in MISSING_CELLS else text


def number(value: str | None) -> float | None:
    """Parse a table cell; return ``None`` unless it holds a finite number.

    Examples
    --------
    >>> number(" 1.5"), number("n/a"), number("inf")
    (1.5, None, None)
    """
    try:
        parsed = float(present(value))
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) else None


def is_true(value: str | None) -> bool:
    """Return whether a table cell is ``true``, ``yes`` or ``1``."""
    return present(value).lower() in {"true", "yes", "1"}


def levels_range(levels: Sequence[str]) -> str:
    """Summarise vertebral levels as the first and last in craniocaudal order.

    Examples
    --------
    >>> levels_range(["T1", "C7", "C7-T1", "T2"])
    'C7–T2'
    """
    found = [level for level in VERTEBRA_LEVELS if level in set(levels)]
    return "–".join(dict.fromkeys([found[0], found[-1]])) if found else ""


def headline(status: str) -> str:
    """Explain a status in one sentence."""
    return _HEADLINES.get(status, f"Status: {status}.")
