"""Read nnU-Net checkpoints as data: nothing in the file can run."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from totalspineseg_bids.errors import ModelError

StateDict = dict[str, torch.Tensor]

#: Wrappers (data parallel, ``torch.compile``) that leave their name before that of each parameter.
_WRAPPER_PREFIXES = ("module.", "_orig_mod.")

# nnU-Net logs metrics as numpy scalars, which the weights-only reader does not know. The module was renamed in
# numpy 2, so each is allowed under both names.
_SCALAR = np._core.multiarray.scalar if hasattr(np, "_core") else np.core.multiarray.scalar  # type: ignore[attr-defined]
_DTYPE_CLASSES = [
    type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
]
_SAFE_GLOBALS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (np.dtype, "numpy.dtype"),
    *_DTYPE_CLASSES,
]


def read_checkpoint(file: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Read a checkpoint with torch's weights-only reader and an allow-list of numpy scalars.

    Parameters
    ----------
    file
        ``checkpoint_*.pth`` of a fold.
    mapped
        Read weights only when they are used; the file must not change meanwhile.

    Returns
    -------
    dict
        What nnU-Net saved; ``network_weights`` is a dict of tensors on the CPU.

    Raises
    ------
    ModelError
        If the file is damaged, holds no weights, or holds anything that would have to be executed.
    """
    try:
        with torch.serialization.safe_globals(_SAFE_GLOBALS):
            mapped = mapped and zipfile.is_zipfile(file)  # not in torch's older format
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            msg = (
                f"{file} is refused: it holds more than weights ({refused[1]}); get the model from its publisher or, "
                "if you trained it, write it again with totalspineseg-tools export"
            )
        else:
            msg = f"{file} is not a checkpoint that can be read safely; copy or install the model again"
        raise ModelError(msg) from error
    except Exception as error:
        # From damaged bytes torch's reader raises errors of many types, such as IndexError and struct.error.
        reason = str(error).strip().split("\n", maxsplit=1)[0]
        msg = f"cannot read checkpoint {file} ({reason}); copy or install the model again"
        raise ModelError(msg) from error
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, Mapping) or not all(torch.is_tensor(value) for value in weights.values()):
        msg = f"{file} holds no network_weights; it is not an nnU-Net v2 checkpoint"
        raise ModelError(msg)
    return cast("dict[str, Any]", content)


def plain_name(key: str) -> str:
    """Return a parameter's name without the prefixes of wrappers."""
    while key.startswith(_WRAPPER_PREFIXES):
        key = key.split(".", maxsplit=1)[1]
    return key


def converted(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> StateDict:
    """Return weights under plain names with floating-point tensors in another type.

    nnU-Net's networks list most tensors under several names. These stay shared, so that neither memory nor a file
    written from the result grows. A tensor with values beyond the range of ``dtype`` keeps its own type.
    """
    done: dict[tuple[object, ...], torch.Tensor] = {}
    result: StateDict = {}
    for key, tensor in weights.items():
        identity = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        if identity not in done:
            changed = tensor.to(dtype) if tensor.is_floating_point() else tensor
            narrower = changed.is_floating_point() and torch.finfo(dtype).max < torch.finfo(tensor.dtype).max
            if narrower and not torch.isfinite(changed).all() and torch.isfinite(tensor).all():
                changed = tensor
            done[identity] = changed.contiguous()
        result[plain_name(key)] = done[identity]
    return result
