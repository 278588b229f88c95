"""The method for one image: volume in, labelled spine out, all in memory."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.imaging.field_of_view import find_padding
from totalspineseg_bids.imaging.grid import to_working_grid
from totalspineseg_bids.imaging.intensity import clip_outliers
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.importing import modules_stay
from totalspineseg_bids.inference.options import InferenceMode, InferenceOptions
from totalspineseg_bids.segmentation.labelling import label_map, label_session, odd_discs
from totalspineseg_bids.segmentation.networks import (
    COARSE_MODEL,
    CROP_MARGIN_MM,
    WORKING_SPACING_MM,
    NetworkOutputs,
    SegmentationNetworks,
)
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus, StageProgress, no_progress
from totalspineseg_bids.segmentation.spine_roi import spine_box

if TYPE_CHECKING:
    from totalspineseg_bids.models.registry import ModelSet
    from totalspineseg_bids.models.roles import Role

#: Images of a session whose network outputs are kept.
_CACHED_IMAGES = 8
NOTHING_FOUND = "no spine in view: step 1 found neither a spinal canal nor a disc"


def run_networks(
    volume: Volume,
    networks: SegmentationNetworks,
    localizer: Volume | None = None,
    report: StageProgress = no_progress,
) -> NetworkOutputs:
    """Run the networks on one image, a line a stage; `label_outputs` follows.

    Parameters
    ----------
    volume : Volume
        3D image of any orientation and voxel size; it is not changed.
    networks : SegmentationNetworks
        Loaded models.
    localizer : Volume, optional
        Labelled image of the same session (canonical ids), which helps to label the discs of step 1.
    report : callable
        Receives the name of each stage and its finished fraction.

    Returns
    -------
    NetworkOutputs
        Maps on the working grid (RAS, 1 mm).

    Raises
    ------
    ModelError
        If a model cannot be loaded or does not fit its step.
    """
    report("resample", 0.0)
    # Files are clipped when they are read; this is for images in memory.
    values, _ = clip_outliers(np.asarray(volume.data, np.float32))
    image = to_working_grid(Volume(values, volume.affine), WORKING_SPACING_MM)
    padding = find_padding(image.data)
    report("resample", 1.0)
    if networks.mode is InferenceMode.SINGLE_STEP:
        _, region = networks.locate(image, report)
        coarse = (COARSE_MODEL,) if networks.models.level_prior is not None else ()
        return NetworkOutputs(image.affine, networks.single_step(image, region, report), padding=padding, flags=coarse)

    prior, region = networks.locate(image, report)
    first = networks.step1(image, region, report)
    box = spine_box(first.labels, CROP_MARGIN_MM, WORKING_SPACING_MM)
    if box is None:
        return NetworkOutputs(image.affine, first.measured())
    if networks.mode is InferenceMode.STEP1:
        return NetworkOutputs(image.affine, first.measured(), level_prior=prior, padding=padding)

    report("discs", 0.0)
    discs = label_map(
        first.labels,
        image.affine,
        first.class_map,
        localizer=localizer,
        level_prior=prior,
        padding=padding,
        discs_only=True,
    )
    odd = odd_discs(discs)
    report("discs", 1.0)

    cropped = first.crop(box)
    intensities = np.ascontiguousarray(image.data[box])
    channels = np.stack([intensities, odd[box].astype(np.float32)])
    second = networks.step2(channels, image.spacing, cropped.labels > 0, report)
    if not second.labels.any():
        return NetworkOutputs(
            image.affine, first.measured(), level_prior=prior, padding=padding, flags=("step2-empty",)
        )
    del discs, odd, channels  # the refinement needs the most memory
    refined = networks.refine(intensities, image.spacing, cropped, second, report)
    whole = refined.paste(box, image.geometry.shape)
    return NetworkOutputs(image.affine, whole, networks.as_support(first), prior, padding=padding)


def label_outputs(outputs: NetworkOutputs, localizer: Volume | None = None) -> LabelledSpine:
    """Label what the networks found in one image: components, their levels, and the voxels of each.

    Parameters
    ----------
    outputs : NetworkOutputs
        From `run_networks`.
    localizer : Volume, optional
        Labelled image of the same session (canonical ids).

    Returns
    -------
    LabelledSpine
        On the working grid; `segmentation.api.to_grid` restores the grid of the image.
    """
    (spine,) = label_session([outputs.as_session_image(localizer)])
    return add_network_results(spine, outputs)


def add_network_results(spine: LabelledSpine, outputs: NetworkOutputs) -> LabelledSpine:
    """Add probabilities, margin and flags of the networks to a labelled spine."""
    if spine.status is SpineStatus.NO_SPINE:
        return replace(spine, reason=NOTHING_FOUND, precisions=outputs.precisions)
    return replace(
        spine,
        precisions=outputs.precisions,
        flags=(*spine.flags, *outputs.flags),
        cord_probability=outputs.final.probabilities.get("cord"),
        canal_probability=outputs.final.probabilities.get("canal"),
        margin=outputs.final.margin,
        padding=outputs.padding,
    )


class SpineSegmenter:
    """Segment and label spines with one set of models; build it once, use it for many images.

    Parameters
    ----------
    models : ModelSet
        Models of the mode, from `models.registry.resolve`.
    options : InferenceOptions, optional
        Device, engine, precision, threads and mode.
    **flags
        The arguments of `InferenceOptions.from_flags`, instead of ``options``.

    Attributes
    ----------
    networks : SegmentationNetworks
        The models, each loaded at its first use.

    Raises
    ------
    UsageError
        If the options are not valid.
    ModelError
        If the set lacks a model that the mode needs.

    Examples
    --------
    >>> from totalspineseg_bids.models.registry import resolve
    >>> segmenter = SpineSegmenter(resolve("bundled"), threads=1, step1_only=True)
    >>> [role.name for role in segmenter.roles]
    ['STEP1', 'LEVEL_PRIOR']
    """

    def __init__(self, models: ModelSet, options: InferenceOptions | None = None, **flags: Any) -> None:  # noqa: ANN401
        self.networks = SegmentationNetworks(models, options or InferenceOptions.from_flags(**flags))
        self._outputs: OrderedDict[str, NetworkOutputs] = OrderedDict()
        self._session: tuple[tuple[str, ...], list[LabelledSpine]] = ((), [])

    @property
    def roles(self) -> tuple[Role, ...]:
        """Models in use."""
        return self.networks.roles

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the checkpoint of each model in use, by role."""
        return self.networks.digests

    def preload(self) -> None:
        """Start to import what runs the networks, and to compile them, while the first image is read."""
        # Loading the first network raises the error that is suppressed here.
        with contextlib.suppress(ModelError):
            self.networks.compile_ahead()
        threading.Thread(target=_import_predictor).start()

    def run_networks(
        self, volume: Volume, localizer: Volume | None = None, report: StageProgress = no_progress
    ) -> NetworkOutputs:
        """Run the networks on one image without labelling it; see :func:`run_networks`."""
        outputs = run_networks(volume, self.networks, localizer, report)
        return replace(outputs, precisions=self.networks.precisions)

    def segment(
        self,
        volume: Volume,
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),
        progress: StageProgress | None = None,
    ) -> LabelledSpine:
        """Segment and label one image.

        Parameters
        ----------
        volume : Volume
            3D image of any orientation and voxel size; it is not changed.
        localizer : Volume, optional
            Labelled image of the same session (canonical ids) that overlaps in scanner space.
        companions : sequence of Volume
            Other images of the same session, in scanner space; the levels of all are decided together. The outputs of
            the last eight images are kept, so that the networks run once on each of a session.
        progress : callable, optional
            Receives the name of each stage and its finished fraction.

        Returns
        -------
        LabelledSpine
            On the working grid (RAS, 1 mm), with probabilities of cord and canal where the models give them. An image
            without a spine has status ``NO_SPINE`` and empty labels.

        Raises
        ------
        ModelError
            If a model cannot be loaded or does not fit its step.
        """
        report = progress or no_progress
        if companions:
            return self._segment_in_session(volume, localizer, companions, report)
        outputs = self.run_networks(volume, localizer, report)
        report("label", 0.0)
        spine = label_outputs(outputs, localizer)
        report("label", 1.0)
        return spine

    def _segment_in_session(
        self, volume: Volume, localizer: Volume | None, companions: Sequence[Volume], report: StageProgress
    ) -> LabelledSpine:
        """Label an image together with others; the result is kept for the turn of each companion."""
        volumes = [volume, *companions]
        keys = [_fingerprint(v, localizer) for v in volumes]
        # Sorted, so that the result does not depend on which image is asked for.
        order = sorted(range(len(keys)), key=lambda n: keys[n])
        whole = tuple(keys[n] for n in order)
        if whole != self._session[0]:
            images = [
                replace(
                    self._cached_outputs(keys[n], volumes[n], localizer, report).as_session_image(localizer),
                    acquisition=volumes[n].acquisition,
                )
                for n in order
            ]
            report("label", 0.0)
            self._session = whole, label_session(images)
        outputs = self._cached_outputs(keys[0], volume, localizer, report)
        report("label", 1.0)
        return add_network_results(self._session[1][whole.index(keys[0])], outputs)

    def _cached_outputs(
        self, key: str, volume: Volume, localizer: Volume | None, report: StageProgress
    ) -> NetworkOutputs:
        if key not in self._outputs:
            self._outputs[key] = self.run_networks(volume, localizer, report)
            while len(self._outputs) > _CACHED_IMAGES:
                self._outputs.popitem(last=False)
        self._outputs.move_to_end(key)
        return self._outputs[key]


def _import_predictor() -> None:
    # Loading the first network repeats the import and raises its error.
    with contextlib.suppress(Exception), modules_stay():
        importlib.import_module("totalspineseg_bids.inference.predictor")


def _fingerprint(volume: Volume, localizer: Volume | None) -> str:
    """Return the digest of an image and its localizer."""
    whole = hashlib.sha256()
    for part in (volume, localizer):
        if part is not None:
            whole.update(repr((part.data.shape, str(part.data.dtype), part.acquisition)).encode())
            whole.update(np.ascontiguousarray(part.affine).tobytes())
            whole.update(np.ascontiguousarray(part.data).tobytes())
    return whole.hexdigest()
