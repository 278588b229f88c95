"""The method as two plain functions, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LabelScheme
from totalspineseg_bids.imaging.grid import restore_labels, restore_probability
from totalspineseg_bids.imaging.io import VolumeChoice, read_image, read_labels
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.inference.options import EngineName, InferenceOptions, Precision, Quality, RoiMode
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.segmentation.localizer import read_localizer
from totalspineseg_bids.segmentation.result import LabelledSpine, StageProgress


def segment(
    image: str | Path | Volume,
    model: str = "bundled",
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    precision: Precision = "auto",
    threads: int | None = None,
    single_step: bool = False,
    step1_only: bool = False,
    quality: Quality = "standard",
    roi: RoiMode = "auto",
    localizer: str | Path | Volume | None = None,
    localizer_scheme: LabelScheme = anatomy.DEFAULT_SCHEME,
    volume: VolumeChoice = "mean",
    resolution: Literal["native", "1mm"] = "native",
    progress: StageProgress | None = None,
) -> LabelledSpine:
    """Segment and label the spine in one image.

    For many images build a :class:`~totalspineseg_bids.segmentation.pipeline.SpineSegmenter` once instead.

    Parameters
    ----------
    image
        NIfTI file or image in memory.
    model
        Name of an installed model set, a folder, or a zip. ``bundled`` was trained on synthetic images only.
    device, engine, precision, threads
        Where and how the networks run.
    single_step, step1_only
        The model that names all levels at once; or the first of the two steps alone.
    quality
        Passes and overlap of the bundled networks: ``fast``, ``standard`` or ``best``.
    roi
        ``auto`` runs the first network only where a coarse network sees the spine, ``off`` on the whole image.
    localizer
        Labelled image that overlaps in scanner space.
    localizer_scheme
        Ids of the localizer's labels.
    volume
        Volume of a 4D series to use: an index from 0, or the mean of all volumes.
    resolution
        Grid of the result: the image's own or the 1 mm working grid.
    progress
        Called with the name of the stage and the finished part of it.

    Returns
    -------
    LabelledSpine
        Labels with canonical ids, components, levels and status.

    Raises
    ------
    SpineAppError
        If the image or the model cannot be used.

    Examples
    --------
    >>> noise = np.random.default_rng(0).random((16, 16, 16), np.float32)
    >>> segment(Volume(noise, np.eye(4)), engine="torch", roi="off", step1_only=True).labels.shape
    (16, 16, 16)
    """
    # Torch takes seconds to import; ``label`` does without.
    from totalspineseg_bids.models.registry import resolve  # noqa: PLC0415
    from totalspineseg_bids.segmentation.pipeline import SpineSegmenter  # noqa: PLC0415

    loaded = image if isinstance(image, Volume) else read_image(Path(image), volume=volume)
    options = InferenceOptions.from_flags(
        device=device,
        engine=engine,
        precision=precision,
        threads=threads,
        single_step=single_step,
        step1_only=step1_only,
        quality=quality,
        roi=roi,
    )
    segmenter = SpineSegmenter(resolve(model), options)
    spine = segmenter.segment(
        loaded, localizer=None if localizer is None else read_localizer(localizer, localizer_scheme), progress=progress
    )
    return spine if resolution == "1mm" else to_grid(spine, loaded.geometry)


def label(
    semantic: str | Path | Volume,
    layout: str | Path | Mapping[str, Any] | ClassMap,
    *,
    localizer: str | Path | Volume | None = None,
    localizer_scheme: LabelScheme = anatomy.DEFAULT_SCHEME,
) -> LabelledSpine:
    """Label a semantic map, without any network.

    Parameters
    ----------
    semantic
        Map of a step-1, step-2 or single-step model: file or array with its geometry.
    layout
        Name of a release (``"r20240601-step2"``), a ``dataset.json``, its content, or a mapping of names to integers.
    localizer
        Labelled image that overlaps in scanner space.
    localizer_scheme
        Ids of the localizer's labels.

    Returns
    -------
    LabelledSpine
        On the grid of ``semantic``.

    Raises
    ------
    SpineAppError
        If the map or the layout cannot be used.

    Examples
    --------
    >>> layout = ClassMap.named("r20240601-step1")
    >>> semantic = np.zeros((60, 70, 90), np.uint8)
    >>> semantic[20:40, 14:28] = layout.labels["canal"][0]
    >>> semantic[10:50, 30:62, 23:34] = semantic[10:50, 30:62, 61:72] = layout.labels["disc"][0]
    >>> label(Volume(semantic, np.eye(4)), "r20240601-step1").status.value
    'abstained'
    """
    volume = semantic if isinstance(semantic, Volume) else read_labels(Path(semantic))
    class_map = ClassMap.resolve(layout)
    class_map.check_values(volume.data)
    return label_map(
        np.asarray(volume.data, np.uint8),
        volume.affine,
        class_map,
        localizer=None if localizer is None else read_localizer(localizer, localizer_scheme),
    )


def to_grid(spine: LabelledSpine, target: Geometry) -> LabelledSpine:
    """Bring a labelled spine to another grid; points stay in scanner space, measures stay those of the work.

    Parameters
    ----------
    spine
        Labelled spine on any grid.
    target
        Grid of the result.
    """
    cord, canal = spine.cord_probability, spine.canal_probability
    return replace(
        spine,
        labels=spine.labels_on(target),
        affine=target.affine,
        cord_probability=None if cord is None else restore_probability(cord, spine.affine, target),
        canal_probability=None if canal is None else restore_probability(canal, spine.affine, target),
        padding=None
        if spine.padding is None
        else restore_labels(spine.padding.view(np.uint8), spine.affine, target).view(np.bool_),
        # The margin is defined on the voxels of its own grid only.
        margin=None,
    )
