"""Start a network from the weights of another, narrower one or one with other outputs, so that it does the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

StateDict = dict[str, torch.Tensor]


def matching_heads(own: Iterable[str], other: Iterable[str]) -> list[int]:
    """Return for each region of one network the output of another to start from.

    The same region where the other has it, else the union it belongs to (``vertebrae_T1`` starts as ``vertebrae``).
    """
    names = [name for name in other if name != "background"]
    return [
        names.index(name if name in names else name.split("_", maxsplit=1)[0] if "_" in name else "vertebrae")
        for name in own
        if name != "background"
    ]


def started_from(own: StateDict, source: Mapping[str, torch.Tensor], heads: list[int]) -> tuple[StateDict, int]:
    """Return a U-Net's weights with those of another in them, and how many tensors took something.

    Channels that the other network does not have keep their own weights and are not listened to at first: what reads
    them starts at zero. The new network thus computes what the other did, and learns to use the rest.

    Parameters
    ----------
    own
        Weights of nnU-Net's ``PlainConvUNet``.
    source
        Weights of another one with the same stages.
    heads
        For each output of ``own`` that of ``source`` to start from (`matching_heads`).
    """
    result, taken = dict(own), 0
    for name, value in own.items():
        other = source.get(name)
        if other is None:
            continue
        if ".seg_layers." in name:
            other = other[heads]
        if "transpconvs" in name and name.endswith("weight"):  # torch has (in, out, ...) here
            fitted = _fitted(value.transpose(0, 1), other.transpose(0, 1), halves=False)
            fitted = None if fitted is None else fitted.transpose(0, 1).contiguous()
        else:
            # A decoder's convolution reads what comes up and, after it, what the encoder of its stage hands over.
            fitted = _fitted(value, other, halves=name.startswith("decoder.stages.") and ".convs.0." in name)
        if fitted is not None:
            result[name] = fitted
            taken += 1
    return result, taken


def _fitted(own: torch.Tensor, other: torch.Tensor, *, halves: bool) -> torch.Tensor | None:
    """Put a smaller tensor (out, in, kernel) or (out,) into a larger one; None where it is no smaller version of it."""
    if own.ndim != other.ndim or own.shape[2:] != other.shape[2:]:
        return None
    if any(old > new for old, new in zip(other.shape, own.shape, strict=True)):
        return None
    result, rows = own.clone(), other.shape[0]
    if own.ndim == 1:
        result[:rows] = other
        return result
    result[:rows] = 0.0
    if halves and own.shape[1] != other.shape[1]:
        new, old = own.shape[1] // 2, other.shape[1] // 2
        result[:rows, :old], result[:rows, new : new + old] = other[:, :old], other[:, old:]
    else:
        result[:rows, : other.shape[1]] = other
    return result
