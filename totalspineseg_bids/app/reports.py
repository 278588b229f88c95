"""Reports made from the files of the output folder, during a run or later."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from totalspineseg_bids.app.crash import FAILED, read_crashes
from totalspineseg_bids.bids.derivatives import ImageDerivatives, check_fetched, read_derivatives
from totalspineseg_bids.bids.names import GROUP_PROFILES, report_name
from totalspineseg_bids.bids.tables import read_optional_table
from totalspineseg_bids.imaging.atomic import write_bytes

#: Highest number of attempts to write a report while other runs complete images of the same participant.
_TRIES = 20


def read_images(output: Path, participants: Collection[str] = ()) -> list[ImageDerivatives]:
    """Return all completed and failed images, of all participants or of those given, sorted by path.

    An image that failed after it had been completed counts as failed.

    Raises
    ------
    MissingInputError
        If the content of a result was not fetched.
    """
    images = {result.source.relative: result for result in read_derivatives(output, participants)}
    for relative, failure in read_crashes(output, participants).items():
        images[relative] = ImageDerivatives(failure.source, {"Status": FAILED, "Reason": failure.reason})
    return [images[relative] for relative in sorted(images)]


def _read_page(output: Path, participant: str) -> list[ImageDerivatives]:
    images = read_images(output, (participant,))
    check_fetched(output, [output / name for image in images for name in image.figures.values()])
    return images


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

    images = _read_page(output, participant)
    if not images:
        return None
    write_viewer(output)
    path = output / report_name(participant)
    band = read_optional_table(output / f"{GROUP_PROFILES}.tsv")
    for _ in range(_TRIES):
        write_subject_report(path, f"sub-{participant}", images, band=band, self_contained=self_contained)
        # Another run may have completed an image of the same participant and written its page before this one. The
        # process that writes last must include all images.
        former, images = images, _read_page(output, participant)
        if images == former:
            break
    return path
