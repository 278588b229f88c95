"""The public releases, and the folder in which installed models lie."""

from __future__ import annotations

import os
from pathlib import Path

from totalspineseg_bids.errors import ModelError

_DOWNLOADS = "https://github.com/neuropoly/totalspineseg/releases/download"
_DATASETS = ("Dataset101_TotalSpineSeg_step1", "Dataset102_TotalSpineSeg_step2")

#: Environment variable that names the folder of installed models.
CACHE_VARIABLE = "TOTALSPINESEG_BIDS_MODELS"
BUNDLED = "bundled"
BUNDLED_FOLDER = Path(__file__).resolve().parent / "bundled"


def _zips(tag: str, suffix: str) -> tuple[str, ...]:
    return tuple(f"{_DOWNLOADS}/{tag}/{dataset}{suffix}.zip" for dataset in _DATASETS)


#: Addresses of the zips of each public release, one a model, from old to new. The publisher gives no digests; they are
#: recorded at the first installation.
RELEASES: dict[str, tuple[str, ...]] = {
    "r20240826": _zips("r20240826", ""),
    **{tag: _zips(tag, f"_{tag}") for tag in ("r20241005", "r20241115", "r20251124")},
}

#: What is used where nothing is asked for.
DEFAULT_MODEL = next(reversed(RELEASES))


def cache_folder() -> Path:
    """Return the folder of installed models.

    ``$TOTALSPINESEG_BIDS_MODELS``, else ``$XDG_CACHE_HOME/totalspineseg_bids/models``, else
    ``~/.cache/totalspineseg_bids/models`` (XDG base directory specification). It need not exist.

    Raises
    ------
    ModelError
        If none of these is set and the user has no home folder, as in a container under an unknown user id.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if named := os.environ.get(CACHE_VARIABLE):
            return Path(named).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "totalspineseg_bids" / "models"
    except RuntimeError as error:
        msg = f"there is no home folder to keep models in; set {CACHE_VARIABLE} to a folder, or use --model {BUNDLED}"
        raise ModelError(msg) from error


def find_cache_folder() -> Path | None:
    """Return `cache_folder`, or ``None`` where there can be none."""
    try:
        return cache_folder()
    except ModelError:
        return None
