"""Reports made from the files of the output folder, during a run or later."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from totalspineseg_bids.app.corrections import ImageCorrections
from totalspineseg_bids.app.crash import FAILED, Failure, read_crashes
from totalspineseg_bids.bids.derivatives import ImageDerivatives, check_fetched, read_derivatives
from totalspineseg_bids.bids.names import ENTITY_NAMES, GROUP_PROFILES, SourceImage, report_name
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.report.image_report import ImageReport

logger = logging.getLogger(__name__)

#: Highest number of attempts to write a report while other runs complete images of the same participant.
_TRIES = 20


def describe_provenance(result: ImageDerivatives) -> dict[str, str]:
    """Return the entries on provenance that a report shows, by heading."""
    sidecar = result.sidecar
    entries: dict[str, str] = {"Source": result.source.relative, "Model": result.model}
    if result.bundled:
        entries["Model"] += " (trained on synthetic images, for trying out)"
    for key, title in (("Digests", "digest"), ("Settings", ""), ("SoftwareUsed", "")):
        value = sidecar.get(key)
        if isinstance(value, Mapping):
            entries.update({f"{name} {title}".strip(): str(item) for name, item in value.items() if item is not None})
    return entries


def name_entities(source: SourceImage) -> dict[str, str]:
    """Return the entities of an image, including the suffix, by the names that a page shows."""
    named = {ENTITY_NAMES.get(key, key): value for key, value in source.entities.items()}
    return {**named, "suffix": source.suffix}


def make_image_report(output: Path, result: ImageDerivatives) -> ImageReport:
    """Return the part of the report on a completed image in an output folder."""
    corrections = ImageCorrections.from_sidecar(result.sidecar)
    groups = (result.sidecar.get(key) for key in ("Posture", "ImageQuality"))
    return ImageReport(
        title=result.source.name,
        entities=name_entities(result.source),
        status=result.status,
        reason=result.reason,
        flags=result.flags,
        rows=[dict(row) for row in result.rows],
        figures=result.figures,
        profile=_read_optional_table(output / result.names.profile(".tsv")),
        labels_digest=str(result.sidecar.get("LabelsDigest") or ""),
        corrections=corrections.as_cells(),
        edited_map=corrections.edited.name if corrections.edited else "",
        provenance=describe_provenance(result),
        bundled=result.bundled,
        measures={k: str(v) for group in groups if isinstance(group, Mapping) for k, v in group.items()},
    )


def _read_optional_table(path: Path) -> list[dict[str, str]]:
    """Read a table; one that does not exist or cannot be read has no rows."""
    try:
        return read_table(path) if path.is_file() else []
    except (OSError, ValueError) as error:
        logger.warning("%s: cannot be read, left out (%s)", path, error)
        return []


def make_failure_report(failure: Failure) -> ImageReport:
    """Return the part of the report on a failed image."""
    return ImageReport(
        title=failure.source.name,
        entities=name_entities(failure.source),
        status=FAILED,
        reason=failure.reason,
        flags=(),
        rows=[],
        figures={},
        provenance={"Source": failure.source.relative},
    )


def make_image_reports(output: Path, participant: str) -> list[ImageReport]:
    """Return the parts of the report of a participant on all completed and failed images, sorted by path.

    Raises
    ------
    MissingInputError
        If the content of a result was not fetched.
    """
    results = list(read_derivatives(output, (participant,)))
    check_fetched(output, [output / name for result in results for name in result.figures.values()])
    pages: dict[str, ImageReport] = {result.source.relative: make_image_report(output, result) for result in results}
    for relative, failure in read_crashes(output, participant).items():
        pages[relative] = make_failure_report(failure)
    return [pages[relative] for relative in sorted(pages)]


def write_viewer(output: Path) -> None:
    """Write the script of the full-resolution viewer, if it is installed and not there yet.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    from totalspineseg_bids.report.volume import viewer_assets  # noqa: PLC0415 - loads plotting libraries

    for name, content in viewer_assets().items():
        path = output / name
        # Several processes may start in one folder, so a file that is up to date is not rewritten.
        if not path.is_file() or path.stat().st_size != len(content):
            path.parent.mkdir(exist_ok=True)
            write_bytes(path, content)


def write_participant_report(output: Path, participant: str, *, self_contained: bool = False) -> Path | None:
    """Write the report of a participant from the derivatives on disk.

    Parameters
    ----------
    output : Path
        Output folder.
    participant : str
        Label without ``sub-``.
    self_contained : bool
        Embed the full-resolution viewer and its data.

    Returns
    -------
    Path or None
        The report; ``None`` if there is no image to show.

    Raises
    ------
    MissingInputError
        If the content of a result was not fetched.
    OSError
        If it cannot be written.
    """
    from totalspineseg_bids.report.subject import write_subject_report  # noqa: PLC0415 - loads plotting libraries

    images = make_image_reports(output, participant)
    if not images:
        return None
    write_viewer(output)
    path = output / report_name(participant)
    band = _read_optional_table(output / f"{GROUP_PROFILES}.tsv")
    for _ in range(_TRIES):
        write_subject_report(
            path,
            f"sub-{participant}",
            images,
            group_page="group.html",
            band=band,
            self_contained=self_contained,
        )
        # Another run may have completed an image of the same participant and written its page before this one. The
        # process that writes last must include all images.
        former, images = images, make_image_reports(output, participant)
        if images == former:
            break
    return path


def list_participants(output: Path, participants: Collection[str] = ()) -> list[str]:
    """Return the labels of the participants, of all or of those given, with completed or failed images.

    Raises
    ------
    MissingInputError
        If the content of a result was not fetched.
    """
    labels = {result.source.participant for result in read_derivatives(output, participants)}
    failed = {failure.source.participant for failure in read_crashes(output).values()}
    return sorted(labels | {label for label in failed if not participants or label in participants})
