"""Converted networks on disk, so that the conversion runs once per model and not once per process.

A network that OpenVINO converted from torch is stored under a key of everything that it depends on. Where the folder
cannot be written, or an entry cannot be read, the network is converted in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalspineseg_bids.files import read_json
from totalspineseg_bids.imaging.atomic import temporary_name

if TYPE_CHECKING:
    from totalspineseg_bids.inference.model import NnUNetModel

logger = logging.getLogger(__name__)

#: Environment variable that names the folder of converted networks; ``off`` turns the cache off.
CACHE_VARIABLE = "TOTALSPINESEG_BIDS_NETWORK_CACHE"
_OFF = "off"
#: File of how the networks were compiled the last time, and its number of models at most.
_USES, _MOST_USES = "compiled.json", 32
#: Modules of this package that define networks, and the package that defines the others.
_NETWORK_SOURCES = ("local_network.py", "pixel_shuffle.py", "subvoxel.py")
_NETWORK_PACKAGE = "dynamic-network-architectures"


def cache_folder() -> Path | None:
    """Return the folder of converted networks, or None if the cache is off; it need not exist.

    ``$TOTALSPINESEG_BIDS_NETWORK_CACHE``, else ``$XDG_CACHE_HOME/totalspineseg_bids/networks``, else
    ``~/.cache/totalspineseg_bids/networks``.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return None if named == _OFF else Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "totalspineseg_bids" / "networks"
    except RuntimeError:  # no home folder
        return None


def network_key(model: NnUNetModel, openvino_version: str) -> str:
    """Return the key of the converted networks of a model: weights, architecture, and all that builds and converts."""
    own = [(Path(__file__).parent / name).read_text(encoding="utf-8") for name in _NETWORK_SOURCES]
    parts = {
        "weights": model.digest,
        "architecture": model.configuration["architecture"],
        "channels": len(model.channel_names),
        "outputs": len(model.heads.names),
        "code": [*own, metadata.version(_NETWORK_PACKAGE), metadata.version("torch"), openvino_version],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def read_networks(core: Any, key: str, count: int) -> list[Any] | None:  # noqa: ANN401 - OpenVINO is not typed
    """Read the converted networks of a model.

    Parameters
    ----------
    core : openvino.Core
        Reads the files.
    key : str
        From `network_key`.
    count : int
        Number of networks, one per fold.

    Returns
    -------
    list of openvino.Model or None
        None if they are not stored or cannot be read.
    """
    folder = cache_folder()
    if folder is None or not (folder / key).is_dir():
        return None
    try:
        return [core.read_model(folder / key / f"{fold}.xml") for fold in range(count)]
    except (OSError, RuntimeError) as error:
        logger.debug("%s: cannot be read (%s)", folder / key, error)
        return None


def write_networks(openvino: Any, key: str, networks: list[Any]) -> None:  # noqa: ANN401
    """Store converted networks; a folder that cannot be written is no error.

    Parameters
    ----------
    openvino : module
        Writes the files.
    key : str
        From `network_key`.
    networks : list of openvino.Model
        One per fold.
    """
    folder = cache_folder()
    if folder is None:
        return
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".", dir=folder))
        for fold, network in enumerate(networks):
            openvino.save_model(network, temporary / f"{fold}.xml", compress_to_fp16=False)
        # An entry that could not be read is replaced; a concurrent process may have put a good one there.
        shutil.rmtree(folder / key, ignore_errors=True)
        temporary.chmod(0o755)
        temporary.rename(folder / key)
    except (OSError, RuntimeError) as error:
        logger.debug("%s: converted networks are not kept (%s)", folder, error)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def read_uses() -> dict[str, dict[str, Any]]:
    """Return how networks were compiled the last time, by the digest of their model."""
    folder = cache_folder()
    return (None if folder is None else read_json(folder / _USES)) or {}


def write_use(model: str, use: dict[str, Any]) -> None:
    """Store how the networks of a model, given by its digest, were compiled; a failure is no error."""
    folder, uses = cache_folder(), read_uses()
    if folder is None or uses.pop(model, None) == use:
        return
    kept = dict([*uses.items(), (model, use)][-_MOST_USES:])
    # Not flushed to the disk: if it is lost, networks are compiled when they are needed.
    temporary = temporary_name(folder / _USES)
    with suppress(OSError):
        temporary.write_text(json.dumps(kept) + "\n", encoding="utf-8")
        temporary.replace(folder / _USES)
