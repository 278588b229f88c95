"""Initialization of a network with the weights of one with fewer channels, layers or other outputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch

from totalspineseg_bids.inference.checkpoint import StateDict
from totalspineseg_bids.inference.pixel_shuffle import BLOCK_VOXELS

#: Convolution of a stage, and what of it: nnU-Net names the layers of a block twice.
_LAYER = re.compile(r"(?P<stage>.*\.convs\.)(?P<number>\d+)\.(?P<part>.*)")
_PARTS = {"conv": "conv", "norm": "norm", "all_modules.0": "conv", "all_modules.1": "norm"}
_LEAK = 0.01  # slope of torch's LeakyReLU below 0


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


def pixel_shuffle_weights(weights: Mapping[str, torch.Tensor]) -> StateDict:
    """Convert weights of a U-Net to those of a `PixelShuffleUNet` with voxels of half the width.

    The result computes the same: it sees the mean of each block of voxels and gives all of them the block's output.
    """
    result = dict(weights)
    for name, value in weights.items():
        if ".seg_layers." in name:
            result[name] = value.repeat_interleave(BLOCK_VOXELS, 0)
        elif is_image_kernel(name):
            result[name] = value.repeat_interleave(BLOCK_VOXELS, 1) / BLOCK_VOXELS
    return result


def is_image_kernel(name: str) -> bool:
    """Return whether a tensor is the first kernel, which is applied to the image."""
    return "encoder.stages.0.0.convs.0." in name and name.endswith(("conv.weight", "all_modules.0.weight"))


def warm_start_weights(own: StateDict, source: Mapping[str, torch.Tensor], heads: list[int]) -> tuple[StateDict, int]:
    """Initialize a U-Net with the weights of another; return them and the number of tensors changed.

    Additional channels keep their own weights; weights that read them start at zero; additional convolutions
    start as the identity. The new network thus computes nearly the same as the other: only the normalisation after
    additional convolutions, which uses the same mean and spread for every image, changes its output a little.

    Parameters
    ----------
    own : StateDict
        Weights of nnU-Net's ``PlainConvUNet``.
    source : mapping of str to torch.Tensor
        Weights of another one with the same stages, as many or fewer convolutions in each.
    heads : list of int
        For each region of ``own`` that of ``source`` to start from (`matching_heads`).
    """
    result, taken = dict(own), 0
    for name, value in own.items():
        other = source.get(name)
        if other is None:
            handed_on = _identity_tensor(name, value, result)
            if handed_on is not None:
                result[name] = handed_on
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


def _identity_tensor(name: str, own: torch.Tensor, weights: StateDict) -> torch.Tensor | None:
    """Return the tensor with which an additional convolution of a stage is the identity.

    A convolution by the unit kernel; after it a norm to the mean and spread that its input has by the norm and
    rectifier before it, were that norm's output normally distributed.
    """
    match = _LAYER.fullmatch(name)
    layer, _, kind = match["part"].rpartition(".") if match else ("", "", "")
    if match is None or match["number"] == "0" or layer not in _PARTS:
        return None
    if _PARTS[layer] == "conv":
        return torch.nn.init.dirac_(torch.empty_like(own)) if kind == "weight" else torch.zeros_like(own)
    norm = f"{match['stage']}{int(match['number']) - 1}.{layer}."
    mean, spread = _after_rectifier(weights[norm + "bias"].double(), weights[norm + "weight"].double().abs())
    return (spread if kind == "weight" else mean).to(own.dtype)


def _after_rectifier(mean: torch.Tensor, spread: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of LeakyReLU(x) for normally distributed x."""
    spread = spread.clamp_min(1e-6)
    scaled = mean / spread
    above = 0.5 * (1.0 + torch.erf(scaled / math.sqrt(2.0)))
    density = torch.exp(-0.5 * scaled**2) / math.sqrt(2.0 * math.pi)
    first = mean * above + spread * density  # of max(x, 0)
    second = (mean**2 + spread**2) * above + mean * spread * density
    both = first + _LEAK * (mean - first)
    square = second + _LEAK**2 * (mean**2 + spread**2 - second)
    return both, (square - both**2).clamp_min(1e-12).sqrt()
