"""Prepare an image as nnU-Net does: transpose, crop to non-zero, normalise and resample; and the inverse.

The order and the numbers are those of nnU-Net's ``DefaultPreprocessor`` (Isensee et al., Nature Methods 2021,
https://doi.org/10.1038/s41592-020-01008-z); normalisation and resampling are nnU-Net's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from nnunetv2.preprocessing.normalization import default_normalization_schemes as schemes
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.imaging.grid import Box, foreground_box
from totalspineseg_bids.inference.model import NnUNetModel
from totalspineseg_bids.inference.patch_grid import RegionOfInterest
from totalspineseg_bids.inference.tta import Shape3

Float32 = NDArray[np.float32]
Resampler = Callable[[Any, Sequence[int], Sequence[float], Sequence[float]], Any]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """Input of a network and what its inverse transform needs; all in the network's order of axes."""

    data: Float32
    """float32, shape (C, A, B, C'), normalised and resampled."""
    full_shape: Shape3
    """Shape before cropping, voxels."""
    box: tuple[slice, slice, slice]
    """Part of the full shape that was kept."""
    spacing: tuple[float, float, float]
    """Voxel size before resampling, mm."""
    roi: RegionOfInterest | None = None
    """Region of interest; the whole image if None."""

    @property
    def cropped_shape(self) -> Shape3:
        """Shape after cropping and before resampling, voxels."""
        a, b, c = (part.stop - part.start for part in self.box)
        return a, b, c

    @property
    def resampled(self) -> bool:
        """True if resampling changed the grid."""
        return self.data.shape[1:] != self.cropped_shape

    def within(self, mask: NDArray[np.bool_], margin: int) -> PreparedImage:
        """Return the part in the bounding box of a mask, with the mask as region of interest.

        Parameters
        ----------
        mask : (A, B, C) bool
            In the full shape.
        margin : int
            Voxels around the mask that belong to the region.
        """
        seen = mask[self.box]
        box = foreground_box(seen, margin)
        if box is None:
            return self
        parts = zip(self.box, box, strict=True)
        a, b, c = (slice(whole.start + part.start, whole.start + part.stop) for whole, part in parts)
        return replace(
            self, data=self.data[(slice(None), *box)], box=(a, b, c), roi=RegionOfInterest(seen[box], margin)
        )


def prepare(image: Float32, spacing: Sequence[float], model: NnUNetModel) -> PreparedImage:
    """Turn an image into the input of a network.

    Parameters
    ----------
    image
        Shape (C, Z, Y, X), nnU-Net's order of axes; it is not changed.
    spacing
        Voxel size along (Z, Y, X), mm.
    model
        Its plans say how.

    Raises
    ------
    ModelError
        If the plans name a normalisation or resampling that does not exist.
    """
    data = image.transpose(0, *(axis + 1 for axis in model.transpose))
    a, b, c = (float(spacing[axis]) for axis in model.transpose)
    box = _nonzero_box(data)
    cropped = np.ascontiguousarray(data[(slice(None), *box)], np.float32)
    changed = set(model.configuration.get("normalization_schemes", ())) != {"NoNormalization"}
    if changed and np.may_share_memory(cropped, image):
        cropped = cropped.copy()
    normalised = _normalise(cropped, model)
    target = model.network_spacing
    # As nnU-Net's `compute_new_shape`, whose module takes 0.3 s to import.
    parts = zip((a, b, c), target, normalised.shape[1:], strict=True)
    shape = [round(old / new * length) for old, new, length in parts]
    if normalised.shape[1:] != tuple(shape):
        if _is_linear(model, "data", (a, b, c), target):
            normalised = np.stack([_linear(torch.from_numpy(channel), shape).numpy() for channel in normalised])
        else:
            resample = resampling_function(model, "data")
            normalised = np.asarray(resample(normalised, shape, (a, b, c), target), dtype=np.float32)
    full: Shape3 = (data.shape[1], data.shape[2], data.shape[3])
    return PreparedImage(normalised, full, box, (a, b, c))


def _nonzero_box(data: Float32) -> Box:
    # nnU-Net fills holes in the mask first; holes are enclosed, so they do not change the bounding box.
    whole = (slice(0, data.shape[1]), slice(0, data.shape[2]), slice(0, data.shape[3]))
    mask = np.zeros_like(data[0], bool)  # in the same order of axes
    box: Box | None = None
    for channel in data:
        mask |= channel != 0
        box = foreground_box(mask)
        if box == whole:
            break
    return whole if box is None else box


def _normalise(data: Float32, model: NnUNetModel) -> Float32:
    configuration = model.configuration
    use_mask = [bool(value) for value in configuration.get("use_mask_for_norm", [False] * len(data))]
    inside: NDArray[np.int8] | None = None
    if any(use_mask):
        # nnU-Net marks what lies outside of the (filled) non-zero region by -1.
        inside = np.where(binary_fill_holes((data != 0).any(axis=0)), np.int8(0), np.int8(-1))
    for index in range(len(data)):
        data[index] = _normalised_channel(data[index], inside if use_mask[index] else None, model, index)
    return data


def _normalised_channel(channel: Float32, inside: NDArray[np.int8] | None, model: NnUNetModel, index: int) -> Float32:
    try:
        scheme = getattr(schemes, model.configuration["normalization_schemes"][index])
        statistics = model.intensity_properties.get(str(index), {})
        normalised: Float32 = scheme(inside is not None, statistics).run(channel, inside)
    except (AttributeError, IndexError, KeyError, TypeError, AssertionError) as error:
        msg = f"{model.path}: the normalisation in plans.json cannot be applied to channel {index} ({error})"
        raise ModelError(msg) from error
    return normalised


def resampling_function(model: NnUNetModel, what: str) -> Resampler:
    """Return nnU-Net's resampling as the plans name it for ``"data"`` or ``"probabilities"``.

    Raises
    ------
    ModelError
        If the plans name none that exists.
    """
    key = f"resampling_fn_{what}"
    try:
        found = recursive_find_resampling_fn_by_name(model.configuration[key])
        return cast("Resampler", partial(found, **model.configuration[f"{key}_kwargs"]))
    except (KeyError, RuntimeError, TypeError) as error:
        msg = f"{model.path}: plans.json gives no usable {key} ({error})"
        raise ModelError(msg) from error


def head_restorer(model: NnUNetModel, prepared: PreparedImage) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that resamples the logits of one output to the grid before resampling."""
    shape, current = prepared.cropped_shape, model.network_spacing
    if _is_linear(model, "probabilities", current, prepared.spacing):
        return partial(_linear, shape=shape)
    resample = resampling_function(model, "probabilities")

    def by_nnunet(logits: torch.Tensor) -> torch.Tensor:
        restored = resample(logits.float().cpu().numpy()[None], shape, current, prepared.spacing)
        return torch.as_tensor(np.asarray(restored, dtype=np.float32)[0])

    return by_nnunet


def _is_linear(model: NnUNetModel, what: str, current: Sequence[float], new: Sequence[float]) -> bool:
    """Return whether the plans ask for linear interpolation of all axes at once.

    Torch then computes the same sum as nnU-Net (half-voxel centres, values beyond the edge repeated) in a fraction of
    the time.
    """
    if model.configuration.get(f"resampling_fn_{what}") != "resample_data_or_seg_to_shape":
        return False
    options = model.configuration.get(f"resampling_fn_{what}_kwargs", {})
    if options.get("order", 3) != 1 or options.get("force_separate_z", False) is False:
        return bool(options.get("order", 3) == 1)
    from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis  # noqa: PLC0415

    threshold = options.get("separate_z_anisotropy_threshold")
    extra = {} if threshold is None else {"separate_z_anisotropy_threshold": threshold}
    separate, _ = determine_do_sep_z_and_axis(options["force_separate_z"], current, new, **extra)
    return not separate


def _linear(values: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    batch = values.float()[None, None]
    return torch.nn.functional.interpolate(batch, size=tuple(shape), mode="trilinear", align_corners=False)[0, 0]
