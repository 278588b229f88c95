"""Pairing of predictions with truths by file name."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import MissingInputError, NothingSelectedError
from totalspineseg_bids.training.cases import LABEL_SUFFIXES, parse_name

logger = logging.getLogger(__name__)


def _stem(path: Path, root: Path) -> str:
    """Return the name below a folder without its ending."""
    return re.sub(r"\.nii(\.gz)?$", "", path.relative_to(root).as_posix())


def _key(path: Path, root: Path) -> tuple[frozenset[tuple[str, str]], str] | str:
    """Return the key of a pair: BIDS entities and suffix of the source, else the relative name."""
    name = parse_name(path)
    if name.get("sub") is None:
        return _stem(path, root)
    source = name.source_suffix or (name.suffix if name.suffix not in LABEL_SUFFIXES else "")
    return name.source_entities, source


def _label_files(root: Path) -> list[Path]:
    skipped = {"levels"}
    files = (path for path in root.rglob("*") if path.name.endswith((".nii", ".nii.gz")) and path.name[0] != ".")
    return sorted(
        path
        for path in files
        if parse_name(path).get("seg") not in skipped and parse_name(path).suffix not in ("probseg", "mask")
    )


def pair_files(predicted: Path, truth: Path) -> list[tuple[Path | None, Path]]:
    """Pair predictions with truths, two files or the files of two folders.

    Parameters
    ----------
    predicted, truth : Path
        Both files or both folders, searched to any depth. Files pair by the name below the folder where that is the
        same, else by BIDS entities and suffix of the source image (also where only one side has the suffix and
        the match is unique).

    Returns
    -------
    list of (Path or None, Path)
        Prediction and truth, one entry a truth; ``None`` where it has no prediction.

    Raises
    ------
    MissingInputError
        If either is not there.
    NothingSelectedError
        If nothing pairs.
    """
    for path in (predicted, truth):
        if not path.exists():
            msg = f"{path}: no such file or folder"
            raise MissingInputError(msg)
    if predicted.is_file() and truth.is_file():
        return [(predicted, truth)]
    if predicted.is_file() or truth.is_file():
        msg = f"{predicted} and {truth}: give two files or two folders"
        raise MissingInputError(msg)
    files = _label_files(predicted)
    by_name = {_stem(path, predicted): path for path in files}
    predictions: dict[Any, Path] = {}
    # Of several predictions of one image, such as a copy with res-, that with the plainest name counts.
    for path in sorted(files, key=lambda path: (len(parse_name(path).entities), path)):
        first = predictions.setdefault(_key(path, predicted), path)
        if first is not path:
            logger.info("%s: passed over, %s is of the same image", path, first.name)
    pairs: list[tuple[Path | None, Path]] = []
    for path in _label_files(truth):
        key = _key(path, truth)
        found = by_name.get(_stem(path, truth)) or predictions.get(key) or _only_candidate(key, predictions)
        pairs.append((found, path))
    if not any(found for found, _ in pairs):
        msg = f"no file of {predicted} pairs with one of {truth}; names must agree, or the BIDS entities in them"
        raise NothingSelectedError(msg)
    return pairs


def _only_candidate(key: Any, predictions: dict[Any, Path]) -> Path | None:  # noqa: ANN401
    """Return the only prediction with the same entities, if one side lacks the suffix."""
    if isinstance(key, str):
        return None
    entities, suffix = key
    same = [(other, path) for other, path in predictions.items() if not isinstance(other, str) and other[0] == entities]
    fitting = [path for other, path in same if not suffix or not other[1]]
    return fitting[0] if len(fitting) == 1 and len(same) == 1 else None
