"""The networks' part of the main job: volume in, semantic maps out, before any level is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.errors import ModelError, UsageError
from totalspineseg_bids.imaging.grid import paste, to_working_grid
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.models.roles import Role, needed_roles
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LabellingInput, LevelPrior, label_map, odd_discs
from totalspineseg_bids.segmentation.semantic_map import SemanticMap
from totalspineseg_bids.segmentation.spine_roi import keep_spine, probability_roles, spine_box

if TYPE_CHECKING:
    from totalspineseg_bids.inference.engines import EngineName, Precision
    from totalspineseg_bids.inference.model import NnUNetModel
    from totalspineseg_bids.inference.predictor import Predictor
    from totalspineseg_bids.models.registry import ModelSet

#: Called with the name of a stage and the finished part of it, 0 to 1.
Progress = Callable[[str, float], None]

WORKING_SPACING_MM = 1.0
#: Around the spine that step 1 found; step 2 sees what step 1 may have missed at the ends of processes.
CROP_MARGIN_MM = 20.0
#: By nnU-Net's order vertebrae overwrite discs. Dice makes a network paint the larger of two neighbours over the border
#: rather than the smaller, so where both are found it is the disc (docs/method.md).
LOW_PRIORITY_ROLES = ("vertebrae",)
#: Kinds of tissue whose borders are drawn between voxels.
BORDERS = ("vertebrae", "sacrum", "disc", "canal", "cord")


@dataclass(frozen=True)
class NetworkOutputs:
    """What the networks make of an image.

    Attributes
    ----------
    affine
        4x4, voxel of the working grid to scanner space (RAS+, mm).
    final
        The map of the last step.
    support
        The map of the step before it.
    scout
        Probabilities of every level from the level scout.
    flags
        Findings a person should look at.
    """

    affine: Affine
    final: SemanticMap
    support: SemanticMap | None = None
    scout: LevelPrior | None = None
    flags: tuple[str, ...] = ()

    def as_session_image(self, localizer: Volume | None = None) -> LabellingInput:
        """Return it as an input of the labelling."""
        support = () if self.support is None else ((self.support.labels, self.support.layout),)
        return LabellingInput(self.final.labels, self.affine, self.final.layout, support, localizer, self.scout)


class SegmentationNetworks:
    """The networks of one set of models; each is loaded at its first use and kept.

    Parameters
    ----------
    models, device, engine, threads, precision, single_step, step1_only
        As of :class:`~totalspineseg_bids.segmentation.pipeline.SpineSegmenter`.
    unrefined
        Leave what step 2 found as it is, and keep the probabilities of both steps that a refining network learns from.

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
        unrefined: bool = False,
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
        self._unrefined = unrefined
        self._predictors: dict[str, Predictor] = {}
        for role in self.roles:
            models.require(role)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Models in use: those of the steps, and the level scout and the refining network where the set has them."""
        steps = needed_roles(single_step=self.single_step, step1_only=self.step1_only)
        helpers = []
        if self.models.scout is not None and not self.single_step:
            helpers.append(Role.SCOUT)
        if self.models.refine is not None and Role.STEP2 in steps and not self._unrefined:
            helpers.append(Role.REFINE)
        return (*steps, *helpers)

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
                low_priority_roles=LOW_PRIORITY_ROLES,
                exclusive_parts=_layout(model).has_parity,
                borders=BORDERS,
                step=model.tile_step,
                mirror=model.use_mirroring,
            )
        return self._predictors[role]

    def run(self, volume: Volume, localizer: Volume | None, tell: Progress) -> NetworkOutputs:
        """Run the networks on one image.

        Parameters
        ----------
        volume
            3D image of any orientation and voxel size.
        localizer
            Labelled image of the same session, which helps to count the discs between the steps.
        tell
            Called with the name of the stage and the finished part of it.

        Returns
        -------
        NetworkOutputs
            On the working grid (canonical RAS, 1 mm); its map is empty where no spine is in view.

        Raises
        ------
        ModelError
            If a model cannot be loaded or does not fit its step.
        """
        tell("resample", 0.0)
        image = to_working_grid(volume, WORKING_SPACING_MM)
        tell("resample", 1.0)
        if self.single_step:
            return NetworkOutputs(image.affine, self._run("single", image.data[None], image, tell))
        first = self._run("step1", image.data[None], image, tell)
        if not first.labels.any():
            return NetworkOutputs(image.affine, _measured(first))
        scout = self._scout(image, tell)
        if self.step1_only:
            return NetworkOutputs(image.affine, _measured(first), scout=scout)
        tell("discs", 0.0)
        discs = label_map(first.labels, image.affine, first.layout, localizer=localizer, level_prior=scout)
        tell("discs", 1.0)
        second = self._second_step(image, first, odd_discs(discs), tell)
        if second is None:
            return NetworkOutputs(image.affine, _measured(first), scout=scout, flags=("step2-empty",))
        return NetworkOutputs(
            image.affine, second, first if self._unrefined else replace(first, probabilities={}), scout
        )

    def _second_step(
        self, image: Volume, first: SemanticMap, odd: NDArray[np.uint8], tell: Progress
    ) -> SemanticMap | None:
        """Run step 2 on the box around the spine; ``None`` where it finds no canal and no disc."""
        box = spine_box(first.labels, CROP_MARGIN_MM, WORKING_SPACING_MM)
        if box is None:
            return None
        channels = np.stack([image.data[box], odd[box].astype(np.float32)])
        second = self._run("step2", channels, image, tell, roi=first.labels[box] > 0, margin_mm=CROP_MARGIN_MM)
        if not second.labels.any():
            return None
        if Role.REFINE in self.roles:
            of_step1 = {role: values[box] for role, values in first.probabilities.items()}
            second = self._refined(image, channels[0], second, of_step1, tell)
        shape = image.geometry.shape
        return SemanticMap(
            paste(second.labels, box, shape),
            second.layout,
            {role: paste(p, box, shape) for role, p in second.probabilities.items()},
            None if second.margin is None else paste(second.margin, box, shape, outside=np.inf),
        )

    def _run(
        self,
        role: str,
        channels: NDArray[np.float32],
        image: Volume,
        tell: Progress,
        *,
        roi: NDArray[np.bool_] | None = None,
        margin_mm: float = 0.0,
    ) -> SemanticMap:
        """Run one network, on all of the image or on a region of interest, and erase what is far from the spine."""
        predictor = self._predictor(role)
        model = predictor.model
        if len(model.channel_names) != len(channels):
            msg = (
                f"model {model.path} takes {len(model.channel_names)} channels but {role} gives {len(channels)}; "
                "check which step it was trained for"
            )
            raise ModelError(msg)
        layout = _layout(model)
        keep = self._kept(role, layout)
        # Step 1 is kept of the whole image, and where step 2 follows only to refine with.
        half = role == Role.STEP1 and not self.step1_only
        prediction = predictor.predict(
            channels,
            image.spacing,
            keep=keep,
            half=half,
            roi=roi,
            margin=round(margin_mm / WORKING_SPACING_MM),
            progress=lambda part: tell(role, part),
        )
        labels = keep_spine(prediction.labels, layout)
        return SemanticMap(labels, layout, prediction.probabilities, prediction.margin)

    def _kept(self, role: str, layout: ClassMap) -> dict[str, tuple[str, ...]]:
        """Probabilities that are kept: what measurement wants, and of the steps what is refined."""
        kept: dict[str, tuple[str, ...]] = {name: (name,) for name in probability_roles(layout.labels)}
        if role in (Role.STEP1, Role.STEP2) and (self._unrefined or Role.REFINE in self.roles):
            from totalspineseg_bids.segmentation.refinement import TISSUES, parity_outputs  # noqa: PLC0415

            kept |= {name: (name,) for name in TISSUES if name in layout.labels}
            kept |= {name: outputs for name, outputs in parity_outputs(layout).items() if outputs}
        return kept

    def _refined(
        self,
        image: Volume,
        intensities: NDArray[np.float32],
        second: SemanticMap,
        of_step1: Mapping[str, NDArray[np.floating]],
        tell: Progress,
    ) -> SemanticMap:
        """Refine what step 2 found in its box: borders, and which vertebrae are odd."""
        from totalspineseg_bids.segmentation import refinement  # noqa: PLC0415 - torch takes seconds to import

        box = spine_box(second.labels, refinement.MARGIN_MM, WORKING_SPACING_MM)
        for step, needed, given in (
            (1, refinement.TISSUES, of_step1),
            (2, refinement.REFINED_ROLES, second.probabilities),
        ):
            missing = ", ".join(role for role in needed if role not in given)
            if missing:
                msg = f"model {self.models.name}: step {step} has no {missing}, which its refining network needs"
                raise ModelError(msg)
        if box is None:
            return second
        channels = refinement.refinement_channels(
            *refinement.crop_inputs(box, intensities, second.probabilities, of_step1)
        )
        roi = second.labels[box] > 0
        found = self._run(Role.REFINE, channels, image, tell, roi=roi, margin_mm=refinement.MARGIN_MM)
        labels = np.zeros_like(second.labels)
        labels[box] = refinement.apply_refinement(second.labels[box], second.layout, found.labels, found.layout)
        # Beyond the box a structure is as improbable as step 2 has it.
        probabilities = {role: second.probabilities[role].copy() for role in found.probabilities}
        for role, values in found.probabilities.items():
            probabilities[role][box] = values
        margin = second.margin
        if margin is not None and found.margin is not None:
            margin = margin.copy()
            margin[box] = found.margin
        return SemanticMap(labels, second.layout, probabilities, margin)

    def _scout(self, image: Volume, tell: Progress) -> LevelPrior | None:
        """Ask the level scout, where the set of models has one."""
        if self.models.scout is None:
            return None
        predictor = self._predictor("scout")
        found = predictor.predict_coarse(image.data[None], image.spacing, progress=lambda part: tell("scout", part))
        layout = _layout(predictor.model)
        return LevelPrior.from_classes(found.probabilities, found.names, layout, image.affine @ found.to_image)


def _measured(found: SemanticMap) -> SemanticMap:
    """Return a map with the probabilities that measurement wants and no others, in full precision."""
    wanted = probability_roles(found.layout.labels)
    probabilities = {role: found.probabilities[role].astype(np.float32, copy=False) for role in wanted}
    return replace(found, probabilities=probabilities)


def _layout(model: NnUNetModel) -> ClassMap:
    """Return what the integers of a model mean."""
    try:
        return ClassMap.from_labels(model.labels, str(model.path))
    except UsageError as error:
        raise ModelError(str(error)) from error
