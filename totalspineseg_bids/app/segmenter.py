"""Interface of segmenters, and creation of the default one."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.inference import folders
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.models.registry import ModelSet, resolve
from totalspineseg_bids.models.roles import Role, needed_roles
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
from totalspineseg_bids.segmentation.result import LabelledSpine, StageProgress


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
    preload: Callable[[], None] = lambda: None
    """Prepares the segmenter while an image is read."""


SegmenterFactory = Callable[[RunConfig], LoadedSegmenter]


def model_digest(models: ModelSet, roles: Iterable[Role]) -> str:
    """Return the SHA-256 of the descriptions and weights of the models that a run uses."""
    whole = hashlib.sha256()
    for role in roles:
        folder = models.require(role)
        files = [folder / "dataset.json", folder / "plans.json", *sorted(folder.glob("fold_*/checkpoint_*.pth"))]
        for file in files:
            if file.is_file():
                name = file.relative_to(folder).as_posix()
                whole.update(f"{role.value} {name} {folders.sha256(file)}\n".encode())
    return whole.hexdigest()


def make_segmenter(settings: Any) -> tuple[SpineSegmenter, ModelSet]:  # noqa: ANN401
    """Find the models that settings name and create a segmenter from them.

    Parameters
    ----------
    settings : RunConfig or argparse.Namespace
        With an attribute for each flag of the method.

    Raises
    ------
    ModelError
        If there is no such model, it is damaged, or a role is missing.
    """
    flags = inspect.signature(InferenceOptions.from_flags).parameters
    options = InferenceOptions.from_flags(**{name: getattr(settings, name) for name in flags})
    models = resolve(settings.model, need=needed_roles(options.mode))
    return SpineSegmenter(models, options), models


def load_segmenter(config: RunConfig) -> LoadedSegmenter:
    """Create the segmenter of a configuration; see `make_segmenter`."""
    segmenter, models = make_segmenter(config)
    digest = model_digest(models, segmenter.roles)
    return LoadedSegmenter(segmenter, models.name, digest, models.bundled, segmenter.preload)
