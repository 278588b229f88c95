"""Fetch the content of images with DataLad."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.imaging.checks import is_fetched

logger = logging.getLogger(__name__)

PROGRAM = "datalad"


def check_datalad() -> None:
    """Raise an error if DataLad is not installed.

    Raises
    ------
    MissingInputError
        If there is no program ``datalad`` on ``PATH``.
    """
    if shutil.which(PROGRAM) is None:
        msg = "--datalad-get needs DataLad; install it (pip install datalad, and git-annex), or fetch the images first"
        raise MissingInputError(msg)


def report_absent_content(sources: Iterable[SourceImage]) -> None:
    """Log how many images have no content, and how to get it."""
    absent = [source for source in sources if not is_fetched(source.path)]
    if absent:
        way = "--datalad-get fetches them" if shutil.which(PROGRAM) else "fetch them with 'datalad get'"
        logger.warning("%d images without content, such as %s; %s", len(absent), absent[0].relative, way)


def fetch_content(dataset: Path, sources: Iterable[SourceImage]) -> None:
    """Fetch images without content. A failure is logged; the image then fails when it is read.

    Parameters
    ----------
    dataset : Path
        The raw dataset.
    sources : iterable of SourceImage
        Its images.
    """
    absent = [source for source in sources if not is_fetched(source.path)]
    if not absent:
        return
    logger.info("fetch %d images: %s", len(absent), ", ".join(source.name for source in absent))
    command = [PROGRAM, "get", "--", *(source.relative for source in absent)]
    try:
        done = subprocess.run(command, cwd=dataset, capture_output=True, check=False, text=True, errors="replace")
    except OSError as error:
        logger.error("datalad get: %s", error)  # noqa: TRY400 - without traceback
        return
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        logger.error("datalad get ended with exit code %d: %s", done.returncode, said[-1])
