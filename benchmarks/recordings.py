"""Recordings of network outputs, to repeat the labelling without running the networks."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.atomic import atomic_writer
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.class_map import ClassMap, LabelMeaning, Parity
from totalspineseg_bids.segmentation.labelling import LevelPrior, label_map, odd_discs
from totalspineseg_bids.segmentation.networks import NetworkOutputs
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
from totalspineseg_bids.segmentation.result import StageProgress, no_progress
from totalspineseg_bids.segmentation.semantic_map import SemanticMap


def save(path: Path, outputs: NetworkOutputs) -> None:
    """Write network outputs and the odd discs of this checkout's labelling.

    Cord and canal probabilities are left out; those of the level prior are stored in half precision.
    """
    arrays = {"affine": outputs.affine, "final": outputs.final.labels}
    metadata: dict[str, object] = {
        "flags": outputs.flags,
        "final": [outputs.final.class_map.name, dict(outputs.final.class_map.labels)],
    }
    odd = odd_discs_of(outputs)
    if outputs.support is not None and odd is not None:
        arrays["odd"] = odd
        arrays["support"] = outputs.support.labels
        metadata["support"] = [outputs.support.class_map.name, dict(outputs.support.class_map.labels)]
    if outputs.final.margin is not None:
        arrays["margin"] = outputs.final.margin
    if outputs.padding is not None:
        arrays["padding"] = outputs.padding
    if outputs.level_prior is not None:
        arrays["scout"] = outputs.level_prior.probabilities.astype(np.float16)
        arrays["scout_affine"] = outputs.level_prior.affine
        metadata["scout"] = [None if meaning is None else asdict(meaning) for meaning in outputs.level_prior.meanings]
    with atomic_writer(path) as file:
        # The type checker mistakes each array for the keyword argument ``allow_pickle``.
        np.savez_compressed(file, metadata=np.array(json.dumps(metadata)), **arrays)  # type: ignore[arg-type]


def load(path: Path) -> tuple[NetworkOutputs, NDArray[np.uint8] | None]:
    """Read what `save` wrote: the outputs, and the discs that were marked for step 2."""
    with np.load(path) as stored:
        metadata = json.loads(str(stored["metadata"]))

        def semantic(key: str) -> SemanticMap:
            name, labels = metadata[key]
            return SemanticMap(stored[key], ClassMap.from_labels(labels, name))

        level_prior = None
        if "scout" in metadata:
            meanings = tuple(
                None
                if meaning is None
                else LabelMeaning(
                    Structure(meaning["kind"]), meaning["level"], meaning["region"], Parity(meaning["parity"])
                )
                for meaning in metadata["scout"]
            )
            level_prior = LevelPrior(stored["scout"].astype(np.float32), meanings, stored["scout_affine"])
        support = semantic("support") if "support" in metadata else None
        final = replace(semantic("final"), margin=stored.get("margin"))
        outputs = NetworkOutputs(
            stored["affine"], final, support, level_prior, tuple(metadata["flags"]), padding=stored.get("padding")
        )
        return outputs, stored.get("odd")


class Recorder(SpineSegmenter):
    """A segmenter that keeps the network outputs of the last image."""

    last: NetworkOutputs | None = None

    def run_networks(
        self, volume: Volume, localizer: Volume | None = None, report: StageProgress = no_progress
    ) -> NetworkOutputs:
        """Run the networks and keep the result."""
        self.last = super().run_networks(volume, localizer, report)
        return self.last


def odd_discs_of(outputs: NetworkOutputs) -> NDArray[np.uint8] | None:
    """Return the discs that the labelling marks for step 2, ``None`` where there was no step before the last."""
    first = outputs.support
    if first is None:
        return None
    return odd_discs(label_map(first.labels, outputs.affine, first.class_map, level_prior=outputs.level_prior))
