"""Group level: tables and a page on all images, made from the derivatives only."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from totalspineseg_bids.anatomy import SCHEME_ALIASES
from totalspineseg_bids.app import group_inputs, group_tables
from totalspineseg_bids.app.group_profiles import BAND_COLUMNS, make_band_table, read_profiles, summarise_profiles
from totalspineseg_bids.app.reports import read_images
from totalspineseg_bids.app.selection import make_selection
from totalspineseg_bids.bids.derivatives import ImageDerivatives
from totalspineseg_bids.bids.description import read_dataset_texts
from totalspineseg_bids.bids.names import GROUP_PROFILES
from totalspineseg_bids.bids.publish import clean_root
from totalspineseg_bids.bids.query import make_filter
from totalspineseg_bids.columns import MISSING
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import MissingInputError, NothingSelectedError, writing

logger = logging.getLogger(__name__)

VOLUMES = "group_volumes"
IMAGES = "group_images"
MEASURES = "group_measures"
WIDE = "group_measures_wide"
PAGE = "group.html"


def read_tables(config: RunConfig) -> group_tables.GroupTables:
    """Read the derivatives of the images that a configuration selects; participants without any are logged."""
    selected = make_filter(make_selection(config))
    images = [image for image in read_images(config.output_dir, config.participant_label) if selected(image.source)]
    found = {image.source.participant for image in images}
    absent = [label for label in config.participant_label if label not in found]
    if found and absent:
        logger.warning("%s: has no results of participant %s", config.output_dir, ", ".join(absent))
    _report_mixture(config.output_dir, images)
    return group_tables.make_tables(images)


def _report_mixture(output: Path, images: Iterable[ImageDerivatives]) -> None:
    """Warn of results that were made in different ways."""
    sidecars = [image.sidecar for image in images]
    for what, entry, name in (
        ("label schemes", "Settings", "label_scheme"),
        ("models", "Model", "Name"),
        ("versions", "SoftwareUsed", "totalspineseg_bids"),
    ):
        entries = [sidecar[entry] for sidecar in sidecars if isinstance(sidecar.get(entry), Mapping)]
        counts = Counter(str(values[name]) for values in entries if name in values)
        if len(counts) > 1:
            found = ", ".join(f"{SCHEME_ALIASES.get(value, value)}: {n} images" for value, n in sorted(counts.items()))
            logger.warning("%s: results of several %s (%s); process all images with one of them", output, what, found)


def run_group(config: RunConfig) -> group_tables.GroupTables:
    """Run the group level.

    The group level writes ``group.html``, ``group_images.tsv`` (one row per image), ``group_volumes.tsv`` (one row per
    label), ``group_measures.tsv`` (one row per value), ``group_measures_wide.tsv`` (one row per image, one column per
    level and measure) and ``group_profiles.tsv`` (areas along the column), each table with its data dictionary.

    A dry run lists the images that would be used, with their status, on standard output.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.

    Returns
    -------
    GroupTables
        Tables that were written.

    Raises
    ------
    MissingInputError
        If the output folder does not exist, or the content of a result was not fetched.
    NothingSelectedError
        If it holds no selected image.
    UsageError
        If the ratings, the reference values or the reference group are invalid.
    OutputError
        If the output cannot be written.
    """
    from totalspineseg_bids.report.group import write_group_report  # noqa: PLC0415 - loads plotting libraries

    output = config.output_dir
    if not output.is_dir():
        msg = f"{output}: no such folder; run the participant level first"
        raise MissingInputError(msg)
    tables = read_tables(config)
    if tables.images.empty:
        msg = f"{output}: holds no derivatives of the images asked for; run the participant level first"
        raise NothingSelectedError(msg)
    participants = group_inputs.read_participants(config, set(tables.images["participant"]))
    norms = group_inputs.read_norms(config.norms)
    group_tables.add_ratings(tables.images, group_inputs.read_ratings(config.qc_file, tables.images["image"]))
    reference = group_inputs.select_reference(config.reference, participants, tables.images)
    if config.dry_run:
        for status, source in zip(tables.images["status"], tables.images["source"], strict=True):
            sys.stdout.write(f"{status}\t{source}\n")
        return tables
    clean_root(output)
    group_tables.add_scores(tables, norms, participants)
    areas = read_profiles(output, tables.images)
    used = None if reference is None else tables.images["image"].isin(list(reference)).to_numpy()
    band = summarise_profiles(areas, used)
    with writing(output, "free its disk or change its permissions"):
        group_tables.write_table(output / VOLUMES, tables.volumes, group_tables.VOLUME_COLUMNS)
        group_tables.write_table(output / IMAGES, tables.images, group_tables.IMAGE_COLUMNS)
        group_tables.write_table(output / MEASURES, group_tables.make_long_table(tables), group_tables.LONG_COLUMNS)
        group_tables.write_table(output / WIDE, *group_tables.make_wide_table(tables))
        group_tables.write_table(output / GROUP_PROFILES, make_band_table(areas, band, used), BAND_COLUMNS)
        write_group_report(
            output / PAGE,
            tables.images,
            tables.volumes,
            dataset_name=read_dataset_texts(config.bids_dir).get("Name") or config.bids_dir.name,
            participants=group_inputs.merge_sessions(participants),
            areas=areas,
            band=band,
            reference=(config.reference, reference) if config.reference and reference else None,
            self_contained=config.self_contained,
        )
    corrected = int((tables.images["corrections"] != MISSING).sum())
    logger.info(
        "%d images (%d corrected), %d labels: %s", len(tables.images), corrected, len(tables.volumes), output / PAGE
    )
    return tables
