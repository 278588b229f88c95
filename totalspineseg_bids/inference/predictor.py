"""Predict with a model: preprocessing, sliding window and decoding in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from totalspineseg_bids.errors import ModelError, UsageError
from totalspineseg_bids.imaging.grid import VoxelValue, foreground_box
from totalspineseg_bids.inference.decode import Decoded, Kept, by_name, decode
from totalspineseg_bids.inference.engines import DEFAULT_OPTIONS, Engine, make_engine, resolve_device, torch_threads
from totalspineseg_bids.inference.model import NnUNetModel
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.patch_grid import STEP, WORTHWHILE, PatchGrid, RegionOfInterest, fitting_grid
from totalspineseg_bids.inference.preprocess import PreparedImage, head_restorer, prepare
from totalspineseg_bids.inference.sliding_window import Slab, sample_patches, slide
from totalspineseg_bids.inference.tta import IDENTITY, Shape3, tta_transforms

logger = logging.getLogger(__name__)

Progress = Callable[[float], None]
Result = TypeVar("Result")
_CPU = torch.device("cpu")
#: Images of more voxels do not keep the memory of one network while the next one runs.
_LARGE_VOXELS = 4_000_000
#: Patches of the first image on which an engine decides about its precision.
_TRIAL_PATCHES = 2


@dataclass(frozen=True, slots=True)
class Prediction:
    """Prediction of a model on the grid of the image."""

    labels: NDArray[np.uint8]
    """uint8, shape (X, Y, Z), the model's integers, as nnU-Net exports them."""
    probabilities: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    """In [0, 1], shape (X, Y, Z), for each requested name; float32, or float16 with ``half``."""
    margin: NDArray[np.float16] | None = None
    """float16, shape (X, Y, Z): distance of the logits from the decision boundary, if borders were requested
    (`decode.Decoded`)."""


@dataclass(frozen=True, slots=True)
class CoarsePrediction:
    """Probabilities of every output on the network's own grid."""

    probabilities: NDArray[np.float32]
    """float32 in [0, 1], shape (outputs, X, Y, Z), axes in the order of the image."""
    names: tuple[str, ...]
    """Role of each output."""
    to_image: NDArray[np.float64]
    """4x4, voxel of this grid to voxel of the image."""


class Predictor:
    """Runs one model on any number of images.

    Parameters
    ----------
    model
        From ``load_model``.
    options
        Device, engine, threads and precision.
    mirror
        Average over mirrored patches if the model was trained with mirroring.
    max_passes
        Maximum number of mirrored or shifted copies of a patch, the patch itself included; all if None.
    step
        Distance of neighbouring patches as a fraction of their size.
    growth
        Maximum number of voxels of a patch relative to those of training; that of the plans if None.
    low_priority_roles
        Outermost regions that all others overwrite where they overlap; none gives nnU-Net's label map.
    exclusive_parts
        Give each voxel of such a region its most probable part (`decode.decode`).
    borders
        Regions from whose logits the margin is computed.

    Attributes
    ----------
    transforms : tuple of TtaTransform
        Passes over each patch.

    Notes
    -----
    The network is built, and converted for OpenVINO, at the first prediction. Where the memory of a GPU is too small
    for the sums of the sliding window, they are kept on the CPU. Where it is too small for a patch, the network runs on
    the CPU.
    """

    def __init__(
        self,
        model: NnUNetModel,
        options: InferenceOptions = DEFAULT_OPTIONS,
        *,
        mirror: bool = False,
        max_passes: int | None = None,
        step: float = STEP,
        growth: float | None = None,
        low_priority_roles: Collection[str] = (),
        exclusive_parts: bool = False,
        borders: Collection[str] = (),
    ) -> None:
        if not 0 < step <= 1:
            msg = f"the step of the sliding window must lie in (0, 1], not {step}"
            raise UsageError(msg)
        if max_passes is not None and max_passes < 1:
            msg = f"the number of passes must be at least 1, not {max_passes}"
            raise UsageError(msg)
        self.model = model
        self._options = options
        transforms = tta_transforms(model.mirror_axes, model.voxel_block) if mirror else (IDENTITY,)
        self.transforms = transforms[:max_passes]
        self._step, self._growth = step, model.patch_growth if growth is None else growth
        self._low_priority_roles, self._exclusive_parts, self._borders = low_priority_roles, exclusive_parts, borders
        self._engine: Engine | None = None
        self._sums_on_cpu = False

    @property
    def engine(self) -> Engine:
        """The engine; built at first use.

        Raises
        ------
        UsageError
            If engine or device do not work here.
        ModelError
            If the network cannot be built from the model.
        """
        if self._engine is None:
            self._engine = make_engine(self.model, self._options)
        return self._engine

    @property
    def precision_report(self) -> str | None:
        """Precision that the engine chose by its effect on labels; ``None`` if it follows from the options."""
        return None if self._engine is None else self._engine.precision_report

    def predict(
        self,
        image: NDArray[np.float32],
        spacing: tuple[float, float, float],
        *,
        keep: Kept | Collection[str] = (),
        half: bool = False,
        roi: NDArray[np.bool_] | None = None,
        margin: int = 0,
        progress: Progress | None = None,
    ) -> Prediction:
        """Segment an image.

        Parameters
        ----------
        image
            Shape (C, X, Y, Z), RAS; channels as the model names them. It is not changed.
        spacing
            Voxel size (x, y, z), mm.
        keep
            Roles whose probability is returned, or names with the roles of each (`decode.decode`).
        half
            Keep the probabilities as float16.
        roi, margin
            Region of interest, bool, shape (X, Y, Z), and its margin in voxels. Outside of it a model that works on
            the grid of the image may return background without running the network.
        progress
            Called with the finished fraction, 0 to 1.

        Returns
        -------
        Prediction
            On the grid of the image.

        Raises
        ------
        ModelError
            If channels or roles do not fit the model, or its output is not finite.
        UsageError
            If engine or device do not work here.
        """
        kept = by_name(keep)
        self._check(image, kept)
        with torch_threads(self._options.thread_count), torch.inference_mode():
            prepared = prepare(image.transpose(0, 3, 2, 1), spacing[::-1], self.model)
            if roi is not None and not prepared.resampled:
                prepared = prepared.within(roi.transpose(2, 1, 0).transpose(self.model.transpose), margin)
            collect = self._collect_resampled if prepared.resampled else self._collect_direct
            return self._within_memory(lambda engine: collect(prepared, engine, kept, progress, half=half))

    def is_worthwhile(self, roi: NDArray[np.bool_], margin: int, spacing: tuple[float, float, float]) -> bool:
        """Return whether patches of a region of interest have at least a sixth fewer voxels than those of the image.

        Parameters
        ----------
        roi, margin, spacing
            As for ``predict``; a model with voxels of another size always runs on the whole image.
        """
        if not np.allclose(spacing, self.model.spacing, atol=1e-3):
            return False
        mask = roi.transpose(2, 1, 0).transpose(self.model.transpose)
        box = foreground_box(mask, margin)
        if box is None:
            return False
        part, (a, b, c), (d, e, f) = mask[box], mask[box].shape, mask.shape
        inside = self._grid((a, b, c), RegionOfInterest(part, margin))
        return inside.voxels <= WORTHWHILE * self._grid((d, e, f)).voxels

    def predict_coarse(
        self, image: NDArray[np.float32], spacing: tuple[float, float, float], *, progress: Progress | None = None
    ) -> CoarsePrediction:
        """Predict probabilities on the network's grid, without resampling them to the image.

        Parameters
        ----------
        image, spacing, progress
            As for ``predict``.

        Raises
        ------
        ModelError, UsageError
            As for ``predict``.
        """
        self._check(image, {})
        with torch_threads(self._options.thread_count), torch.inference_mode():
            prepared = prepare(image.transpose(0, 3, 2, 1), spacing[::-1], self.model)
            logits = self._within_memory(lambda engine: self._all_logits(prepared, engine, progress))
            values = torch.sigmoid(logits) if self.model.heads.regions else torch.softmax(logits, 0)
        order = _network_axes(self.model.transpose)
        shapes = zip(prepared.cropped_shape, prepared.data.shape[1:], prepared.box, strict=True)
        steps = [(fine / coarse, part.start) for fine, coarse, part in shapes]
        to_image = np.eye(4)
        for row, axis in enumerate(order):
            step, start = steps[axis]
            to_image[row, row], to_image[row, 3] = step, start + (step - 1) / 2
        xyz = values.numpy().transpose(0, *(axis + 1 for axis in order))
        return CoarsePrediction(np.ascontiguousarray(xyz), self.model.heads.names, to_image)

    def _within_memory(self, compute: Callable[[Engine], Result]) -> Result:
        """Compute on the device, and with less of its memory each time that it runs out."""
        while True:
            try:
                return compute(self.engine)
            except RuntimeError as error:
                # CUDA has a class of its own for this, MPS has not.
                if "out of memory" not in str(error).lower() or resolve_device(self._options.device) == _CPU:
                    raise
            if self._sums_on_cpu:
                logger.warning("%s: a patch does not fit the memory of the GPU; running on the CPU", self.model.name)
                self._options, self._engine = replace(self._options, device="cpu"), None
            else:
                logger.warning("%s: the memory of the GPU is too small; keeping sums on the CPU", self.model.name)
                self._sums_on_cpu = True
            torch.cuda.empty_cache()

    def _check(self, image: NDArray[np.float32], keep: Kept) -> None:
        channels = len(self.model.channel_names)
        if image.ndim != 4 or image.shape[0] != channels or 0 in image.shape:
            msg = f"model {self.model.name} takes {channels} channel(s) of a 3D image, not an array of {image.shape}"
            raise ModelError(msg)
        unknown = [role for outputs in keep.values() for role in outputs if role not in self.model.heads.names]
        if unknown:
            present = ", ".join(self.model.heads.names)
            msg = f"model {self.model.path} has no output {', '.join(unknown)}; it has {present}"
            raise ModelError(msg)

    def _collect_direct(
        self, prepared: PreparedImage, engine: Engine, keep: Kept, progress: Progress | None, *, half: bool
    ) -> Prediction:
        """Decode slab by slab; for a network that works on the grid of the image."""
        whole = self._unfilled(prepared, keep, half=half)
        for slab in self._slabs(prepared, engine, progress):
            at = tuple(slice(slab.start, slab.stop) if axis == slab.axis else slice(None) for axis in range(3))
            whole.fill(self._decoded(slab.logits.__getitem__, keep), at)
        return whole.finish()

    def _collect_resampled(
        self, prepared: PreparedImage, engine: Engine, keep: Kept, progress: Progress | None, *, half: bool
    ) -> Prediction:
        """Keep logits on the network's grid, then resample and decode one output at a time."""
        logits = self._all_logits(prepared, engine, progress)
        restore = head_restorer(self.model, prepared)
        whole = self._unfilled(prepared, keep, half=half)
        whole.fill(self._decoded(lambda index: restore(logits[index]), keep))
        return whole.finish()

    def _unfilled(self, prepared: PreparedImage, keep: Kept, *, half: bool) -> _WholeImage:
        # Outside the non-zero part of the image a softmax model has background with probability 1.
        certain = () if self.model.heads.regions else self.model.heads.names[:1]
        outside = {name: float(any(role in certain for role in roles)) for name, roles in keep.items()}
        return _WholeImage(prepared, self.model.transpose, outside, half=half)

    def _decoded(self, head: Callable[[int], torch.Tensor], keep: Kept) -> Decoded:
        return decode(
            head,
            self.model.heads,
            keep,
            self._low_priority_roles,
            exclusive_parts=self._exclusive_parts,
            borders=self._borders,
        )

    def _all_logits(self, prepared: PreparedImage, engine: Engine, progress: Progress | None) -> torch.Tensor:
        """Return the logits of every output on the network's grid, on the CPU."""
        logits = torch.zeros((len(self.model.heads.names), *prepared.data.shape[1:]))
        for slab in self._slabs(prepared, engine, progress):
            logits.narrow(slab.axis + 1, slab.start, slab.stop - slab.start).copy_(slab.logits)
        return logits

    def _slabs(self, prepared: PreparedImage, engine: Engine, progress: Progress | None) -> Iterator[Slab]:
        a, b, c = prepared.data.shape[1:]
        on_cpu = self._sums_on_cpu
        grid = self._grid((a, b, c), prepared.roi)
        large = a * b * c > _LARGE_VOXELS
        engine.decide(lambda: sample_patches(prepared.data, grid, _TRIAL_PATCHES))
        for slab in slide(
            prepared.data,
            (lambda part: engine(part.to(engine.device)).cpu()) if on_cpu else engine,
            grid,
            device=_CPU if on_cpu else engine.device,
            transforms=self.transforms,
            progress=progress,
        ):
            self._check_finite(slab.logits)
            if large and slab.stop == (a, b, c)[slab.axis]:
                engine.release()  # before the logits are decoded, which takes memory too
            yield slab

    def _grid(self, shape: Shape3, roi: RegionOfInterest | None = None) -> PatchGrid:
        model = self.model
        patch, multiple = model.network_patch_size, model.patch_multiple
        return fitting_grid(shape, patch, self._step, multiple, self._growth, roi=roi)

    def _check_finite(self, logits: torch.Tensor) -> None:
        # One sum instead of a mask of the size of the slab: it is finite unless a term is not.
        if not bool(torch.isfinite(logits.sum())):
            msg = f"model {self.model.path} gave values that are not numbers; try --engine torch, or another model"
            raise ModelError(msg)


def _network_axes(transpose: Sequence[int]) -> list[int]:
    """Return the network's axis of each of x, y, z; ``transpose`` is its order of the axes z, y, x."""
    return [int(axis) for axis in np.argsort(transpose)][::-1]


class _WholeImage:
    """A prediction on the grid of the image, filled with decoded parts in the network's order of axes.

    Parameters
    ----------
    prepared
        The input of the network.
    transpose
        The network's order of the axes z, y, x.
    outside
        Names of the probabilities, and the value of each where the network does not run.
    half
        Keep the probabilities as float16.
    """

    def __init__(
        self, prepared: PreparedImage, transpose: Sequence[int], outside: Mapping[str, float], *, half: bool
    ) -> None:
        self._network_axes = _network_axes(transpose)
        self._image_axes = [2 - axis for axis in transpose]
        self._prepared = prepared
        self._labels = self._filled(0, np.uint8)
        dtype = np.float16 if half else np.float32
        self._probabilities: dict[str, NDArray[np.floating]] = {
            name: self._filled(value, dtype) for name, value in outside.items()
        }
        self._margin: NDArray[np.float16] | None = None

    def fill(self, found: Decoded, at: tuple[slice, ...] = (slice(None),) * 3) -> None:
        """Write a decoded part of the network's grid."""
        self._computed(self._labels)[at].copy_(found.labels)
        for name, values in found.probabilities.items():
            self._computed(self._probabilities[name])[at].copy_(values)
        if found.margin is not None:
            if self._margin is None:
                # Outside the non-zero part of the image background is certain.
                self._margin = self._filled(np.inf, np.float16)
            self._computed(self._margin)[at].copy_(found.margin)

    def finish(self) -> Prediction:
        """Return the prediction."""
        return Prediction(self._labels, self._probabilities, self._margin)

    def _filled(self, value: float, dtype: type[VoxelValue]) -> NDArray[VoxelValue]:
        shape = [self._prepared.full_shape[axis] for axis in self._network_axes]
        return np.zeros(shape, dtype) if value == 0 else np.full(shape, value, dtype)

    def _computed(self, values: NDArray[VoxelValue]) -> torch.Tensor:
        """Return the part that the network runs on; torch copies between orders of axes on all threads."""
        a, b, c = (self._prepared.box[axis] for axis in self._network_axes)
        return torch.from_numpy(values[a, b, c]).permute(self._image_axes)
