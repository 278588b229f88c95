"""Put one model, stripped to what inference needs, in its place among the bundled ones."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.models.export import strip_checkpoint

#: Weights that ship must not be larger than this, bytes.
SIZE_LIMIT = 15 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Published:
    """A model that was put in place: its folder and bytes."""

    folder: Path
    size: int


def put_in_place(source: Path, destination: Path, name: str, card: str) -> Published:
    """Strip a model and put it in its place, whole or not at all.

    Parameters
    ----------
    source
        nnU-Net's model folder (``<trainer>__<plans>__<configuration>``).
    destination
        Folder of bundled models.
    name
        Of the dataset's folder there; what is there of this name is replaced.
    card
        Text of the model card.

    Raises
    ------
    ModelError
        If the stripped model is larger than 15 MB.
    """
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=f".{name}.") as folder:
        ready = Path(folder) / "ready"
        ready.mkdir()
        size = strip_checkpoint(source, ready / source.name).folder
        if size > SIZE_LIMIT:
            msg = f"{name} is {size / 2**20:.1f} MB stripped, over the limit of 15 MB; train a smaller network"
            raise ModelError(msg)
        (ready / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        shutil.rmtree(destination / name, ignore_errors=True)
        ready.replace(destination / name)
    return Published(destination / name, size)
