"""The measures of a group in a long table (one row a value) and in a wide one (one row an image)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from totalspineseg_bids.anatomy import DISC_LEVELS, VERTEBRA_LEVELS
from totalspineseg_bids.app.group_inputs import Demographics
from totalspineseg_bids.bids.tables import MISSING
from totalspineseg_bids.measurement.levels import COLUMNS
from totalspineseg_bids.measurement.norms import Norms
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS

Row = Mapping[str, str]

#: Prefix of the keys under which rows carry z-scores; no table has such a column.
SCORE: Final = "z:"
_UNIT: Final = re.compile(r"-(?:mm[23]?|deg)$")
_ABOUT: Final = frozenset({"partial", "measure-note"})
_MEASURES: Final = tuple(name for name in COLUMNS if name not in _ABOUT)
_ANGLES: Final = tuple(name for name, entry in POSTURE_COLUMNS.items() if "Units" in entry)
_SHAPE: Final = ("height-mm", "height-anterior-mm", "height-middle-mm", "height-posterior-mm", "depth-mm", "width-mm")
_CANAL: Final = tuple(name for name in _MEASURES if name.startswith(("canal-", "cord-")))
#: What there should be of each kind of structure; what is missing of it is listed with its reason.
_EXPECTED: Final[Mapping[str, tuple[str, ...]]] = {
    "vertebra": ("volume-mm3", *_SHAPE, "wedge-deg", *_CANAL),
    "disc": ("volume-mm3", *_SHAPE, "wedge-deg", "height-index", "slip-mm", *_CANAL),
}
#: Spelled out once; a reader of the table learns the same from the JSON beside it.
LONG_COLUMNS: Final[Mapping[str, str]] = {
    "participant": "Participant, as participant_id in participants.tsv",
    "session": "Session, with ses-; n/a where there is none",
    "image": "File name of the raw image, without extension",
    "suffix": "BIDS suffix of the raw image",
    "structure": "Kind of structure: vertebra, sacrum, disc, spinal_cord, spinal_canal, or spine for angles",
    "level": "Anatomical level; n/a where it has none or the evidence does not decide it",
    "name": "Name of the label; n/a for angles",
    "measure": "What was measured; see Levels",
    "value": "The value; n/a where it could not be measured",
    "units": "Unit of the value; n/a where it has none",
    "z": "Distance from the reference value in standard deviations; n/a where no reference value fits",
    "partial": "true where the field of view cuts the structure: leave its volume out of statistics",
    "note": "Why the value is missing",
}


def short_name(column: str) -> str:
    """Return a measure's column without its unit, which the table's description gives."""
    return _UNIT.sub("", column)


def is_whole(row: Row, measure: str) -> bool:
    """Tell whether a value is that of the whole structure; the volume of one that the field of view cuts is not."""
    return measure != "volume-mm3" or row.get("partial") != "true"


def long_dictionary() -> dict[str, object]:
    """Return the data dictionary of the long table."""
    described: dict[str, object] = {name: {"Description": text} for name, text in LONG_COLUMNS.items()}
    entries = {**{n: COLUMNS[n] for n in _MEASURES}, **{n: POSTURE_COLUMNS[n] for n in _ANGLES}}
    levels = {short_name(name): entry["Description"] for name, entry in entries.items()}
    return {**described, "measure": {"Description": LONG_COLUMNS["measure"], "Levels": levels}}


def add_scores(
    volumes: Iterable[dict[str, str]], norms: Norms | None, demographics: Mapping[str, Demographics]
) -> None:
    """Put the z-score of each whole value with a reference value into its row, under `SCORE` and the column."""
    if norms is None:
        return
    measured = {measure for measure, _ in norms.entries}
    for row in volumes:
        known = demographics.get(row["participant"], Demographics())
        for measure in _MEASURES:
            value = row.get(measure, "")
            if measure in measured and value not in {"", MISSING} and is_whole(row, measure):
                score = norms.z(measure, row.get("level", ""), float(value), sex=known.sex, age=known.age)
                if score is not None:
                    row[SCORE + measure] = f"{score:.2f}"


def long_rows(
    images: Sequence[Row], volumes: Iterable[Row], norms: Norms | None, demographics: Mapping[str, Demographics]
) -> Iterator[Row]:
    """Yield one row a value; a value that should be there and is not comes with its reason.

    Parameters
    ----------
    images, volumes
        Rows of the tables of images and of labels.
    norms
        Reference values, for the z-scores of the angles (those of levels are in the rows).
    demographics
        Sex and age of the participants.
    """
    for row in volumes:
        keys = {name: row.get(name, "") for name in ("participant", "session", "image", "suffix", "structure", "level")}
        common = {**keys, "name": row.get("name", ""), "partial": row.get("partial", "")}
        note = row.get("measure-note", "")
        reasons = note if note != MISSING else ""
        expected = _EXPECTED.get(row.get("structure", ""), ())
        for measure in _MEASURES:
            value = row.get(measure, "")
            there = value not in {"", MISSING}
            if not there and not (reasons and measure in expected):
                continue
            yield {
                **common,
                "measure": short_name(measure),
                "value": value,
                "units": COLUMNS[measure].get("Units", ""),
                "z": row.get(SCORE + measure, ""),
                "note": "" if there else reasons,
            }
    for row in images:
        known = demographics.get(row["participant"], Demographics())
        for angle in _ANGLES:
            text = row.get(short_name(angle), "")
            if text in {"", MISSING}:
                continue
            score = norms.z(angle, "", float(text), sex=known.sex, age=known.age) if norms is not None else None
            yield {
                **{name: row.get(name, "") for name in ("participant", "session", "image", "suffix")},
                "structure": "spine",
                "measure": short_name(angle),
                "value": text,
                "units": POSTURE_COLUMNS[angle].get("Units", ""),
                "z": "" if score is None else f"{score:.2f}",
                "partial": "false",
            }


def wide_table(images: Sequence[Row], volumes: Iterable[Row]) -> tuple[list[dict[str, str]], dict[str, object]]:
    """Arrange the measures with one row an image and one column a level and measure, such as ``L4_height``.

    Volumes of levels that the field of view cuts are left out.

    Parameters
    ----------
    images, volumes
        Rows of the tables of images and of labels.

    Returns
    -------
    tuple
        Rows, and the data dictionary, whose order is that of the columns. Columns without any value are left out.
    """
    keys = ("participant", "session", "image", "suffix", "status", "rating")
    rows = {row["image"]: {name: row.get(name, "") for name in keys} for row in images}
    angles = [a for a in _ANGLES if any(row.get(short_name(a), "") not in {"", MISSING} for row in images)]
    for row in images:
        rows[row["image"]].update({short_name(a): row.get(short_name(a), "") for a in angles})
    used: set[tuple[str, str]] = set()
    for row in volumes:
        level, target = row.get("level", ""), rows.get(row.get("image", ""))
        if target is None or level in {"", MISSING}:
            continue
        for measure in _MEASURES:
            value = row.get(measure, "")
            if value not in {"", MISSING} and is_whole(row, measure):
                used.add((level, measure))
                target[f"{level}_{short_name(measure)}"] = value
    described: dict[str, object] = {
        **{name: {"Description": LONG_COLUMNS[name]} for name in keys[:4]},
        "status": {"Description": "labelled, abstained (structures found, levels not decided), no-spine or failed"},
        "rating": {"Description": "What a reader said of the image: good, doubtful or bad"},
        **{short_name(angle): POSTURE_COLUMNS[angle] for angle in angles},
    }
    for level in (*VERTEBRA_LEVELS, *DISC_LEVELS):
        for measure in _MEASURES:
            if (level, measure) in used:
                entry = COLUMNS[measure]
                title = {"LongName": f"{entry['LongName']} of {level}"}
                described[f"{level}_{short_name(measure)}"] = {**entry, **title}
    return list(rows.values()), described
