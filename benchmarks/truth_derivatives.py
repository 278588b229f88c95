"""Publish the truth of a synthetic dataset as if a perfect model had found it.

``python benchmarks/truth_derivatives.py BIDS OUT`` reads a dataset of ``totalspineseg-tools synthesize`` and its
``derivatives/labels``, and writes derivatives and subject pages through the program's own measurement, publishing and
reports. For looking at pages and for benchmarks of the group level, which no model's mistakes should blur.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from totalspineseg_bids.anatomy import BY_ID, CANAL_ID, CORD_ID
from totalspineseg_bids.app import image as images
from totalspineseg_bids.app.crash import describe_failure, write_crash
from totalspineseg_bids.app.reports import write_participant_report
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.bids.description import write_root_files
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.bids.query import Selection, find_images
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.imaging.grid import to_canonical
from totalspineseg_bids.imaging.io import read_labels
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.result import Component, LabelledSpine, SpineStatus, StageProgress


@dataclass(frozen=True, slots=True)
class TruthSegmenter:
    """Segmenter that reads its result from a file."""

    path: Path

    def segment(
        self,
        volume: Volume,
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),
        progress: StageProgress | None = None,
    ) -> LabelledSpine:
        """Return the labels of the file, on its own grid in RAS orientation."""
        del volume, localizer, companions, progress
        truth = to_canonical(read_labels(self.path))
        labels = truth.data.astype(np.uint8)
        components = components_of(labels, truth.affine)
        if not components:
            return LabelledSpine(labels, truth.affine, (), SpineStatus.NO_SPINE, "neither canal nor disc in view")
        canal = np.isin(labels, (CANAL_ID, CORD_ID)).astype(np.float32)
        return LabelledSpine(labels, truth.affine, components, SpineStatus.LABELLED, canal_probability=canal)


def components_of(labels: np.ndarray, affine: np.ndarray) -> tuple[Component, ...]:
    """List the components of a label map of shape (X, Y, Z), from cranial to caudal."""
    index = np.argwhere(labels)
    value = labels[tuple(index.T)]
    counts = np.bincount(value, minlength=256)
    means = np.stack([np.bincount(value, index[:, k], minlength=256) for k in range(3)], axis=1)
    at_edge = ((index == 0) | (index == np.array(labels.shape) - 1)).any(axis=1)
    edges = np.bincount(value[at_edge], minlength=256)
    voxel = abs(float(np.linalg.det(affine[:3, :3])))
    found = []
    for number in np.flatnonzero(counts):
        known = BY_ID[int(number)]
        x, y, z = (float(c) for c in affine[:3, :3] @ (means[number] / counts[number]) + affine[:3, 3])
        level = known.level or None
        # Nothing is certain; the digits only show that pages can show them.
        sure = 1.0 if level is None else 0.99 - 0.002 * (int(number) % 17)
        found.append(
            Component(
                int(number),
                known.structure,
                level,
                sure,
                None,
                None,
                bool(edges[number] > 3),
                float(counts[number] * voxel),
                (x, y, z),
            )
        )
    return tuple(sorted(found, key=lambda c: (c.label_id in (CORD_ID, CANAL_ID), -c.centroid_mm[2])))


def truth_of(bids: Path, source: SourceImage) -> Path:
    """Return the path of an image's truth."""
    name = f"{source.stem}_seg-spine_desc-{source.suffix}_dseg.nii.gz"
    return bids / "derivatives" / "labels" / source.folder / name


def publish_truth(bids: Path, out: Path) -> int:
    """Publish the truth of every image of a dataset.

    Returns
    -------
    int
        How many images are done.
    """
    config = RunConfig(bids, out, "participant", skip_bids_validation=True, progress=False)
    out.mkdir(parents=True, exist_ok=True)
    write_root_files(bids, out, config.label_scheme)
    done = 0
    sources = find_images(bids, Selection((), (), (), config.suffix, None))
    for participant, group in itertools.groupby(sources, key=lambda source: source.participant):
        for source in group:
            path = truth_of(bids, source)
            digest = hashlib.sha256(path.read_bytes() if path.is_file() else b"").hexdigest()
            loaded = LoadedSegmenter(TruthSegmenter(path), "truth", digest, bundled=False)
            try:
                job = images.plan_image(source, config, loaded)
                if not images.is_done(job, config):
                    images.process_image(job, config, loaded)
                done += 1
            except (SpineAppError, OSError) as error:
                write_crash(out, describe_failure(source, error), error)
        write_participant_report(out, participant)
    return done


def main(argv: list[str] | None = None) -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description="Publish the truth of a synthetic dataset.")
    parser.add_argument("bids", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(argv)
    print(f"{publish_truth(options.bids, options.out)} images: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
