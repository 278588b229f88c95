"""What the app needs of a segmentation, and the one it uses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from totalspineseg_bids.config import Engine, Precision, RunConfig
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.models.registry import ModelSet
from totalspineseg_bids.models.roles import Role, needed_roles
from totalspineseg_bids.segmentation.result import LabelledSpine

if TYPE_CHECKING:
    from totalspineseg_bids.segmentation.pipeline import SpineSegmenter

#: Called with the name of a stage and its fraction done, 0 to 1.
StageProgress = Callable[[str, float], None]


class Segmenter(Protocol):
    """Turns an image into a labelled spine."""

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
        volume
            float32 image on its own grid.
        localizer
            Canonical labels (uint8) of the same person, on any grid of the same scanner space.
        companions
            Images of the same session whose levels are found together with those of this one.
        progress
            Called with the name of the stage and its fraction done.

        Returns
        -------
        LabelledSpine
            On the RAS 1 mm working grid.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedSegmenter:
    """A segmenter with the identity of its model.

    Attributes
    ----------
    segmenter
        What segments.
    model
        Name of the model set, stamped on every output.
    digest
        SHA-256 of what the model consists of.
    bundled
        Whether it is the model for trying out, trained on synthetic images.
    """

    segmenter: Segmenter
    model: str
    digest: str
    bundled: bool


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


def make_segmenter(
    model: str,
    *,
    device: str = "auto",
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    single_step: bool = False,
    step1_only: bool = False,
) -> tuple[SpineSegmenter, ModelSet]:
    """Find models and make a segmenter of them.

    Parameters
    ----------
    model
        Name of an installed model set, a folder, or a zip.
    device, engine, precision, threads
        Where and how the networks run.
    single_step, step1_only
        The model that names all levels at once; or the first of the two steps alone.

    Returns
    -------
    SpineSegmenter, ModelSet
        The segmenter and what it was made of.

    Raises
    ------
    UsageError
        If both modes are asked for.
    ModelError
        If there is no such model, it is damaged, or a role is missing.
    """
    # Here rather than above: these load torch and nnU-Net.
    from totalspineseg_bids.models.registry import resolve  # noqa: PLC0415
    from totalspineseg_bids.segmentation.pipeline import SpineSegmenter  # noqa: PLC0415

    models = resolve(model, need=needed_roles(single_step=single_step, step1_only=step1_only))
    segmenter = SpineSegmenter(
        models,
        device=device,
        engine=engine,
        precision=precision,
        threads=threads,
        single_step=single_step,
        step1_only=step1_only,
    )
    return segmenter, models


def load_segmenter(config: RunConfig) -> LoadedSegmenter:
    """Find the models that a configuration names and make a segmenter of them.

    Raises
    ------
    ModelError
        If there is no such model, it is damaged, or a role is missing.
    """
    segmenter, models = make_segmenter(
        config.model,
        device=config.device,
        engine=config.engine,
        precision=config.precision,
        threads=config.threads,
        single_step=config.single_step,
        step1_only=config.step1_only,
    )
    return LoadedSegmenter(segmenter, models.name, model_digest(models, segmenter.roles), models.bundled)
