"""The main job for one image: volume in, labelled spine out, all in memory."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.labelling import label_session
from totalspineseg_bids.segmentation.networks import NetworkOutputs, Progress, SegmentationNetworks
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

if TYPE_CHECKING:
    from totalspineseg_bids.inference.engines import EngineName, Precision
    from totalspineseg_bids.models.registry import ModelSet
    from totalspineseg_bids.models.roles import Role

logger = logging.getLogger(__name__)

#: Images whose segmentation is kept for the sake of their companions.
_REMEMBERED = 8
NOTHING_FOUND = "no spine in view: step 1 found neither a spinal canal nor a disc"


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
        self._networks = SegmentationNetworks(
            models,
            device=device,
            engine=engine,
            threads=threads,
            precision=precision,
            single_step=single_step,
            step1_only=step1_only,
        )
        self._outputs: OrderedDict[str, NetworkOutputs] = OrderedDict()
        self._session: tuple[tuple[str, ...], list[LabelledSpine]] = ((), [])

    @property
    def roles(self) -> tuple[Role, ...]:
        """Models in use: those of the steps, and the level scout where the set has one."""
        return self._networks.roles

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of the checkpoint of each model in use, by role."""
        return self._networks.digests

    def run_networks(
        self, volume: Volume, localizer: Volume | None = None, progress: Progress | None = None
    ) -> NetworkOutputs:
        """Run the networks on one image and decide nothing; see :meth:`SegmentationNetworks.run`."""
        return self._networks.run(volume, localizer, progress or _silent)

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
        tell = progress or _silent
        if not companions:
            own = self.run_networks(volume, localizer, tell)
            tell("label", 0.0)
            (spine,) = label_session([own.as_session_image(localizer)])
        else:
            own, spine = self._in_session(volume, localizer, companions, tell)
        tell("label", 1.0)
        return finished(own, spine)

    def _in_session(
        self, volume: Volume, localizer: Volume | None, companions: Sequence[Volume], tell: Progress
    ) -> tuple[NetworkOutputs, LabelledSpine]:
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

    def _remembered(self, key: str, volume: Volume, localizer: Volume | None, tell: Progress) -> NetworkOutputs:
        if key not in self._outputs:
            self._outputs[key] = self.run_networks(volume, localizer, tell)
            while len(self._outputs) > _REMEMBERED:
                self._outputs.popitem(last=False)
        self._outputs.move_to_end(key)
        return self._outputs[key]


def _silent(_stage: str, _part: float) -> None:
    """Tell nobody."""


def _fingerprint(volume: Volume, localizer: Volume | None) -> str:
    """Return what tells an image, with the localizer that helps it, from others."""
    whole = hashlib.sha256()
    for part in (volume, localizer):
        if part is not None:
            whole.update(repr((part.data.shape, str(part.data.dtype))).encode())
            whole.update(np.ascontiguousarray(part.affine).tobytes())
            whole.update(np.ascontiguousarray(part.data).tobytes())
    return whole.hexdigest()


def finished(own: NetworkOutputs, spine: LabelledSpine) -> LabelledSpine:
    """Add to labels what the networks that saw the image say besides."""
    if spine.status is SpineStatus.NO_SPINE:
        return replace(spine, reason=NOTHING_FOUND)
    return replace(
        spine,
        flags=(*spine.flags, *own.flags),
        cord_probability=own.final.probabilities.get("cord"),
        canal_probability=own.final.probabilities.get("canal"),
        margin=own.final.margin,
    )
