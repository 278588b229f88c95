"""The networks of the method and what they return, before the labelling of the whole column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.errors import ModelError, UsageError
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.inference import folders
from totalspineseg_bids.inference.compilation import compile_ahead
from totalspineseg_bids.inference.options import InferenceMode, InferenceOptions
from totalspineseg_bids.models.catalog import BUNDLED
from totalspineseg_bids.models.roles import Role
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LabellingInput, LevelPrior
from totalspineseg_bids.segmentation.quality import WINDOW_LIMITS, WindowLimits
from totalspineseg_bids.segmentation.result import StageProgress
from totalspineseg_bids.segmentation.semantic_map import MEASURED_ROLES, SemanticMap
from totalspineseg_bids.segmentation.spine_roi import is_cut, keep_spine, locate_spine, spine_box

if TYPE_CHECKING:
    from totalspineseg_bids.inference.model import NnUNetModel
    from totalspineseg_bids.inference.predictor import Predictor
    from totalspineseg_bids.models.registry import ModelSet

VoxelSize = tuple[float, float, float]

#: Voxel size of the grid that the two steps and the labelling work on, mm.
WORKING_SPACING_MM = 1.0
#: Margin of step 1 around the spine that the level prior sees in voxels of 3 to 5 mm, mm.
REGION_MARGIN_MM = 20.0
#: Margin of step 2 around the spine of step 1, which may miss the tips of processes, mm.
CROP_MARGIN_MM = 12.0
#: Other regions overwrite these. A network trained with Dice loss moves the border of two neighbours into the smaller
#: one, so a voxel that both claim belongs to the smaller, the disc (docs/method.md).
LOW_PRIORITY_ROLES = ("vertebrae",)
#: Tissues whose borders are placed between voxels.
BORDERS = ("vertebrae", "sacrum", "disc", "canal", "cord")


@dataclass(frozen=True)
class NetworkOutputs:
    """Outputs of the networks for one image."""

    affine: Affine
    """4x4, voxel of the working grid to scanner space (RAS+, mm)."""
    final: SemanticMap
    """Map of the last step."""
    support: SemanticMap | None = None
    """Map of the step before the last."""
    level_prior: LevelPrior | None = None
    """Level probabilities of the level-prior network."""
    flags: tuple[str, ...] = ()
    """Findings that a person should check."""
    precisions: tuple[str, ...] = ()
    """Networks whose precision was chosen by its effect, with the share of equal labels."""
    padding: NDArray[np.bool_] | None = None
    """Voxels of the working grid outside the acquired field of view; ``None`` if there are none."""

    def as_session_image(self, localizer: Volume | None = None) -> LabellingInput:
        """Return the input of the labelling."""
        support = () if self.support is None else ((self.support.labels, self.support.class_map),)
        return LabellingInput(
            self.final.labels, self.affine, self.final.class_map, support, localizer, self.level_prior, self.padding
        )


#: Flag of images that the single-step mode segmented with a level prior: levels only, shapes are not to be measured.
COARSE_MODEL: Final = "coarse-model"


class SegmentationNetworks:
    """The networks of one set of models; each is loaded at its first use and kept.

    Parameters
    ----------
    models : ModelSet
        Model folders by role.
    options : InferenceOptions
        Device, engine, precision, threads and mode.
    limits : mapping of Role to WindowLimits, optional
        Passes and overlap by role; those of the quality in ``options`` by default.
    unrefined : bool
        Leave out the refining network and keep the probabilities of both steps, from which one is trained.

    Attributes
    ----------
    predictors : dict of str to Predictor
        Networks loaded so far, by role.

    Raises
    ------
    ModelError
        If the set lacks a model that the mode needs.
    """

    def __init__(
        self,
        models: ModelSet,
        options: InferenceOptions,
        *,
        limits: Mapping[Role, WindowLimits] | None = None,
        unrefined: bool = False,
    ) -> None:
        self.models = models
        self.options = options
        self.predictors: dict[str, Predictor] = {}
        self._limits = WINDOW_LIMITS[options.quality] if limits is None else limits
        self._unrefined = unrefined
        for role in self.roles:
            models.require(role)

    @property
    def mode(self) -> InferenceMode:
        """Selection of the models that run."""
        return self.options.mode

    @property
    def roles(self) -> tuple[Role, ...]:
        """Models in use."""
        return tuple(role for role in self.models.roles(self.mode) if not (role is Role.REFINE and self._unrefined))

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the checkpoint of each model in use, by role."""
        return {role: self._predictor(role).model.digest for role in self.roles}

    @property
    def precisions(self) -> tuple[str, ...]:
        """Networks whose precision was chosen by its effect, with the share of equal labels."""
        reports = {
            str(role.value): self.predictors[role].precision_report for role in self.roles if role in self.predictors
        }
        return tuple(f"{role}: {report}" for role, report in reports.items() if report)

    def compile_ahead(self) -> None:
        """Start to compile the networks as the last process did; the first to run comes first.

        Raises
        ------
        ModelError
            If a file of a model cannot be read.
        """
        if self.options.engine == "torch" or self.options.device not in {"auto", "cpu"}:
            return
        roles = sorted(self.roles, key=lambda role: role is not Role.LEVEL_PRIOR)
        compile_ahead([folders.checkpoints_digest(self.models.require(role)) for role in roles])

    def locate(self, image: Volume, report: StageProgress) -> tuple[LevelPrior | None, NDArray[np.bool_] | None]:
        """Run the level-prior network on the whole image.

        Returns
        -------
        LevelPrior or None
            Evidence for the levels, where the set has such a network.
        (X, Y, Z) bool or None
            Region of the spine; None where none is seen or it is not used. For a set without such a network it comes
            from the bundled one.
        """
        own = self.models.level_prior is not None
        if not own and self.options.roi == "off":
            return None, None
        if own and self.mode is InferenceMode.SINGLE_STEP:  # which runs the same network
            return None, None
        predictor = self._predictor(Role.LEVEL_PRIOR)
        found = predictor.predict_coarse(
            image.data[None], image.spacing, progress=lambda fraction: report("scout", fraction)
        )
        class_map, affine = class_map_of(predictor.model), image.affine @ found.to_image
        prior = LevelPrior.from_classes(found.probabilities, found.names, class_map, affine)
        region = locate_spine(prior, image.geometry) if self.options.roi == "auto" else None
        return prior if own else None, region

    def single_step(self, image: Volume, region: NDArray[np.bool_] | None, report: StageProgress) -> SemanticMap:
        """Run the model whose classes are the levels."""
        return self._run_in_region(Role.SINGLE, image, region, report)

    def step1(self, image: Volume, region: NDArray[np.bool_] | None, report: StageProgress) -> SemanticMap:
        """Find canal, discs and vertebrae, in the region of the spine or, if it does not hold all of it, everywhere."""
        return self._run_in_region(Role.STEP1, image, region, report)

    def step2(
        self, channels: NDArray[np.float32], spacing: VoxelSize, roi: NDArray[np.bool_], report: StageProgress
    ) -> SemanticMap:
        """Separate odd from even vertebrae.

        Parameters
        ----------
        channels : (2, X, Y, Z) float32
            Intensities in a box around the spine, and 1 in every second disc.
        spacing : tuple of float
            Voxel size, mm.
        roi : (X, Y, Z) bool
            The spine of step 1.
        report : callable
            Receives the progress.
        """
        return self._run(Role.STEP2, channels, spacing, report, roi=roi, margin_mm=CROP_MARGIN_MM)

    def refine(
        self,
        intensities: NDArray[np.float32],
        spacing: VoxelSize,
        first: SemanticMap,
        second: SemanticMap,
        report: StageProgress,
    ) -> SemanticMap:
        """Refine the borders of step 2 and its odd and even vertebrae, where the set has a refining network.

        Parameters
        ----------
        intensities : (X, Y, Z) float32
            Image in the box of step 2.
        spacing : tuple of float
            Voxel size, mm.
        first, second : SemanticMap
            Results of the steps there, same shape.
        report : callable
            Receives the progress.

        Returns
        -------
        SemanticMap
            In the classes of step 2.

        Raises
        ------
        ModelError
            If a step gives no probability of a role that the refining network takes.
        """
        if Role.REFINE not in self.roles:
            return second
        from totalspineseg_bids.segmentation import refinement  # noqa: PLC0415 - torch takes seconds to import

        self._require_probabilities(1, refinement.TISSUES, first.probabilities)
        self._require_probabilities(2, refinement.REFINED_ROLES, second.probabilities)
        box = spine_box(second.labels, refinement.MARGIN_MM, WORKING_SPACING_MM)
        if box is None:
            return second
        channels = refinement.refinement_channels(
            *refinement.crop_inputs(box, intensities, second.probabilities, first.probabilities)
        )
        roi = second.labels[box] > 0
        found = self._run(Role.REFINE, channels, spacing, report, roi=roi, margin_mm=refinement.MARGIN_MM)
        labels = np.zeros_like(second.labels)
        labels[box] = refinement.apply_refinement(second.labels[box], second.class_map, found.labels, found.class_map)
        # Outside of the box the probabilities stay those of step 2.
        probabilities = {role: second.probabilities[role].copy() for role in found.probabilities}
        for role, values in found.probabilities.items():
            probabilities[role][box] = values
        margin = second.margin
        if margin is not None and found.margin is not None:
            margin = margin.copy()
            margin[box] = found.margin
        return SemanticMap(labels, second.class_map, probabilities, margin)

    def as_support(self, first: SemanticMap) -> SemanticMap:
        """Return step 1 as the step before the last: its probabilities stay only for training a refining network."""
        return first if self._unrefined else replace(first, probabilities={})

    def _require_probabilities(
        self, step: int, roles: tuple[str, ...], given: Mapping[str, NDArray[np.floating]]
    ) -> None:
        missing = ", ".join(role for role in roles if role not in given)
        if missing:
            msg = f"model {self.models.name}: step {step} has no {missing}, which its refining network needs"
            raise ModelError(msg)

    def _folder(self, role: Role) -> Path:
        """Return the model folder of a role; for a set without a level prior the bundled one."""
        if role is Role.LEVEL_PRIOR and self.models.level_prior is None:
            from totalspineseg_bids.models.registry import resolve  # noqa: PLC0415 - loads torch

            return resolve(BUNDLED, need=(role,)).require(role)
        return self.models.require(role)

    def _predictor(self, role: Role) -> Predictor:
        """Load a model at its first use."""
        if role not in self.predictors:
            # Torch takes seconds to import.
            from totalspineseg_bids.inference.model import load_model  # noqa: PLC0415
            from totalspineseg_bids.inference.predictor import Predictor  # noqa: PLC0415

            model = load_model(self._folder(role))
            limits = self._limits.get(role, WindowLimits())
            self.predictors[role] = Predictor(
                model,
                self.options,
                low_priority_roles=LOW_PRIORITY_ROLES,
                exclusive_parts=class_map_of(model).has_parity,
                borders=BORDERS,
                step=limits.step_of(model),
                growth=limits.growth_of(model),
                mirror=model.use_mirroring,
                max_passes=limits.passes,
            )
        return self.predictors[role]

    def _run_in_region(
        self, role: Role, image: Volume, region: NDArray[np.bool_] | None, report: StageProgress
    ) -> SemanticMap:
        """Run a network in a region, or on the whole image if the region saves little work or cuts off the spine."""
        margin = round(REGION_MARGIN_MM / WORKING_SPACING_MM)
        if region is not None and self._predictor(role).is_worthwhile(region, margin, image.spacing):
            found = self._run(role, image.data[None], image.spacing, report, roi=region, margin_mm=REGION_MARGIN_MM)
            if not is_cut(found.labels, region, margin):
                return found
        return self._run(role, image.data[None], image.spacing, report)

    def _run(
        self,
        role: Role,
        channels: NDArray[np.float32],
        spacing: VoxelSize,
        report: StageProgress,
        *,
        roi: NDArray[np.bool_] | None = None,
        margin_mm: float = 0.0,
    ) -> SemanticMap:
        """Run one network, on all of the image or on a region of interest, and erase what is far from the spine."""
        predictor = self._predictor(role)
        model = predictor.model
        if len(model.channel_names) != len(channels):
            msg = (
                f"model {model.path} takes {len(model.channel_names)} channels but {role.value} gives {len(channels)}; "
                "check which step it was trained for"
            )
            raise ModelError(msg)
        class_map = class_map_of(model)

        prediction = predictor.predict(
            channels,
            spacing,
            keep=self._kept_probabilities(role, class_map),
            # Those of step 1 cover the whole image, and where step 2 follows only the refinement reads them.
            half=role is Role.STEP1 and self.mode is not InferenceMode.STEP1,
            roi=roi,
            margin=round(margin_mm / WORKING_SPACING_MM),
            progress=lambda fraction: report(role.value, fraction),
        )
        labels = keep_spine(prediction.labels, class_map)
        return SemanticMap(labels, class_map, prediction.probabilities, prediction.margin)

    def _kept_probabilities(self, role: Role, class_map: ClassMap) -> dict[str, tuple[str, ...]]:
        """Return the probabilities that measurement or refinement reads, each with the outputs it joins."""
        kept: dict[str, tuple[str, ...]] = {name: (name,) for name in MEASURED_ROLES if name in class_map.labels}
        if role in {Role.STEP1, Role.STEP2} and (self._unrefined or Role.REFINE in self.roles):
            from totalspineseg_bids.segmentation.refinement import TISSUES, parity_outputs  # noqa: PLC0415

            kept |= {name: (name,) for name in TISSUES if name in class_map.labels}
            kept |= {name: outputs for name, outputs in parity_outputs(class_map).items() if outputs}
        return kept


def class_map_of(model: NnUNetModel) -> ClassMap:
    """Return the meaning of the classes of a model.

    Raises
    ------
    ModelError
        If its labels are not those of a spine model.
    """
    try:
        return ClassMap.from_labels(model.labels, str(model.path))
    except UsageError as error:
        raise ModelError(str(error)) from error
