"""The group level: tables and a page over all images, made from the derivatives alone."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from totalspineseg_bids.app.crash import FAILED, Failure, read_crashes
from totalspineseg_bids.app.group_inputs import read_demographics, read_norms, read_participants, read_ratings
from totalspineseg_bids.app.group_measures import add_scores, long_dictionary, long_rows, short_name, wide_table
from totalspineseg_bids.bids.derivatives import ImageDerivatives, read_derivatives
from totalspineseg_bids.bids.description import read_dataset_name
from totalspineseg_bids.bids.names import SourceImage, report_name
from totalspineseg_bids.bids.publish import clean_root
from totalspineseg_bids.bids.tables import clean
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import MissingInputError, NothingSelectedError, OutputError
from totalspineseg_bids.imaging.atomic import atomic_writer, write_text
from totalspineseg_bids.measurement.levels import COLUMNS
from totalspineseg_bids.measurement.posture import POSTURE_COLUMNS

logger = logging.getLogger(__name__)

VOLUMES = "group_volumes"
IMAGES = "group_images"
MEASURES = "group_measures"
WIDE = "group_measures_wide"
PAGE = "group.html"

_KEYS: Mapping[str, str] = {
    "participant": "Participant, as participant_id in participants.tsv",
    "session": "Session, with ses-; n/a where there is none",
    "image": "File name of the raw image, without extension",
    "suffix": "BIDS suffix of the raw image",
}
_OF_LABEL: Mapping[str, str] = {
    "structure": "Kind of structure: vertebra, sacrum, disc, spinal_cord or spinal_canal",
    "level": "Anatomical level; n/a where it has none or the evidence does not decide it",
    "index": "Value in the label image",
    "name": "Name of the label",
    "confidence": "How sure the level is, from 0 to 1",
}
_OF_IMAGE: Mapping[str, str] = {
    "status": "labelled, abstained (structures found, levels not decided), no-spine or failed",
    "reason": "Why, for anything but labelled",
    "n_levels": "Number of vertebrae and discs with a level",
    "levels": "Levels seen, vertebrae first, separated by a comma",
    "flags": "Findings to look at, separated by a comma",
    "rating": "What a reader said of the image on the group page (--qc-file): good, doubtful or bad",
    "rating-note": "Remark of the reader",
}
_LAST: Mapping[str, str] = {
    "model": "Model set",
    "source": "Raw image, below its dataset",
    "report": "Page of the participant",
    "thumbnail": "Small picture of the image with its labels",
}


@dataclass(frozen=True, slots=True)
class GroupTables:
    """Rows of the two tables of a group.

    Attributes
    ----------
    images
        One row an image, done or failed.
    volumes
        One row a label of an image.
    """

    images: list[dict[str, str]]
    volumes: list[dict[str, str]]


def _keys(source: SourceImage) -> dict[str, str]:
    return {
        "participant": f"sub-{source.participant}",
        "session": f"ses-{source.session}" if source.session else "",
        "image": source.name,
        "suffix": source.suffix,
    }


def _volume_rows(result: ImageDerivatives) -> list[dict[str, str]]:
    rows = []
    for row in result.rows:
        # Under both names: the table has units in its description, the page knows the columns of the label table.
        measures = {column: row.get(column, "") for column in COLUMNS}
        short = {short_name(column): value for column, value in measures.items()}
        labels = {name: row.get(name, "") for name in _OF_LABEL}
        rows.append({**_keys(result.source), **labels, **measures, **short})
    return rows


def _image_row(result: ImageDerivatives) -> dict[str, str]:
    posture = result.sidecar.get("Posture")
    angles = posture if isinstance(posture, dict) else {}
    return {
        **_keys(result.source),
        "status": result.status,
        "reason": result.reason or "",
        "n_levels": str(len(result.levels)),
        "levels": ", ".join(result.levels),
        "flags": ", ".join(result.flags),
        **{short_name(column): str(angles.get(column) or "") for column in POSTURE_COLUMNS},
        "model": result.model,
        "source": result.source.relative,
        "report": report_name(result.source.participant),
        "thumbnail": result.figures.get("thumbnail", ""),
    }


def _failed_row(failure: Failure) -> dict[str, str]:
    return {
        **_keys(failure.source),
        "status": FAILED,
        "reason": failure.reason,
        "n_levels": "0",
        "source": failure.source.relative,
        "report": report_name(failure.source.participant),
    }


def _is_selected(source: SourceImage, config: RunConfig) -> bool:
    return (
        (not config.participant_label or source.participant in config.participant_label)
        and source.participant not in config.exclude_participant_label
        and (not config.session_label or source.session in config.session_label)
    )


def group_tables(config: RunConfig) -> GroupTables:
    """Read the derivatives and make the rows of both tables, sorted by image.

    An image that failed after it had been done counts as failed, and its former numbers are left out.

    Parameters
    ----------
    config
        Settings of the run: output folder and participants.
    """
    failures = {k: f for k, f in read_crashes(config.output_dir).items() if _is_selected(f.source, config)}
    results = {
        result.source.relative: result
        for result in read_derivatives(config.output_dir)
        if _is_selected(result.source, config)
    }
    images = {relative: _image_row(result) for relative, result in results.items()}
    images.update({relative: _failed_row(failure) for relative, failure in failures.items()})
    volumes: list[dict[str, str]] = []
    for relative in sorted(set(results) - set(failures)):
        volumes += _volume_rows(results[relative])
    return GroupTables([images[relative] for relative in sorted(images)], volumes)


def _described(columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"Description": text} for name, text in columns.items()}


def _write_table(output: Path, name: str, rows: Iterable[Mapping[str, str]], columns: Mapping[str, object]) -> None:
    names = list(columns)
    with atomic_writer(output / f"{name}.tsv") as stream:
        stream.write(("\t".join(names) + "\n").encode())
        for row in rows:
            stream.write(("\t".join([clean(row.get(column)) for column in names]) + "\n").encode())
    write_text(output / f"{name}.json", json.dumps(columns, indent=2, ensure_ascii=False) + "\n")


def run_group(config: RunConfig) -> GroupTables:
    """Run the group level.

    It writes ``group.html``, ``group_images.tsv`` (a row an image), ``group_volumes.tsv`` (a row a label),
    ``group_measures.tsv`` (a row a value) and ``group_measures_wide.tsv`` (a row an image, a column a level and
    measure), each with its data dictionary.

    A dry run lists the images that would go in, with their status, on standard output.

    Parameters
    ----------
    config
        Settings of the run.

    Returns
    -------
    GroupTables
        What was written.

    Raises
    ------
    MissingInputError
        If there is no output folder of a participant level.
    NothingSelectedError
        If it holds no image that is asked for.
    UsageError
        If the ratings or the reference values make no sense.
    OutputError
        If the output cannot be written.
    """
    from totalspineseg_bids.report.group import write_group_report  # noqa: PLC0415 - loads plotting libraries

    output = config.output_dir
    if not output.is_dir():
        msg = f"{output}: no such folder; run the participant level first"
        raise MissingInputError(msg)
    tables = group_tables(config)
    if not tables.images:
        msg = f"{output}: holds no derivatives of the participants asked for; run the participant level first"
        raise NothingSelectedError(msg)
    participants, norms = read_participants(config), read_norms(config.norms)
    ratings = read_ratings(config.qc_file, (row["image"] for row in tables.images))
    for row in tables.images:
        if row["image"] in ratings:
            rating = ratings[row["image"]]
            row.update({"rating": rating.rating, "rating-note": rating.note})
    if config.dry_run:
        for row in tables.images:
            sys.stdout.write(f"{row['status']}\t{row['source']}\n")
        return tables
    clean_root(output)
    demographics = read_demographics(participants)
    add_scores(tables.volumes, norms, demographics)
    measures = {short_name(column): text for column, text in COLUMNS.items()}
    angles = {short_name(column): text for column, text in POSTURE_COLUMNS.items()}
    name = read_dataset_name(config.bids_dir) or config.bids_dir.name
    wide, wide_columns = wide_table(tables.images, tables.volumes)
    try:
        _write_table(output, VOLUMES, tables.volumes, {**_described({**_KEYS, **_OF_LABEL}), **measures})
        _write_table(
            output, IMAGES, tables.images, {**_described({**_KEYS, **_OF_IMAGE}), **angles, **_described(_LAST)}
        )
        values = long_rows(tables.images, tables.volumes, norms, demographics)
        _write_table(output, MEASURES, values, long_dictionary())
        _write_table(output, WIDE, wide, wide_columns)
        write_group_report(
            output / PAGE,
            tables.images,
            tables.volumes,
            dataset_name=name,
            participants=participants,
            self_contained=config.self_contained,
        )
    except OSError as error:
        msg = f"{output}: cannot be written ({error.strerror}); free its disk or change its permissions"
        raise OutputError(msg) from error
    logger.info("%d images, %d labels: %s", len(tables.images), len(tables.volumes), output / PAGE)
    return tables
