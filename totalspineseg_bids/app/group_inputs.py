"""Inputs of the group level besides the derivatives: participants, ratings and reference values."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from totalspineseg_bids.bids.names import label_number
from totalspineseg_bids.bids.tables import read_given_table, read_table, strip_missing
from totalspineseg_bids.columns import MISSING
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.measurement.norms import Norms, parse_age, parse_norms, parse_sex

logger = logging.getLogger(__name__)

#: Ratings that a reader can give an image on the group page.
RATINGS: Final = ("good", "doubtful", "bad")
#: Values of a column that an error message lists.
_SHOWN_VALUES: Final = 20


def read_ratings(path: Path | None, images: Iterable[str]) -> dict[str, tuple[str, str]]:
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
        Rating (one of `RATINGS`) and remark by image, each possibly empty. The last of several of one image is used.

    Raises
    ------
    UsageError
        If a column is missing or a rating is unknown.
    MissingInputError
        If the file cannot be read.
    """
    if path is None:
        return {}
    rows, known = read_given_table(path), set(images)
    found: dict[str, tuple[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        if not {"image", "rating"} <= set(row):
            msg = f"{path}: has no column image or rating; give a table downloaded from the group page"
            raise UsageError(msg)
        rating, note = row.get("rating", ""), row.get("note", "")
        if not rating and not note:
            continue
        if rating and rating not in RATINGS:
            msg = f"{path}: line {line}: rating '{rating}' is not one of {', '.join(RATINGS)}; correct it"
            raise UsageError(msg)
        if row["image"] in known:
            found[row["image"]] = rating, note
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
    rows = read_given_table(path)
    if not rows:
        msg = f"{path}: holds no reference values; it needs the columns measure, level, mean and sd"
        raise UsageError(msg)
    try:
        return parse_norms(rows)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise UsageError(msg) from error


def read_participants(config: RunConfig, names: Collection[str]) -> pd.DataFrame:
    """Read ``participants.tsv`` of the raw dataset, or of the output folder if the dataset has none.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    names : collection of str
        Participants with images, with ``sub-``.

    Returns
    -------
    pd.DataFrame
        The rows of the table. Ids start with ``sub-``; where a spreadsheet removed leading zeros, they are added.
    """
    for folder in (config.bids_dir, config.output_dir):
        path = folder / "participants.tsv"
        try:
            if path.is_file():
                return _with_full_ids(path, pd.DataFrame(read_table(path)), names)
        except (OSError, ValueError) as error:
            logger.warning("%s: cannot be read, the page does without it (%s)", path, error)
    return pd.DataFrame()


def _with_full_ids(path: Path, table: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    # R writes names and texts in quotes, which BIDS does not know.
    table = table.rename(columns=lambda name: name.strip().strip('"')).apply(lambda cells: cells.str.strip('"'))
    if "participant_id" not in table:
        logger.warning("%s: has no column participant_id, the page does without it", path)
        return pd.DataFrame()
    ids = ["sub-" + text.strip().removeprefix("sub-") for text in table["participant_id"]]
    numbers: dict[int, list[str]] = {}
    for name in set(names) - set(ids):
        if (number := label_number(name.removeprefix("sub-"))) is not None:
            numbers.setdefault(number, []).append(name)
    full = {}
    for name in set(ids) - set(names):
        number = label_number(name.removeprefix("sub-"))
        candidates = [] if number is None else numbers.get(number, [])
        if len(candidates) == 1:
            full[name] = candidates[0]
    if full:
        wrong, right = min(full.items())
        logger.warning("%s: %d ids without leading zeros, such as %s for %s; added", path, len(full), wrong, right)
    return table.assign(participant_id=[full.get(name, name) for name in ids])


def get_demographics(participants: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Look up sex and age of the persons in the rows of a table.

    If a participant has several rows, one per session, that of the session is used. Without such a row, values that
    differ between the rows are unknown.

    Parameters
    ----------
    participants : pd.DataFrame
        Rows of ``participants.tsv``.
    rows : pd.DataFrame
        Table with the columns ``participant`` and ``session``, N rows.

    Returns
    -------
    pd.DataFrame
        N rows: ``sex``, which is ``"M"``, ``"F"`` or ``None`` where unknown, and ``age``, years or NaN.
    """
    known: dict[tuple[str, str], tuple[str | None, float]] = {}
    for table, keyed_by_session in ((participants, True), (merge_sessions(participants), False)):
        for row in table.to_dict("records"):
            age = parse_age(row.get("age", ""))
            sex = parse_sex(row.get("sex") or row.get("gender") or "")
            session = _session_of(row) if keyed_by_session else ""
            known[row["participant_id"], session] = sex, math.nan if age is None else age
    unknown = (None, math.nan)
    found = [
        known.get((name, session.removeprefix("ses-")), known.get((name, ""), unknown))
        for name, session in zip(rows["participant"], rows["session"], strict=True)
    ]
    return pd.DataFrame({"sex": np.array([s for s, _ in found], object), "age": [a for _, a in found]})


def select_reference(reference: str | None, participants: pd.DataFrame, images: pd.DataFrame) -> set[str] | None:
    """Return the names of the images of the reference group; ``None`` without one.

    Parameters
    ----------
    reference : str or None
        ``COLUMN=VALUE``. If a participant has several rows, one per session, the row counts for its session.
    participants : pd.DataFrame
        Rows of ``participants.tsv``.
    images : pd.DataFrame
        Table with the columns ``participant``, ``session`` and ``image``.

    Raises
    ------
    UsageError
        If there is no such column or value, or no image of the group.
    """
    if reference is None:
        return None
    column, _, value = (part.strip() for part in reference.partition("="))
    columns = [str(name) for name in participants if name != "participant_id"]
    if column not in columns:
        msg = f"--reference: participants.tsv has no column '{column}'; it has {', '.join(columns) or 'none'}"
        raise UsageError(msg)
    chosen = participants[participants[column].str.strip() == value]
    if chosen.empty:
        known = sorted({text for cell in participants[column] if (text := strip_missing(cell))})
        shown = ", ".join(known[:_SHOWN_VALUES]) + (", …" if len(known) > _SHOWN_VALUES else "")
        msg = f"--reference: no participant has {column} '{value}'; the values are {shown or 'all missing'}"
        raise UsageError(msg)
    wanted = {(row["participant_id"], _session_of(row)) for row in chosen.to_dict("records")}
    keys = zip(images["participant"], images["session"], images["image"], strict=True)
    found = {n for p, s, n in keys if (p, "") in wanted or (p, s.removeprefix("ses-")) in wanted}
    if not found:
        msg = f"--reference: there is no image of a participant with {reference}; run the participant level for them"
        raise UsageError(msg)
    return found


def _session_of(row: Mapping[Hashable, str]) -> str:
    text = next((row[name] for name in ("session_id", "session", "ses") if row.get(name)), "")
    return strip_missing(text).removeprefix("ses-")


def merge_sessions(participants: pd.DataFrame) -> pd.DataFrame:
    """Return one row per participant; cells in which the rows of a participant differ are ``n/a``."""
    if participants.empty or participants["participant_id"].is_unique:
        return participants
    grouped = participants.groupby("participant_id", sort=False)
    return grouped.first().where(grouped.nunique() == 1, MISSING).reset_index()
