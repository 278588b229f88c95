"""Find nnU-Net model folders, without loading torch.

A *model folder* holds ``dataset.json``, ``plans.json`` and at least one ``fold_X/checkpoint_final.pth`` (or
``checkpoint_best.pth``), as nnU-Net writes and exports it
(https://github.com/MIC-DKFZ/nnUNet, documentation of model export).
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.files import sha256_of

CHECKPOINT_NAMES = ("checkpoint_final.pth", "checkpoint_best.pth")
_MAX_JSON_BYTES = 64 * 2**20
#: nnU-Net nests ``Dataset/Trainer__Plans__configuration``; a results tree adds a few levels on top.
_MAX_DEPTH = 6


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ModelError
        If it cannot be read or is not an object.
    """
    try:
        with path.open("rb") as stream:
            content = json.loads(stream.read(_MAX_JSON_BYTES))
    except (OSError, ValueError) as error:
        msg = f"cannot read {path}: {error}; copy or install the model again"
        raise ModelError(msg) from error
    if not isinstance(content, dict):
        msg = f"{path} does not hold a JSON object; copy or install the model again"
        raise ModelError(msg)
    return content


def fold_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoint of each fold, sorted.

    ``checkpoint_final.pth`` is preferred over ``checkpoint_best.pth``. As in nnU-Net, ``fold_all`` is used only
    without numbered folds.
    """
    found: dict[str, Path] = {}
    for file in (file for name in CHECKPOINT_NAMES for file in folder.glob(f"fold_*/{name}") if file.is_file()):
        found.setdefault(file.parent.name, file)
    numbered = [fold for fold in found if fold != "fold_all"]
    return [found[fold] for fold in sorted(numbered or found, key=lambda fold: (len(fold), fold))]


def is_model_folder(folder: Path) -> bool:
    """Return True if a folder holds both JSON files and a checkpoint."""
    return all((folder / name).is_file() for name in ("plans.json", "dataset.json")) and bool(fold_checkpoints(folder))


def find_model_folders(root: Path, depth: int = _MAX_DEPTH) -> list[Path]:
    """Find all model folders at or below ``root``, sorted by name.

    Hidden folders are skipped, and model folders are not searched for further ones.

    Raises
    ------
    ModelError
        If a folder cannot be listed.
    """
    if is_model_folder(root):
        return [root]
    if depth == 0:
        return []
    found: list[Path] = []
    try:
        children = sorted(root.iterdir(), key=lambda item: item.name)
    except OSError as error:
        msg = f"cannot look for models in {root}: {error.strerror}"
        raise ModelError(msg) from error
    for child in children:
        if child.is_dir() and not child.name.startswith((".", "__")):
            found += find_model_folders(child, depth - 1)
    return found


def is_full_resolution_3d(folder: Path) -> bool:
    """Return True if the name of a model folder has the configuration ``3d_fullres`` or none."""
    parts = folder.name.split("__")
    return len(parts) < 3 or parts[-1].startswith("3d_fullres")


def select_model_folder(root: Path) -> Path:
    """Return the one model folder at or below ``root``.

    Raises
    ------
    ModelError
        If there is none, or more than one is left.
    """
    found = find_model_folders(root)
    if not found:
        msg = (
            f"no nnU-Net model in {root}: dataset.json, plans.json and fold_X/checkpoint_final.pth are expected "
            "together in one folder"
        )
        raise ModelError(msg)
    if len(found) > 1:
        found = [folder for folder in found if is_full_resolution_3d(folder)] or found
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found)
        msg = f"{root} must hold exactly one model folder, found {len(found)} ({names}); name the folder itself"
        raise ModelError(msg)
    return found[0]


@lru_cache(maxsize=64)
def _digest_of_state(path: str, size: int, modified: int) -> str:  # noqa: ARG001 - part of the cache key
    return sha256_of(Path(path))


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal; cached by path, size and modification time.

    Raises
    ------
    ModelError
        If the file cannot be read.
    """
    try:
        state = path.stat()
        return _digest_of_state(str(path.resolve()), state.st_size, state.st_mtime_ns)
    except OSError as error:
        msg = f"cannot read {path}: {error}; copy or install the model again"
        raise ModelError(msg) from error


def checkpoints_digest(folder: Path) -> str:
    """Return the SHA-256 of the checkpoint of a model folder; with several folds, that of their digests, one per line.

    Raises
    ------
    ModelError
        If a file cannot be read.
    """
    digests = [sha256(file) for file in fold_checkpoints(folder)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
