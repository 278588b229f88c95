"""Inputs of the group level besides the derivatives: participants, ratings and reference values."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.columns import MISSING
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.imaging.centerline import Vector
from totalspineseg_bids.measurement.norms import Norms, parse_age, parse_norms, parse_sex

logger = logging.getLogger(__name__)

#: Ratings that a reader can give an image on the group page.
RATINGS: Final = ("good", "doubtful", "bad")


@dataclass(frozen=True, slots=True)
class Rating:
    """Rating of an image by a reader."""

    rating: str
    """One of `RATINGS`; empty if there is only a remark."""
    note: str = ""
    """A remark; empty for none."""


@dataclass(frozen=True, slots=True)
class Demographics:
    """Sex and age of N persons, on which reference values depend."""

    sex: NDArray[np.object_]
    """``"M"``, ``"F"``, or ``None`` where unknown, shape (N,)."""
    age: Vector
    """Years; NaN where unknown, shape (N,)."""


def _table(path: Path) -> list[dict[str, str]]:
    try:
        return read_table(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot be read ({error}); give a tab-separated table in UTF-8"
        raise MissingInputError(msg) from error


def read_ratings(path: Path | None, images: Iterable[str]) -> dict[str, Rating]:
    """Read the ratings that were downloaded from a group page.

    Parameters
    ----------
    path : Path or None
        Table with the columns ``image``, ``rating`` and optionally ``note``; ``None`` for no ratings.
    images : iterable of str
        Names of the existing images. Ratings of other images are reported in the log and skipped.

    Returns
    -------
    dict
        Rating by image. The last of several ratings of one image is used.

    Raises
    ------
    UsageError
        If a column is missing or a rating is unknown.
    MissingInputError
        If the file cannot be read.
    """
    if path is None:
        return {}
    rows, known = _table(path), set(images)
    found: dict[str, Rating] = {}
    for line, row in enumerate(rows, start=2):
        if not {"image", "rating"} <= set(row):
            msg = f"{path}: has no column image or rating; give a table downloaded from the group page"
            raise UsageError(msg)
        rating, note = (_strip_missing(row.get(name, "")) for name in ("rating", "note"))
        if not rating and not note:
            continue
        if rating and rating not in RATINGS:
            msg = f"{path}: line {line}: rating '{rating}' is not one of {', '.join(RATINGS)}; correct it"
            raise UsageError(msg)
        if row["image"] in known:
            found[row["image"]] = Rating(rating, note)
        else:
            logger.warning("%s: line %d: there is no image %s, left out", path, line, row["image"])
    return found


def read_norms(path: Path | None) -> Norms | None:
    """Read reference values; ``None`` without a file.

    Raises
    ------
    UsageError
        If the table is invalid.
    MissingInputError
        If it cannot be read.
    """
    if path is None:
        return None
    rows = _table(path)
    if not rows:
        msg = f"{path}: holds no reference values; it needs the columns measure, level, mean and sd"
        raise UsageError(msg)
    try:
        return parse_norms(rows)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise UsageError(msg) from error


def read_participants(config: RunConfig) -> pd.DataFrame:
    """Read ``participants.tsv`` of the raw dataset, or of the output folder if the dataset has none."""
    for folder in (config.bids_dir, config.output_dir):
        path = folder / "participants.tsv"
        try:
            if path.is_file():
                return pd.DataFrame(read_table(path))
        except (OSError, ValueError) as error:
            logger.warning("%s: cannot be read, the page does without it (%s)", path, error)
    return pd.DataFrame()


def get_demographics(participants: pd.DataFrame, names: Iterable[str]) -> Demographics:
    """Look up sex and age of participants.

    Parameters
    ----------
    participants : pd.DataFrame
        Rows of ``participants.tsv``.
    names : iterable of str
        Participants, with ``sub-``, shape (N,).
    """
    known = {}
    for row in participants.to_dict("records"):
        age = parse_age(row.get("age", ""))
        sex = parse_sex(row.get("sex") or row.get("gender") or "")
        known["sub-" + row.get("participant_id", "").removeprefix("sub-")] = sex, math.nan if age is None else age
    found = [known.get(name, (None, math.nan)) for name in names]
    return Demographics(np.array([sex for sex, _ in found], object), np.array([age for _, age in found], float))


def _strip_missing(text: str) -> str:
    return "" if text.strip() == MISSING else text.strip()
