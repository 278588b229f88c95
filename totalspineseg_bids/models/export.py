"""Write a trained model as small as it can be, in the layout that nnU-Net itself loads."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from totalspineseg_bids.errors import ModelError, OutputError
from totalspineseg_bids.inference import folders
from totalspineseg_bids.inference.checkpoint import converted, read_checkpoint


@dataclass(frozen=True, slots=True)
class StrippedSizes:
    """Bytes of the checkpoints before and after, and of the folder written."""

    before: int
    after: int
    folder: int


def strip_checkpoint(src: Path, dst: Path, *, half: bool = True) -> StrippedSizes:
    """Copy a model with nothing in its checkpoints but what inference needs.

    The optimizer's state and the log are left out. ``trainer_name``, ``init_args`` (configuration and fold) and
    ``inference_allowed_mirroring_axes`` stay, so nnU-Net's own predictor loads the result.

    Parameters
    ----------
    src
        A model folder with ``dataset.json``, ``plans.json`` and ``fold_X/checkpoint_final.pth`` (or
        ``checkpoint_best.pth``), or one checkpoint.
    dst
        The folder to write, in which checkpoints are called ``checkpoint_final.pth``, or the file. It must not exist.
    half
        Store weights as 16-bit floats (a tensor beyond their range stays as it is).

    Returns
    -------
    StrippedSizes
        Bytes before and after.

    Raises
    ------
    ModelError
        If the source is not a model folder, or a checkpoint is refused.
    OutputError
        If the target exists or cannot be written.
    """
    dtype = torch.float16 if half else torch.float32
    if dst.exists():
        msg = f"{dst} exists; remove it or export to another place"
        raise OutputError(msg)
    try:
        return _strip_file(src, dst, dtype) if src.is_file() else _strip_folder(src, dst, dtype)
    except OSError as error:
        msg = f"cannot write {dst}: {error}"
        raise OutputError(msg) from error


def _strip_file(src: Path, dst: Path, dtype: torch.dtype) -> StrippedSizes:
    temporary = dst.with_name(f".{dst.name}.part")
    torch.save(_stripped(src, dtype), temporary)
    temporary.replace(dst)
    after = dst.stat().st_size
    return StrippedSizes(src.stat().st_size, after, after)


def _strip_folder(src: Path, dst: Path, dtype: torch.dtype) -> StrippedSizes:
    if not (src.is_dir() and folders.is_model_folder(src)):
        msg = f"{src} is not a model folder (dataset.json, plans.json, fold_X/checkpoint_final.pth)"
        raise ModelError(msg)
    before = after = 0
    temporary = dst.with_name(f".{dst.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name in ("dataset.json", "plans.json"):
        shutil.copyfile(src / name, temporary / name)
    for fold, node in folders.fold_checkpoints(src):
        (temporary / fold).mkdir()
        sizes = _strip_file(Path(str(node)), temporary / fold / folders.CHECKPOINT_NAMES[0], dtype)
        before, after = before + sizes.before, after + sizes.after
    temporary.replace(dst)
    whole = sum(file.stat().st_size for file in dst.rglob("*") if file.is_file())
    return StrippedSizes(before, after, whole)


def _stripped(file: Path, dtype: torch.dtype) -> dict[str, object]:
    checkpoint = read_checkpoint(file)
    arguments = checkpoint.get("init_args")
    kept = arguments if isinstance(arguments, dict) else {}
    mirror = checkpoint.get("inference_allowed_mirroring_axes")
    return {
        # nnU-Net resets the type to 32 bits when it fills the network with these.
        "network_weights": converted(checkpoint["network_weights"], dtype),
        "trainer_name": str(checkpoint.get("trainer_name", "nnUNetTrainer")),
        "init_args": {key: kept[key] for key in ("configuration", "fold") if isinstance(kept.get(key), str | int)},
        "inference_allowed_mirroring_axes": None if mirror is None else tuple(int(axis) for axis in mirror),
    }
