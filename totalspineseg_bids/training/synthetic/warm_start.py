"""Initialization of a network with the weights of one with fewer channels or other outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from totalspineseg_bids.inference.checkpoint import StateDict


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


def is_image_kernel(name: str) -> bool:
    """Return whether a tensor is the first kernel, which is applied to the image."""
    return "encoder.stages.0.0.convs.0." in name and name.endswith(("conv.weight", "all_modules.0.weight"))


def warm_start_weights(own: StateDict, source: Mapping[str, torch.Tensor], heads: list[int]) -> tuple[StateDict, int]:
    """Initialize a U-Net with the weights of another; return them and the number of tensors changed.

    Additional channels keep their own weights and weights that read them start at zero, so that the new network
    computes the same as the other.

    Parameters
    ----------
    own : StateDict
        Weights of nnU-Net's ``PlainConvUNet``.
    source : mapping of str to torch.Tensor
        Weights of another one with the same layers.
    heads : list of int
        For each region of ``own`` that of ``source`` to start from (`matching_heads`).
    """
    result, taken = dict(own), 0
    for name, value in own.items():
        other = source.get(name)
        if other is None:
            continue
        if ".seg_layers." in name:
            parts = len(value) // len(heads)  # outputs of a region
            other = other.reshape(-1, parts, *other.shape[1:])[heads].flatten(0, 1)
        # The input of a decoder's convolution is the upsampled map followed by the skip connection of its stage.
        halves = name.startswith("decoder.stages.") and ".convs.0." in name
        put = fit_tensor(value, other, transposed="transpconvs" in name, halves=halves)
        if put is not None:
            result[name] = put
            taken += 1
    return result, taken


def fit_tensor(
    own: torch.Tensor, other: torch.Tensor, *, transposed: bool = False, halves: bool = False
) -> torch.Tensor | None:
    """Embed the weights of a convolution in one with more channels, without changing its output.

    Parameters
    ----------
    own : torch.Tensor
        Shape (out, in, kernel) or (out,); additional outputs keep their weights, additional inputs get zero weights.
    other : torch.Tensor
        The same, smaller or as large.
    transposed : bool, default False
        Whether it is a transposed convolution, of which torch has (in, out, kernel).
    halves : bool, default False
        Whether the input is two inputs one after the other, and grows in both.

    Returns
    -------
    torch.Tensor or None
        None where the other is no smaller version of it.
    """
    if transposed and own.ndim == other.ndim > 1:
        put = fit_tensor(own.transpose(0, 1), other.transpose(0, 1), halves=halves)
        return None if put is None else put.transpose(0, 1).contiguous()
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
