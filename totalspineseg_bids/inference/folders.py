"""Find nnU-Net model folders on disk or in a zip, without loading torch.

A *model folder* holds ``dataset.json``, ``plans.json`` and at least one ``fold_X/checkpoint_final.pth`` (or
``checkpoint_best.pth``), as nnU-Net writes and exports it
(https://github.com/MIC-DKFZ/nnUNet, documentation of model export).
"""

from __future__ import annotations

import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.files import sha256_of, sha256_of_stream

CHECKPOINT_NAMES = ("checkpoint_final.pth", "checkpoint_best.pth")
#: What reading from a damaged zip or disk raises.
READ_ERRORS = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    ValueError,
)
_MAX_JSON_BYTES = 64 * 2**20
#: nnU-Net nests ``Dataset/Trainer__Plans__configuration``; a results tree adds a few levels on top.
_MAX_DEPTH = 6


class Node(Protocol):
    """The part of ``pathlib.Path`` that ``zipfile.Path`` has as well."""

    @property
    def name(self) -> str:
        """Last part of the path."""

    def iterdir(self) -> Iterator[Any]:
        """Yield the children."""

    def is_dir(self) -> bool:
        """Return True for a folder."""

    def is_file(self) -> bool:
        """Return True for a file."""

    def joinpath(self, *other: str) -> Any:  # noqa: ANN401 - Path and zipfile.Path return their own types
        """Return a descendant."""

    def open(self, mode: Any = ...) -> Any:  # noqa: ANN401 - as above
        """Open the file."""


def open_node(path: Path) -> Node:
    """Open a folder or a zip for reading.

    Raises
    ------
    ModelError
        If the path does not exist or is neither a folder nor a readable zip.
    """
    if path.is_dir():
        return cast("Node", path)
    if not path.exists():
        msg = f"model {path} does not exist; give a model folder or an nnU-Net export zip"
        raise ModelError(msg)
    try:
        archive = zipfile.ZipFile(path)
    except READ_ERRORS as error:
        msg = f"model {path} is neither a folder nor a readable zip ({error}); copy or download it again"
        raise ModelError(msg) from error
    # A listing without entries of its folders is completed by zipfile.Path; the trailing object is the root.
    return cast("Node", zipfile.Path(archive))


def read_json(node: Node) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ModelError
        If it cannot be read or is not an object.
    """
    try:
        with cast("BinaryIO", node.open("rb")) as stream:
            content = json.loads(stream.read(_MAX_JSON_BYTES))
    except READ_ERRORS as error:
        msg = f"cannot read {node}: {error}; copy or install the model again"
        raise ModelError(msg) from error
    if not isinstance(content, dict):
        msg = f"{node} does not hold a JSON object; copy or install the model again"
        raise ModelError(msg)
    return content


def fold_checkpoints(folder: Node) -> list[tuple[str, Node]]:
    """List the checkpoint of each fold as (fold folder name, file), sorted.

    ``checkpoint_final.pth`` is preferred over ``checkpoint_best.pth``. As in nnU-Net, ``fold_all`` is used only
    without numbered folds.
    """
    found: list[tuple[str, Node]] = []
    for child in folder.iterdir():
        if not (child.name.startswith("fold_") and child.is_dir()):
            continue
        files = (child.joinpath(name) for name in CHECKPOINT_NAMES)
        checkpoint = next((file for file in files if file.is_file()), None)
        if checkpoint is not None:
            found.append((child.name, checkpoint))
    numbered = [item for item in found if item[0] != "fold_all"]
    return sorted(numbered or found, key=lambda item: (len(item[0]), item[0]))


def is_model_folder(folder: Node) -> bool:
    """Return True if a folder holds both JSON files and a checkpoint."""
    complete = folder.joinpath("dataset.json").is_file() and folder.joinpath("plans.json").is_file()
    return complete and bool(fold_checkpoints(folder))


def find_model_folders(root: Node, depth: int = _MAX_DEPTH) -> list[Node]:
    """Find all model folders at or below ``root``, sorted by name.

    Hidden folders are skipped, and model folders are not searched for further ones.

    Raises
    ------
    ModelError
        If a folder cannot be listed.
    """
    if root.joinpath("plans.json").is_file() and is_model_folder(root):
        return [root]
    if depth == 0:
        return []
    found: list[Node] = []
    try:
        children = sorted(root.iterdir(), key=lambda item: str(item.name))
    except OSError as error:
        msg = f"cannot look for models in {root}: {error.strerror}"
        raise ModelError(msg) from error
    for child in children:
        if child.is_dir() and not child.name.startswith((".", "__")):
            found += find_model_folders(child, depth - 1)
    return found


def dataset_id(folder: Node) -> int | None:
    """Return the number in the ``DatasetNNN_name`` part of a model folder's path, or ``None``."""
    numbers = re.findall(r"Dataset(\d{3,4})_", str(folder))
    return int(numbers[-1]) if numbers else None


def is_full_resolution_3d(folder: Node) -> bool:
    """Return True if the name of a model folder has the configuration ``3d_fullres`` or none."""
    parts = str(folder.name).split("__")
    return len(parts) < 3 or parts[-1].startswith("3d_fullres")


def select_model_folder(root: Node, number: int | None = None) -> Node:
    """Return the one model folder at or below ``root``.

    Parameters
    ----------
    root
        A model folder, a folder above it, or the root of a zip.
    number
        Dataset number, to choose among several.

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
    if number is not None:
        found = [folder for folder in found if dataset_id(folder) == number]
    if len(found) > 1:
        found = [folder for folder in found if is_full_resolution_3d(folder)] or found
    if len(found) != 1:
        which = f"Dataset{number:03d}" if number is not None else "model folder"
        names = ", ".join(str(folder.name) for folder in found) or "none"
        msg = f"{root} must hold exactly one {which}, found {len(found)} ({names}); name the folder itself"
        raise ModelError(msg)
    return found[0]


@lru_cache(maxsize=64)
def _digest_of_state(path: str, size: int, modified: int) -> str:  # noqa: ARG001 - part of the cache key
    return sha256_of(Path(path))


def sha256(node: Node) -> str:
    """Compute the SHA-256 of a file, hexadecimal; cached by path, size and modification time.

    Raises
    ------
    ModelError
        If the file cannot be read.
    """
    try:
        if isinstance(node, Path):
            state = node.stat()
            return _digest_of_state(str(node.resolve()), state.st_size, state.st_mtime_ns)
        with cast("BinaryIO", node.open("rb")) as stream:
            return sha256_of_stream(stream)
    except (OSError, zipfile.BadZipFile) as error:
        msg = f"cannot read {node}: {error}; copy or install the model again"
        raise ModelError(msg) from error
