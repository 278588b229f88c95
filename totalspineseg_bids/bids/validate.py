"""Validation of the input by the reference validator (bids-validator-deno), without network access."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import DatasetError

logger = logging.getLogger(__name__)

PROGRAM = "bids-validator-deno"
#: Errors in the content of one file: that image fails when it is read, other images are processed.
_OF_ONE_FILE = frozenset({"EMPTY_FILE", "SYMLINK_BROKEN", "JSON_INVALID", "FILE_READ", "NIFTI_HEADER_UNREADABLE"})
#: Folders of a dataset that the validator does not check.
_NOT_VALIDATED = frozenset({"derivatives", "sourcedata", ".git", ".datalad"})
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Issue:
    """One error that the validator found."""

    code: str
    """Code of the validator, such as ``FILENAME_MISMATCH``."""
    location: str
    """File below the dataset, with a leading ``/``."""
    message: str
    """Explanation of the code."""

    def __str__(self) -> str:
        """Return the issue as one line."""
        return f"{self.code} {self.location}: {self.message}" if self.message else f"{self.code} {self.location}"


def find_validator() -> str | None:
    """Return the path of the validator, next to this Python or on ``PATH``; ``None`` if it is not installed."""
    beside = Path(sys.executable).parent
    return shutil.which(PROGRAM, path=str(beside)) or shutil.which(PROGRAM)


def validate(dataset: Path, participants: Sequence[str] = ()) -> list[Issue]:
    """Return the errors that the validator finds in a dataset, without warnings.

    Image headers are not validated here; they are checked when the images are read.

    Parameters
    ----------
    dataset : Path
        Folder of a raw or derived dataset.
    participants : sequence of str
        Labels of the participants to validate; empty means all.

    Raises
    ------
    FileNotFoundError
        If the validator is not installed.
    RuntimeError
        If the validator gives no result.
    """
    program = find_validator()
    if program is None:
        msg = f"{PROGRAM} is not installed"
        raise FileNotFoundError(msg)
    if not participants:
        return _run(program, dataset)
    with tempfile.TemporaryDirectory(prefix="totalspineseg-bids-") as folder:
        _make_view(dataset, participants, Path(folder))
        return _run(program, Path(folder))


def _make_view(dataset: Path, participants: Sequence[str], view: Path) -> None:
    """Fill a folder with links to the parts of a dataset that concern the given participants.

    The validator reads every file of its input, which takes minutes for a large dataset in each job of an array.
    """
    for entry in dataset.iterdir():
        other = entry.name.startswith("sub-") and entry.name.removeprefix("sub-") not in participants
        if not other and entry.name not in _NOT_VALIDATED:
            (view / entry.name).symlink_to(entry)


def _run(program: str, dataset: Path) -> list[Issue]:
    command = [program, "--format", "json", "--ignoreWarnings", "--ignoreNiftiHeaders", str(dataset)]
    environment = {**os.environ, "NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1"}
    answer = subprocess.run(command, capture_output=True, check=False, env=environment)
    try:
        content = json.loads(answer.stdout.decode("utf-8", "replace"))
        found: list[dict[str, Any]] = content["issues"]["issues"]
        meanings: dict[str, str] = content["issues"].get("codeMessages") or {}
    except (ValueError, KeyError, TypeError) as error:
        last = (answer.stderr.decode("utf-8", "replace").strip().splitlines() or ["no output"])[-1]
        msg = f"{PROGRAM} gave no result (exit code {answer.returncode}: {last})"
        raise RuntimeError(msg) from error
    issues = [
        Issue(
            str(item.get("code", "")),
            str(item.get("location", "")),
            " ".join(str(meanings.get(str(item.get("code")), "")).split()),
        )
        for item in found
        if item.get("severity") == "error"
    ]
    return sorted(issues, key=lambda issue: (issue.location, issue.code))


def check_dataset(dataset: Path, participants: Sequence[str] = ()) -> None:
    """Raise an error if the input is not a valid dataset.

    Only the given participants are validated. Errors in the content of one file are logged as warnings.

    Parameters
    ----------
    dataset : Path
        The input.
    participants : sequence of str
        Labels of the participants to validate; empty means all.

    Raises
    ------
    DatasetError
        If the validator finds errors; all are logged, the message contains the first.
    """
    try:
        issues = validate(dataset, participants)
    except (OSError, RuntimeError) as error:
        logger.warning("the input was not validated: %s", error)
        return
    fatal: list[Issue] = []
    for issue in issues:
        if issue.code in _OF_ONE_FILE and issue.location.startswith("/sub-"):
            logger.warning("%s", issue)
        else:
            fatal.append(issue)
    if not fatal:
        return
    for issue in fatal[:_SHOWN]:
        logger.error("%s", issue)
    if len(fatal) > _SHOWN:
        logger.error("and %d more", len(fatal) - _SHOWN)
    msg = (
        f"{dataset}: not a valid BIDS dataset, {len(fatal)} error{'s' if len(fatal) > 1 else ''}, the first is "
        f"{fatal[0].code} {fatal[0].location}; correct it or give --skip-bids-validation"
    )
    raise DatasetError(msg)
