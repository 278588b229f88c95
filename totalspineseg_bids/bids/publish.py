"""Publish derivatives; the sidecar of the label image is written last and marks the image as complete."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from totalspineseg_bids.bids.names import LOGS, RESOLUTIONS, DerivativeNames
from totalspineseg_bids.bids.sidecar import Digests
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.atomic import remove_stale
from totalspineseg_bids.imaging.checks import is_fetched


def is_complete(output: Path, names: DerivativeNames, resolution: str | None, digests: Digests) -> bool:
    """Return whether all derivatives exist and were made with the same input, settings and model.

    Parameters
    ----------
    output : Path
        Output folder.
    names : DerivativeNames
        Names of the derivatives.
    resolution : str or None
        ``res-`` entity of the label image whose sidecar is written last.
    digests : Digests
        Digests of the current input, settings and model.

    Raises
    ------
    MissingInputError
        If there are derivatives whose content was not fetched, or dropped, by DataLad.
    """
    mark = output / names.labels(".json", resolution)
    _check_fetched([mark])
    sidecar = read_json(mark)
    if sidecar is None or sidecar.get("Digests") != digests.as_dict():
        return False
    files = [output / name for name in output_files(sidecar)]
    _check_fetched(files)
    return all(path.is_file() for path in files)


def _check_fetched(files: Iterable[Path]) -> None:
    for path in files:
        if not is_fetched(path):
            msg = f"{path}: content of this result not fetched; run 'datalad get' on it, or give --force"
            raise MissingInputError(msg)


def looks_complete(
    output: Path, names: DerivativeNames, resolution: str | None, expected: Mapping[str, object], changed: float
) -> bool:
    """Return whether an image is complete, by the times of its files instead of the digest of its content.

    Parameters
    ----------
    output : Path
        Output folder.
    names : DerivativeNames
        Names of the derivatives.
    resolution : str or None
        ``res-`` entity of the label image whose sidecar is written last.
    expected : mapping of str to object
        Entries that its sidecar must contain; of an object, the keys that are given.
    changed : float
        Time of the last change of the image and of its companions, in seconds since the epoch.
    """
    path = output / names.labels(".json", resolution)
    sidecar = read_json(path)
    if sidecar is None or path.stat().st_mtime < changed:
        return False
    for key, value in expected.items():
        found = sidecar.get(key)
        if isinstance(value, Mapping) and isinstance(found, dict):
            found = {name: found.get(name) for name in value}
        if found != value:
            return False
    return all((output / name).is_file() for name in output_files(sidecar))


def output_files(sidecar: dict[str, Any]) -> list[str]:
    """Return the paths below the output folder of the files and figures that a main sidecar names."""
    outputs, figures = sidecar.get("Outputs"), sidecar.get("Figures")
    names = list(outputs) if isinstance(outputs, list) else []
    names += list(figures.values()) if isinstance(figures, dict) else []
    return [name for name in names if isinstance(name, str)]


def mark_incomplete(output: Path, names: DerivativeNames, *, keep_uncorrected: bool = False) -> list[str]:
    """Remove the sidecars that mark an image as complete, before it is processed again.

    Parameters
    ----------
    output : Path
        Output folder.
    names : DerivativeNames
        Names of the derivatives.
    keep_uncorrected : bool
        Keep the result before corrections, because it is still valid.

    Returns
    -------
    list of str
        Files of the image from earlier complete or interrupted runs, below the output folder. Files that the new run
        does not write again must be removed with `remove_files`.
    """
    remove_files(output, [names.labels(".json", resolution) for resolution in RESOLUTIONS])
    if not keep_uncorrected:
        # It vouches for the probability maps, which are about to be written again.
        remove_files(output, [names.uncorrected])
    now = time.time()
    remove_stale(output / names.folder, now)
    remove_stale(output / names.figures, now)
    figures = (output / names.figures).glob(f"{names.figure_stem}_*")
    former = [name for name in names.all() if (output / name).is_file() or (output / name).is_symlink()]
    return sorted([*former, *(f"{names.figures}/{path.name}" for path in figures)])


def clean_root(output: Path) -> None:
    """Remove partly written files of killed runs outside the folders of the participants."""
    now = time.time()
    for folder in (output, output / LOGS):
        remove_stale(folder, now)


def remove_files(output: Path, files: Iterable[str]) -> None:
    """Remove files below the output folder; missing files are ignored."""
    for name in files:
        (output / name).unlink(missing_ok=True)
