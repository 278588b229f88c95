"""Interface of segmenters, and creation of the default one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.models.registry import ModelSet
from totalspineseg_bids.models.roles import Role, needed_roles
from totalspineseg_bids.segmentation.result import LabelledSpine, StageProgress

if TYPE_CHECKING:
    from totalspineseg_bids.segmentation.pipeline import SpineSegmenter


class Segmenter(Protocol):
    """Segmenter that turns an image into a labelled spine."""

    def segment(
        self,
        volume: Volume,
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),
        progress: StageProgress | None = None,
    ) -> LabelledSpine:
        """Segment an image.

        Parameters
        ----------
        volume : Volume
            float32 image on its own grid.
        localizer : Volume, optional
            Canonical labels (uint8) of the same person, on any grid of the same scanner space.
        companions : sequence of Volume
            Images of the same session whose levels are found together with those of this one.
        progress : StageProgress, optional
            Called with the name of the stage and the completed fraction of it.

        Returns
        -------
        LabelledSpine
            Result on the RAS 1 mm working grid.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedSegmenter:
    """Segmenter with the identity of its model."""

    segmenter: Segmenter
    """Segmenter."""
    model: str
    """Name of the model set, recorded in all outputs."""
    digest: str
    """SHA-256 of the descriptions and weights of the model."""
    bundled: bool
    """True for the bundled model, which was trained on synthetic images and is meant for trying out the program."""


class _OnFirstUse:
    """Segmenter that is created with the first image; a run whose images are all complete does not import it."""

    def __init__(self, models: ModelSet, options: InferenceOptions) -> None:
        self._models, self._options = models, options
        self._segmenter: SpineSegmenter | None = None

    def segment(
        self,
        volume: Volume,
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),
        progress: StageProgress | None = None,
    ) -> LabelledSpine:
        """Segment an image; see `Segmenter.segment`."""
        if self._segmenter is None:
            from totalspineseg_bids.segmentation.pipeline import SpineSegmenter  # noqa: PLC0415

            self._segmenter = SpineSegmenter(self._models, self._options)
        return self._segmenter.segment(volume, localizer=localizer, companions=companions, progress=progress)


SegmenterFactory = Callable[[RunConfig], LoadedSegmenter]


def model_digest(models: ModelSet, roles: Iterable[Role]) -> str:
    """Return the SHA-256 of the descriptions and weights of the models that a run uses."""
    from totalspineseg_bids.inference import folders  # noqa: PLC0415 - loads torch, which --help need not

    whole = hashlib.sha256()
    for role in roles:
        folder = models.require(role)
        files = [folder / "dataset.json", folder / "plans.json", *sorted(folder.glob("fold_*/checkpoint_*.pth"))]
        for file in files:
            if file.is_file():
                name = file.relative_to(folder).as_posix()
                whole.update(f"{role.value} {name} {folders.sha256(file)}\n".encode())
    return whole.hexdigest()


def make_segmenter(model: str, options: InferenceOptions) -> tuple[SpineSegmenter, ModelSet]:
    """Find models and create a segmenter from them.

    Parameters
    ----------
    model : str
        Name of an installed model set, a folder, or a zip.
    options : InferenceOptions
        Device, engine, precision, threads and mode.

    Returns
    -------
    SpineSegmenter, ModelSet
        The segmenter and its models.

    Raises
    ------
    ModelError
        If there is no such model, it is damaged, or a role is missing.
    """
    # Imported here, because these load torch and nnU-Net.
    from totalspineseg_bids.models.registry import resolve  # noqa: PLC0415
    from totalspineseg_bids.segmentation.pipeline import SpineSegmenter  # noqa: PLC0415

    models = resolve(model, need=needed_roles(options.mode))
    return SpineSegmenter(models, options), models


def inference_options(settings: Any) -> InferenceOptions:  # noqa: ANN401 - RunConfig, or a namespace of argparse
    """Collect the inference options from objects with an attribute for each flag."""
    return InferenceOptions.from_flags(
        device=settings.device,
        engine=settings.engine,
        precision=settings.precision,
        threads=settings.threads,
        single_step=settings.single_step,
        step1_only=settings.step1_only,
        quality=settings.quality,
        roi=settings.roi,
    )


def load_segmenter(config: RunConfig) -> LoadedSegmenter:
    """Find the models that a configuration names and create a segmenter from them.

    Raises
    ------
    ModelError
        If there is no such model, it is damaged, or a role is missing.
    """
    from totalspineseg_bids.models.registry import resolve  # noqa: PLC0415

    options = inference_options(config)
    models = resolve(config.model, need=needed_roles(options.mode))
    digest = model_digest(models, models.roles(options.mode))
    return LoadedSegmenter(_OnFirstUse(models, options), models.name, digest, models.bundled)
