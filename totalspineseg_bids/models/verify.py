"""Digests of installed models: recorded at installation, compared at use.

The publisher of the models gives no digests, so the first installation is trusted; later changes are detected.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.inference import folders
from totalspineseg_bids.models import catalog

MANIFEST = "models.json"


def folder_of(name: str) -> Path:
    """Return the folder of a model; it need not exist."""
    return catalog.BUNDLED_FOLDER if name == catalog.BUNDLED else catalog.cache_folder() / name


def model_files(folder: Path) -> list[Path]:
    """List the files of all models below a folder that affect predictions."""
    files: list[Path] = []
    for model in folders.find_model_folders(folder):
        files += [model / "dataset.json", model / "plans.json", *folders.fold_checkpoints(model)]
    return files


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, or ``None`` if there is none.

    Raises
    ------
    ModelError
        If it is damaged.
    """
    path = folder / MANIFEST
    return folders.read_json(path) if path.is_file() else None


def write_manifest(folder: Path, sources: Iterable[Mapping[str, str]] = ()) -> Path:
    """Record the SHA-256 of every model file below a folder; replaces the manifest as a whole.

    Parameters
    ----------
    folder
        Of one named model set.
    sources
        Where the models came from: ``origin`` (file or address) and ``sha256`` of an archive.
    """
    files = {path.relative_to(folder).as_posix(): folders.sha256(path) for path in model_files(folder)}
    content = {"name": folder.name, "sources": [dict(source) for source in sources], "files": files}
    write_text(folder / MANIFEST, json.dumps(content, indent=2, sort_keys=True) + "\n")
    return folder / MANIFEST


def check(name: str) -> list[str]:
    """Compare an installed model with the digests recorded when it was installed.

    Parameters
    ----------
    name
        ``bundled``, a release or another installed name.

    Returns
    -------
    list of str
        Compared files, relative to the folder of the model.

    Raises
    ------
    ModelError
        If a file changed or is gone, or the model was not installed by this program.
    """
    folder = folder_of(name)
    manifest = read_manifest(folder)
    if manifest is None:
        msg = f"model {name} has no {folder / MANIFEST} to compare with; totalspineseg-tools models install {name}"
        raise ModelError(msg)
    recorded: dict[str, str] = manifest.get("files", {})
    missing = [file for file in recorded if not (folder / file).is_file()]
    changed = [f for f, digest in recorded.items() if f not in missing and folders.sha256(folder / f) != digest]
    if missing or changed:
        what = ", ".join([*(f"{f} changed" for f in changed), *(f"{f} is missing" for f in missing)])
        again = f"totalspineseg-tools models install {name} --force"
        msg = f"model {name} in {folder} is not as it was installed ({what}); {again}"
        raise ModelError(msg)
    return list(recorded)
