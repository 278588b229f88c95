"""Validation of the input by the reference validator (bids-validator-deno), without network access."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.errors import DatasetError
from totalspineseg_bids.files import decode_text
from totalspineseg_bids.home import home_folder

logger = logging.getLogger(__name__)

PROGRAM = "bids-validator-deno"
#: Errors in the content of one file: that image fails when it is read, other images are processed.
_OF_ONE_FILE = frozenset(
    {
        "EMPTY_FILE",
        "SYMLINK_BROKEN",
        "JSON_INVALID",
        "INVALID_JSON_ENCODING",
        "INVALID_FILE_ENCODING",
        "FILE_READ",
        "NIFTI_HEADER_UNREADABLE",
    }
)
DESCRIPTION = "dataset_description.json"
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
    message: str = ""
    """Explanation of the code."""
    keys: tuple[str, ...] = ()
    """Keys of the sidecar that it concerns, sorted."""

    @property
    def title(self) -> str:
        """Code, file and keys, without the explanation."""
        return f"{self.code} {self.location}" + (f" ({', '.join(self.keys)})" if self.keys else "")

    def __str__(self) -> str:
        """Return the issue as one line."""
        return f"{self.title}: {self.message}" if self.message else self.title


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
    with home_folder():
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
    # The validator repeats an issue for each missing key.
    keys: dict[tuple[str, str], set[str]] = {}
    for item in found:
        if item.get("severity") == "error":
            place = str(item.get("location", "")), str(item.get("code", ""))
            keys.setdefault(place, set()).update([str(item["subCode"])] if item.get("subCode") else [])
    return [
        Issue(code, location, " ".join(str(meanings.get(code, "")).split()), tuple(sorted(keys[location, code])))
        for location, code in sorted(keys)
    ]


def check_dataset(dataset: Path, images: Sequence[SourceImage], *, whole: bool = True, strict: bool = False) -> None:
    """Raise an error if the dataset is unreadable or its validator objects to an image that is to be processed.

    All other errors are logged as one warning per code, with a count and an example.

    Parameters
    ----------
    dataset : Path
        The input.
    images : sequence of SourceImage
        Images that are to be processed.
    whole : bool
        Whether to validate all participants, or only those of the images.
    strict : bool
        Whether every error of the validator is fatal, except those in the content of a single file.

    Raises
    ------
    DatasetError
        If there are fatal errors; they are logged, and the message contains the first.
    """
    _check_description(dataset)
    try:
        issues = validate(dataset, () if whole else sorted({image.participant for image in images}))
    except (OSError, RuntimeError) as error:
        logger.warning("the input was not validated: %s", error)
        return
    fatal = [issue for issue in issues if _is_fatal(issue, images, strict=strict)]
    _warn(issue for issue in issues if issue not in fatal)
    if not fatal:
        return
    for issue in fatal[:_SHOWN]:
        logger.error("%s", issue)
    if len(fatal) > _SHOWN:
        logger.error("and %d more", len(fatal) - _SHOWN)
    scope = "" if strict else " in files of the selected images"
    msg = (
        f"{dataset}: not a valid BIDS dataset, {len(fatal)} error{'s' if len(fatal) > 1 else ''}{scope}, the first is "
        f"{fatal[0].title}; correct it or give --skip-bids-validation"
    )
    raise DatasetError(msg)


def _check_description(dataset: Path) -> None:
    """Raise an error if the dataset has no description that can be read, in any encoding."""
    path = dataset / DESCRIPTION
    try:
        readable = isinstance(json.loads(decode_text(path.read_bytes())[0]), dict)
        problem = "" if readable else "not a JSON object"
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem:
        msg = f"{path}: cannot be read ({problem}); correct it or give --skip-bids-validation"
        raise DatasetError(msg)


def _is_fatal(issue: Issue, images: Sequence[SourceImage], *, strict: bool) -> bool:
    of_subject = issue.location.startswith("/sub-")
    if issue.code in _OF_ONE_FILE and (of_subject or not strict):
        return False
    return strict or any(_concerns(issue.location, image) for image in images)


def _concerns(location: str, image: SourceImage) -> bool:
    """Return whether a file is an image or one of its sidecars, by the inheritance principle of BIDS.

    Source: BIDS specification 1.11, "The Inheritance Principle".
    """
    path = PurePosixPath(location.removeprefix("/"))
    if path.parent not in PurePosixPath(image.relative).parents:
        return False
    *entities, suffix = path.name.split(".", 1)[0].split("_")
    return suffix == image.suffix and set(entities) <= set(image.stem.split("_"))


def _warn(issues: Iterable[Issue]) -> None:
    """Log one warning per code, with the number of files and an example."""
    by_code: dict[str, list[Issue]] = {}
    for issue in issues:
        by_code.setdefault(issue.code, []).append(issue)
    for code, found in by_code.items():
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        sentence = found[0].message.split(". ", 1)[0].rstrip(".")
        logger.warning("BIDS validator: %s %s%s: %s", code, found[0].location or "/", more, sentence)
