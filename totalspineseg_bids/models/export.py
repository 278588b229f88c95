"""Trained weights as small as they can be, in the form that nnU-Net itself loads."""

from __future__ import annotations

from pathlib import Path

import torch

from totalspineseg_bids.inference.checkpoint import converted, read_checkpoint


def strip_checkpoint(source: Path, target: Path) -> None:
    """Copy a checkpoint with nothing in it but what inference needs, its weights as 16-bit floats.

    The optimizer's state and the log are left out. ``trainer_name``, ``init_args`` (configuration and fold) and
    ``inference_allowed_mirroring_axes`` stay, so nnU-Net's own predictor loads the result. A tensor beyond the range of
    16 bits stays as it is.

    Parameters
    ----------
    source, target : Path
        The checkpoint, and the file to write.

    Raises
    ------
    ModelError
        If the checkpoint is refused.
    OSError
        If the file cannot be written.
    """
    checkpoint = read_checkpoint(source)
    arguments = checkpoint.get("init_args")
    kept = arguments if isinstance(arguments, dict) else {}
    mirror = checkpoint.get("inference_allowed_mirroring_axes")
    stripped = {
        # nnU-Net resets the type to 32 bits when it fills the network with these.
        "network_weights": converted(checkpoint["network_weights"], torch.float16),
        "trainer_name": str(checkpoint.get("trainer_name", "nnUNetTrainer")),
        "init_args": {key: kept[key] for key in ("configuration", "fold") if isinstance(kept.get(key), str | int)},
        "inference_allowed_mirroring_axes": None if mirror is None else tuple(int(axis) for axis in mirror),
    }
    torch.save(stripped, target)
