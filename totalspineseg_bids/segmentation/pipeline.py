"""The main job for one image: volume in, labelled spine out, all in memory."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.errors import ModelError, UsageError
from totalspineseg_bids.imaging.grid import paste, to_working_grid
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.models.roles import Role, needed_roles
from totalspineseg_bids.segmentation.labelling import (
    LevelScout,
    SessionImage,
    label_map,
    label_session,
    odd_discs,
)
from totalspineseg_bids.segmentation.layout import Layout
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus
from totalspineseg_bids.segmentation.stages import keep_spine, probability_roles, spine_box

if TYPE_CHECKING:
    from totalspineseg_bids.inference.engines import EngineName, Precision
    from totalspineseg_bids.inference.model import NnUNetModel
    from totalspineseg_bids.inference.predictor import Predictor
    from totalspineseg_bids.models.registry import ModelSet

logger = logging.getLogger(__name__)

#: Called with the name of a stage and the finished part of it, 0 to 1.
Progress = Callable[[str, float], None]

WORKING_SPACING_MM = 1.0
#: Around the spine that step 1 found; step 2 sees what step 1 may have missed at the ends of processes.
CROP_MARGIN_MM = 20.0
#: By nnU-Net's order vertebrae overwrite discs. Dice makes a network paint the larger of two neighbours over the border
#: rather than the smaller, so where both are found it is the disc (docs/labelling.md).
YIELDING = ("vertebrae",)
#: Images whose segmentation is kept for the sake of their companions.
_REMEMBERED = 8
NOTHING_FOUND = "no spine in view: step 1 found neither a spinal canal nor a disc"


class _Semantic(NamedTuple):
    """Semantic map of a model on the working grid, with its probabilities."""

    labels: NDArray[np.uint8]
    layout: Layout
    probabilities: dict[str, NDArray[np.float32]]


class _Perception(NamedTuple):
    """What the networks make of an image, before any level is decided."""

    affine: Affine
    final: _Semantic
    support: _Semantic | None = None
    scout: LevelScout | None = None
    flags: tuple[str, ...] = ()

    def as_session_image(self, localizer: Volume | None) -> SessionImage:
        """Return it as an input of the labelling."""
        support = () if self.support is None else ((self.support.labels, self.support.layout),)
        return SessionImage(self.final.labels, self.affine, self.final.layout, support, localizer, self.scout)


class SpineSegmenter:
    """Segments and labels spines with one set of models; build it once, use it for many images.

    Parameters
    ----------
    models
        Models of the two steps, or of the single step.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    engine
        ``auto``, ``openvino`` or ``torch``.
    threads
        Threads of the CPU at most.
    precision
        ``auto``, ``fp32``, ``bf16`` or ``fp16``.
    single_step
        Use the model that names all levels at once.
    step1_only
        Stop after step 1; vertebrae are then told apart by the discs between them.

    Raises
    ------
    UsageError
        If both modes are asked for.
    ModelError
        If the set lacks a model that the mode needs.
    """

    def __init__(
        self,
        models: ModelSet,
        *,
        device: str = "auto",
        engine: EngineName = "auto",
        threads: int | None = None,
        precision: Precision = "auto",
        single_step: bool = False,
        step1_only: bool = False,
    ) -> None:
        if single_step and step1_only:
            msg = "single-step and step-1-only exclude each other; choose one"
            raise UsageError(msg)
        self.models = models
        self.single_step = single_step
        self.step1_only = step1_only
        self._device = device
        self._engine: EngineName = engine
        self._threads = threads
        self._precision: Precision = precision
        self._predictors: dict[str, Predictor] = {}
        self._perceptions: OrderedDict[str, _Perception] = OrderedDict()
        self._session: tuple[tuple[str, ...], list[LabelledSpine]] = ((), [])
        for role in self.roles:
            models.require(role)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Models in use: those of the steps, and the level scout where the set has one."""
        steps = needed_roles(single_step=self.single_step, step1_only=self.step1_only)
        return steps if self.single_step or self.models.scout is None else (*steps, Role.SCOUT)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the checkpoint of each model in use, by role."""
        return {role: self._predictor(role).model.digest for role in self.roles}

    def _predictor(self, role: str) -> Predictor:
        """Load a model at its first use and keep it."""
        if role not in self._predictors:
            # Torch takes seconds to import; what only looks at layouts or labels does not pay for it.
            from totalspineseg_bids.inference.model import load_model  # noqa: PLC0415
            from totalspineseg_bids.inference.predictor import Predictor  # noqa: PLC0415

            model = load_model(self.models.require(role))
            self._predictors[role] = Predictor(
                model,
                device=self._device,
                engine=self._engine,
                threads=self._threads,
                precision=self._precision,
                yielding=YIELDING,
                divided=_layout(model).has_parity,
                step=model.tile_step,
                mirror=model.use_mirroring,
            )
        return self._predictors[role]

    def segment(
        self,
        volume: Volume,
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),
        progress: Progress | None = None,
    ) -> LabelledSpine:
        """Segment and label one image.

        Parameters
        ----------
        volume
            3D image of any orientation and voxel size; it is not changed.
        localizer
            Labelled image of the same session (canonical ids) that overlaps in scanner space.
        companions
            Other images of the same session, in scanner space. The levels of all are found together; what the networks
            made of the last images is kept, so that each is segmented once when they come as companions of each other.
        progress
            Called with the name of the stage and the finished part of it.

        Returns
        -------
        LabelledSpine
            On the working grid (canonical RAS, 1 mm), with the probabilities of cord and canal where the models give
            them. An image without a spine yields the status ``NO_SPINE`` and empty labels.

        Raises
        ------
        ModelError
            If a model cannot be loaded or does not fit its step.
        """
        tell = progress or (lambda _stage, _part: None)
        if not companions:
            own = self._perceive(volume, localizer, tell)
            tell("label", 0.0)
            (spine,) = label_session([own.as_session_image(localizer)])
        else:
            own, spine = self._in_session(volume, localizer, companions, tell)
        tell("label", 1.0)
        return _finished(own, spine)

    def _in_session(
        self, volume: Volume, localizer: Volume | None, companions: Sequence[Volume], tell: Progress
    ) -> tuple[_Perception, LabelledSpine]:
        """Label an image together with others; what is worked out for it serves when its companions come."""
        volumes = [volume, *companions]
        keys = [_fingerprint(v, localizer) for v in volumes]
        # In an order of their own, so that it does not matter which image is asked for.
        order = sorted(range(len(keys)), key=lambda n: keys[n])
        whole = tuple(keys[n] for n in order)
        if whole != self._session[0]:
            seen = [self._remembered(keys[n], volumes[n], localizer, tell) for n in order]
            tell("label", 0.0)
            self._session = whole, label_session([one.as_session_image(localizer) for one in seen])
        own = self._remembered(keys[0], volume, localizer, tell)
        return own, self._session[1][whole.index(keys[0])]

    def _remembered(self, key: str, volume: Volume, localizer: Volume | None, tell: Progress) -> _Perception:
        if key not in self._perceptions:
            self._perceptions[key] = self._perceive(volume, localizer, tell)
            while len(self._perceptions) > _REMEMBERED:
                self._perceptions.popitem(last=False)
        self._perceptions.move_to_end(key)
        return self._perceptions[key]

    def _perceive(self, volume: Volume, localizer: Volume | None, tell: Progress) -> _Perception:
        """Run the networks on one image."""
        tell("resample", 0.0)
        image = to_working_grid(volume, WORKING_SPACING_MM)
        tell("resample", 1.0)
        if self.single_step:
            return _Perception(image.affine, self._run("single", image.data[None], image, tell))
        first = self._run("step1", image.data[None], image, tell)
        if not first.labels.any():
            return _Perception(image.affine, first)
        scout = self._scout(image, tell)
        if self.step1_only:
            return _Perception(image.affine, first, scout=scout)
        tell("discs", 0.0)
        discs = label_map(first.labels, image.affine, first.layout, localizer=localizer, scout=scout)
        tell("discs", 1.0)
        second = self._second_step(image, first, odd_discs(discs), tell)
        if second is None:
            return _Perception(image.affine, first, scout=scout, flags=("step2-empty",))
        return _Perception(image.affine, second, first, scout)

    def _second_step(self, image: Volume, first: _Semantic, odd: NDArray[np.uint8], tell: Progress) -> _Semantic | None:
        """Run step 2 on the box around the spine; ``None`` where it finds no canal and no disc."""
        box = spine_box(first.labels, CROP_MARGIN_MM, WORKING_SPACING_MM)
        if box is None:
            return None
        channels = np.stack([image.data[box], odd[box].astype(np.float32)])
        second = self._run("step2", channels, image, tell)
        if not second.labels.any():
            return None
        shape = image.geometry.shape
        return _Semantic(
            paste(second.labels, box, shape),
            second.layout,
            {role: paste(p, box, shape) for role, p in second.probabilities.items()},
        )

    def _run(self, role: str, channels: NDArray[np.float32], image: Volume, tell: Progress) -> _Semantic:
        """Run one network and erase what is far from the spine."""
        predictor = self._predictor(role)
        model = predictor.model
        if len(model.channel_names) != len(channels):
            msg = (
                f"model {model.path} takes {len(model.channel_names)} channels but {role} gives {len(channels)}; "
                "check which step it was trained for"
            )
            raise ModelError(msg)
        layout = _layout(model)
        keep = probability_roles(model.labels)
        prediction = predictor.predict(channels, image.spacing, keep=keep, progress=lambda part: tell(role, part))
        return _Semantic(keep_spine(prediction.labels, layout), layout, prediction.probabilities)

    def _scout(self, image: Volume, tell: Progress) -> LevelScout | None:
        """Ask the level scout, where the set of models has one."""
        if self.models.scout is None:
            return None
        predictor = self._predictor("scout")
        found = predictor.predict_coarse(image.data[None], image.spacing, progress=lambda part: tell("scout", part))
        layout = _layout(predictor.model)
        return LevelScout.from_classes(found.probabilities, found.names, layout, image.affine @ found.to_image)


def _layout(model: NnUNetModel) -> Layout:
    """Return what the integers of a model mean."""
    try:
        return Layout.from_labels(model.labels, str(model.path))
    except UsageError as error:
        raise ModelError(str(error)) from error


def _fingerprint(volume: Volume, localizer: Volume | None) -> str:
    """Return what tells an image, with the localizer that helps it, from others."""
    whole = hashlib.sha256()
    for part in (volume, localizer):
        if part is not None:
            whole.update(repr((part.data.shape, str(part.data.dtype))).encode())
            whole.update(np.ascontiguousarray(part.affine).tobytes())
            whole.update(np.ascontiguousarray(part.data).tobytes())
    return whole.hexdigest()


def _finished(own: _Perception, spine: LabelledSpine) -> LabelledSpine:
    """Add to the labels what the networks say besides."""
    if spine.status is SpineStatus.NO_SPINE:
        return replace(spine, reason=NOTHING_FOUND)
    return replace(
        spine,
        flags=(*spine.flags, *own.flags),
        cord_probability=own.final.probabilities.get("cord"),
        canal_probability=own.final.probabilities.get("canal"),
    )
