"""Tables of the group level, as data frames of text in which missing values are ``n/a``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import DISC_LEVELS, VERTEBRA_LEVELS
from totalspineseg_bids.app.group_inputs import get_demographics
from totalspineseg_bids.bids.derivatives import ImageDerivatives
from totalspineseg_bids.bids.names import SourceImage, report_name
from totalspineseg_bids.bids.sidecar import LABEL_COLUMNS
from totalspineseg_bids.bids.tables import format_cell
from totalspineseg_bids.columns import MISSING, TableColumn, describe_columns, short_name
from totalspineseg_bids.imaging.atomic import atomic_writer, write_text
from totalspineseg_bids.measurement.levels import COLUMNS, MEASURES, SIGNALS
from totalspineseg_bids.measurement.norms import Norms
from totalspineseg_bids.measurement.posture import ANGLES, POSTURE_COLUMNS
from totalspineseg_bids.measurement.quality import QUALITY_COLUMNS

Cells = NDArray[np.object_]

#: Prefix of the columns with z-scores, which only the page and the long table contain.
SCORE: Final = "z:"

_KEYS: Final = (
    TableColumn("participant", "Participant, as participant_id in participants.tsv"),
    TableColumn("session", "Session, with ses-; n/a where there is none"),
    TableColumn("image", "File name of the raw image, without extension"),
    TableColumn("suffix", "BIDS suffix of the raw image"),
)
_KEY_NAMES: Final = [column.name for column in _KEYS]
_LABEL: Final = (
    LABEL_COLUMNS["structure"],
    LABEL_COLUMNS["level"],
    TableColumn("index", "Value in the label image"),
    TableColumn("name", "Name of the label"),
    TableColumn("confidence", "How sure the level is, from 0 to 1", kind="number"),
)
_STATUS: Final = TableColumn("status", "labelled, abstained (structures found, levels not decided), no-spine or failed")
_RATING: Final = TableColumn("rating", "What a reader said of the image: good, doubtful or bad")

#: ``group_volumes.tsv``; the data frame holds the measures under the names of the label table, with their units.
VOLUME_COLUMNS: Final = (*_KEYS, *_LABEL, *COLUMNS.values())
#: ``group_images.tsv``
IMAGE_COLUMNS: Final = (
    *_KEYS,
    _STATUS,
    TableColumn("reason", "Why, for anything but labelled"),
    TableColumn("n_levels", "Number of vertebrae and discs with a level", kind="number"),
    TableColumn("levels", "Levels seen, vertebrae first, separated by a comma"),
    TableColumn("flags", "Findings to look at, separated by a comma"),
    TableColumn(
        "corrections", "Number of corrections by readers (--corrections), an edited map counts as one", kind="number"
    ),
    replace(
        _RATING, description="What a reader said of the image on the group page (--qc-file): good, doubtful or bad"
    ),
    TableColumn("rating-note", "Remark of the reader"),
    *(replace(column, name=column.short_name) for column in POSTURE_COLUMNS.values()),
    *QUALITY_COLUMNS.values(),
    TableColumn("model", "Model set"),
    TableColumn("source", "Raw image, below its dataset"),
    TableColumn("report", "Page of the participant"),
    TableColumn("thumbnail", "Small picture of the image with its labels"),
)
#: ``group_measures.tsv``
LONG_COLUMNS: Final = (
    *_KEYS,
    TableColumn(
        "structure", "Kind of structure: vertebra, sacrum, disc, spinal_cord, spinal_canal, or spine for angles"
    ),
    LABEL_COLUMNS["level"],
    TableColumn("name", "Name of the label; n/a for angles"),
    TableColumn(
        "measure",
        "What was measured; see Levels",
        levels={
            column.short_name: column.description
            for column in (*COLUMNS.values(), *POSTURE_COLUMNS.values())
            if column.kind == "number"
        },
    ),
    TableColumn("value", "The value; n/a where it could not be measured", kind="number"),
    TableColumn("units", "Unit of the value; n/a where it has none"),
    TableColumn(
        "z",
        "Distance from the reference value in standard deviations; n/a where no reference value fits",
        kind="number",
    ),
    TableColumn(
        "partial", "true where the field of view cuts the structure: leave its volume out of statistics", kind="flag"
    ),
    TableColumn("note", "Why the value is missing"),
)

_BODY: Final = frozenset(
    {"volume-mm3", "height-mm", "height-anterior-mm", "height-middle-mm", "height-posterior-mm", "depth-mm"}
    | {"width-mm", "wedge-deg", *(name for name in MEASURES if name.startswith(("canal-", "cord-")))}
)
#: Measures of each kind of structure that have a row in the long table, with the reason, also if missing.
_EXPECTED: Final = {
    "vertebra": _BODY,
    "disc": _BODY | {"height-index", "slip-mm", "foramen-left-mm", "foramen-right-mm", *SIGNALS},
}


@dataclass(frozen=True, slots=True)
class GroupTables:
    """Tables from which all others are made."""

    images: pd.DataFrame
    """One row per image, done or failed, with `IMAGE_COLUMNS`."""
    volumes: pd.DataFrame
    """One row per label of an image, with `VOLUME_COLUMNS`."""


def make_tables(images: Sequence[ImageDerivatives]) -> GroupTables:
    """Arrange the completed and failed images of a group, in order, in two tables."""
    labels = [{**_keys(image.source), **row} for image in images for row in image.rows]
    return GroupTables(_frame([_image_row(image) for image in images], IMAGE_COLUMNS), _frame(labels, VOLUME_COLUMNS))


def _frame(rows: Sequence[dict[str, str]], columns: Iterable[TableColumn]) -> pd.DataFrame:
    cells = {column.name: [format_cell(row.get(column.name)) for row in rows] for column in columns}
    return pd.DataFrame(cells, dtype=object)


def _keys(source: SourceImage) -> dict[str, str]:
    session = f"ses-{source.session}" if source.session else MISSING
    return dict(zip(_KEY_NAMES, (f"sub-{source.participant}", session, source.name, source.suffix), strict=True))


def _image_row(result: ImageDerivatives) -> dict[str, str]:
    measures, corrections = result.measures, result.corrections
    return {
        **_keys(result.source),
        "status": result.status,
        "reason": result.reason or MISSING,
        "n_levels": str(len(result.levels)),
        "levels": ", ".join(result.levels),
        "flags": ", ".join(result.flags),
        "corrections": str(len(corrections.get("Rows", ())) + ("EditedMap" in corrections) or MISSING),
        **{short_name(name): measures.get(name) or MISSING for name in POSTURE_COLUMNS},
        **{name: measures.get(name) or MISSING for name in QUALITY_COLUMNS},
        "model": result.model,
        "source": result.source.relative,
        "report": report_name(result.source.participant),
        "thumbnail": result.figures.get("thumbnail", MISSING),
    }


def add_ratings(images: pd.DataFrame, ratings: dict[str, tuple[str, str]]) -> None:
    """Enter the ratings of a reader in the table of images."""
    for place, column in enumerate(("rating", "rating-note")):
        found = {image: format_cell(rating[place]) for image, rating in ratings.items()}
        images[column] = images["image"].map(found).fillna(MISSING)


def _usable(volumes: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which cells of the measures hold usable values, shape (rows, measures).

    The volume of a structure that the field of view cuts is excluded, because it covers the visible part only.
    """
    usable = np.array(volumes[list(MEASURES)] != MISSING)
    usable[:, MEASURES.index("volume-mm3")] &= np.asarray(volumes["partial"] != "true")
    return usable


def add_scores(tables: GroupTables, norms: Norms | None, participants: pd.DataFrame) -> None:
    """Add the z-scores of values with a reference value, in columns named by `SCORE` and the measure.

    Parameters
    ----------
    tables : GroupTables
        Both tables; columns are added to both.
    norms : Norms or None
        Reference values; without them nothing is added.
    participants : pd.DataFrame
        Table of the participants, with sex and age.
    """
    if norms is None:
        return
    images, volumes = tables.images, tables.volumes
    persons = get_demographics(participants, volumes)
    usable = _usable(volumes)
    for number, measure in enumerate(MEASURES):
        if norms.levels_of(measure):
            cells = volumes[measure].where(usable[:, number], MISSING)
            volumes[SCORE + measure] = _score(norms, measure, cells, volumes["level"], persons)
    persons, no_level = get_demographics(participants, images), pd.Series("", images.index, dtype=object)
    for angle in ANGLES:
        column = short_name(angle)
        images[SCORE + column] = _score(norms, angle, images[column], no_level, persons)


def _score(norms: Norms, measure: str, cells: pd.Series[str], levels: pd.Series[str], persons: pd.DataFrame) -> Cells:
    """Return the z-scores of a column as text."""
    scores = np.full(len(cells), MISSING, dtype=object)
    found = np.flatnonzero(cells != MISSING)
    rows_of = levels.iloc[found].groupby(levels.iloc[found].to_numpy()).indices
    for level in norms.levels_of(measure):
        rows = found[rows_of.get(level, np.array([], int))]
        values = cells.to_numpy(object)[rows].astype(float)
        sex, age = persons["sex"].to_numpy(object)[rows], persons["age"].to_numpy(float)[rows]
        z = norms.z(measure, level, values, sex=sex, age=age)
        scores[rows] = [f"{score:.2f}" if np.isfinite(score) else MISSING for score in z]
    return scores


def make_long_table(tables: GroupTables) -> pd.DataFrame:
    """Arrange all values in a table with one row per value, with `LONG_COLUMNS`.

    Expected values that are missing have a row too, with the reason.
    """
    volumes, images = tables.volumes, tables.images
    values = volumes[list(MEASURES)].to_numpy(object)
    there = values != MISSING
    notes = volumes["measure-note"].to_numpy(object)
    expected = np.zeros(values.shape, bool)
    for structure, measures in _EXPECTED.items():
        rows = (volumes["structure"] == structure).to_numpy() & (notes != MISSING)
        expected |= rows[:, None] & np.isin(MEASURES, list(measures))
    rows, columns = np.nonzero(there | expected)
    shared = (*_KEY_NAMES, "structure", "level", "name", "partial")
    long = pd.DataFrame(
        {
            **{name: volumes[name].to_numpy(object)[rows] for name in shared},
            **_values(volumes, [COLUMNS[name] for name in MEASURES], MEASURES, rows, columns),
            "note": np.where(there[rows, columns], MISSING, notes[rows]),
        }
    )
    names = [short_name(name) for name in ANGLES]
    rows, columns = np.nonzero(images[names].to_numpy(object) != MISSING)
    angles = pd.DataFrame(
        {
            **{name: images[name].to_numpy(object)[rows] for name in _KEY_NAMES},
            "structure": "spine",
            "partial": "false",
            **_values(images, [POSTURE_COLUMNS[name] for name in ANGLES], names, rows, columns),
        }
    )
    return pd.concat([long, angles]).reindex(columns=[column.name for column in LONG_COLUMNS]).fillna(MISSING)


def _values(
    table: pd.DataFrame,
    columns: Sequence[TableColumn],
    names: Sequence[str],
    rows: NDArray[np.intp],
    which: NDArray[np.intp],
) -> dict[str, Cells]:
    """Return cells, given by row and column number, with the name and unit of the measure and the z-score."""
    scores = table.reindex(columns=[SCORE + name for name in names], fill_value=MISSING)
    return {
        "measure": np.array([column.short_name for column in columns], object)[which],
        "value": table[list(names)].to_numpy(object)[rows, which],
        "units": np.array([column.unit or MISSING for column in columns], object)[which],
        "z": scores.to_numpy(object)[rows, which],
    }


def make_wide_table(tables: GroupTables) -> tuple[pd.DataFrame, list[TableColumn]]:
    """Arrange the measures with one row per image and one column per level and measure, such as ``L4_height``.

    Volumes of levels that the field of view cuts and columns without any value are omitted.

    Returns
    -------
    DataFrame, list of TableColumn
        The table and its columns.
    """
    images, volumes = tables.images, tables.volumes
    levels = (*VERTEBRA_LEVELS, *DISC_LEVELS)
    row = pd.Index(images["image"]).get_indexer(pd.Index(volumes["image"]))
    level = pd.Index(levels).get_indexer(pd.Index(volumes["level"]))
    labels, measures = np.nonzero(_usable(volumes) & ((row >= 0) & (level >= 0))[:, None])
    cube = np.full((len(images), len(levels), len(MEASURES)), MISSING, dtype=object)
    cube[row[labels], level[labels], measures] = volumes[list(MEASURES)].to_numpy(object)[labels, measures]
    angles = [replace(POSTURE_COLUMNS[name], name=short_name(name)) for name in ANGLES]
    angles = [column for column in angles if (images[column.name] != MISSING).any()]
    columns = [*_KEYS, _STATUS, _RATING, *angles]
    cells = {column.name: images[column.name].to_numpy(object) for column in columns}
    for at_level, at_measure in np.argwhere((cube != MISSING).any(axis=0)):
        measure, name = COLUMNS[MEASURES[at_measure]], levels[at_level]
        column = replace(measure, name=f"{name}_{measure.short_name}", title=f"{measure.title} of {name}")
        columns.append(column)
        cells[column.name] = cube[:, at_level, at_measure]
    return pd.DataFrame(cells), columns


def write_table(path: Path, table: pd.DataFrame, columns: Sequence[TableColumn]) -> None:
    """Write a table, with the short names of its columns, and its data dictionary beside it.

    Parameters
    ----------
    path : Path
        The table, without its extension.
    table : pd.DataFrame
        Text without tabs or line breaks.
    columns : sequence of TableColumn
        Columns to write, in this order.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    named = [replace(column, name=column.short_name) for column in columns]
    rows = zip(*(table[column.name].tolist() for column in columns), strict=True)
    # Ten times as fast as DataFrame.to_csv, which also quotes cells, unlike BIDS.
    with atomic_writer(path.with_suffix(".tsv")) as stream:
        stream.write(("\t".join(column.name for column in named) + "\n").encode())
        stream.writelines(("\t".join(row) + "\n").encode() for row in rows)
    dictionary: dict[str, Any] = describe_columns(named)
    write_text(path.with_suffix(".json"), json.dumps(dictionary, indent=2, ensure_ascii=False) + "\n")
