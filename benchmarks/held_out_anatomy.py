"""Measure a model on images of anatomy that it was not trained on: ``python benchmarks/held_out_anatomy.py --help``.

Writes synthetic images of the given label maps (seeds of the evaluation domain), labels each with the model, and prints
Dice by structure for each map: discs, vertebral bodies, posterior elements, canal with cord, cord, the mean over single
levels, and the share of discs with the right name. Keep the maps out of the training.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.io import read_image, read_labels
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.progress import bar
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
from totalspineseg_bids.synthesis.dataset import write_dataset
from totalspineseg_bids.training.cases import find_cases

COLUMNS = ("discs", "bodies", "posterior elements", "canal", "cord", "levels", "named")


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice coefficient of two masks."""
    return 2 * int(np.count_nonzero(a & b)) / max(int(np.count_nonzero(a)) + int(np.count_nonzero(b)), 1)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure a model on anatomy that it was not trained on.")
    parser.add_argument("label_maps", type=Path, nargs="+", help="label maps (NIfTI) that no training saw")
    parser.add_argument("--model", default="bundled", help="name, folder or zip (default: %(default)s)")
    parser.add_argument("--images", type=positive, default=8, help="of each map (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the images (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("held-out-anatomy"), help="default: %(default)s")
    parser.add_argument("--threads", type=positive)
    return parser.parse_args(argv)


def mask(labels: NDArray[np.uint8], *structures: Structure) -> NDArray[np.bool_]:
    """Return the voxels of structures, of any level."""
    return np.isin(labels, [label.id for label in anatomy.LABELS if label.structure in structures])


def behind_the_bodies(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the voxels behind a surface along the front of the canal, for a whole array.

    Discs and the bodies between them define a line; a voxel is behind it where it lies farther along the direction to
    the canal than the front of the canal.
    """
    points = np.stack(np.nonzero(mask(labels, Structure.CANAL, Structure.CORD)), axis=1) @ affine[:3, :3].T
    centres = [
        np.argwhere(labels == label.id).mean(axis=0) @ affine[:3, :3].T
        for label in anatomy.LABELS
        if label.structure is Structure.DISC and np.count_nonzero(labels == label.id) > 50
    ]
    discs = np.array(sorted(centres, key=lambda centre: centre[2]))
    line = np.concatenate([np.linspace(a, b, 12) for a, b in itertools.pairwise(discs)])
    ends = 25.0 * np.array([discs[0] - discs[1], discs[-1] - discs[-2]]) / 30.0
    line = np.concatenate([discs[0] + np.linspace(1, 0, 12)[:, None] * ends[0], line,
                           discs[-1] + np.linspace(0, 1, 12)[:, None] * ends[1]])  # fmt: skip
    near = cKDTree(points)
    front, axes = [], []
    for place in line:
        index = near.query_ball_point(place, 40.0)
        slab = points[index][np.abs(points[index][:, 2] - place[2]) < 4.0] if index else np.zeros((0, 3))
        if len(slab) == 0:
            front.append(np.nan)
            axes.append(np.zeros(3))
            continue
        axis = slab.mean(axis=0) - place
        axis /= np.linalg.norm(axis)
        axes.append(axis)
        front.append(float(np.quantile((slab - place) @ axis, 0.03)))
    known = np.isfinite(front)
    tree = cKDTree(line[known])
    voxels = np.argwhere(np.ones(labels.shape, bool)) @ affine[:3, :3].T
    _, at = tree.query(voxels)
    along = np.einsum("ij,ij->i", voxels - line[known][at], np.array(axes)[known][at])
    behind: NDArray[np.bool_] = (along > np.array(front)[known][at]).reshape(labels.shape)
    return behind


def score(found: NDArray[np.uint8], truth: NDArray[np.uint8], affine: NDArray[np.float64]) -> dict[str, float]:
    """Score an image by the columns of the table; a structure that is not in the truth is left out."""
    behind = behind_the_bodies(truth, affine)
    bone = [mask(labels, Structure.VERTEBRA) for labels in (found, truth)]
    pairs = {
        "discs": [mask(labels, Structure.DISC) for labels in (found, truth)],
        "bodies": [part & ~behind for part in bone],
        "posterior elements": [part & behind for part in bone],
        "canal": [mask(labels, Structure.CANAL, Structure.CORD) for labels in (found, truth)],
        "cord": [mask(labels, Structure.CORD) for labels in (found, truth)],
    }
    result = {name: dice(*pair) for name, pair in pairs.items() if pair[1].any()}
    levels = [label for label in anatomy.LABELS if label.level and np.count_nonzero(truth == label.id) > 200]
    result["levels"] = statistics.mean(dice(found == label.id, truth == label.id) for label in levels)
    discs = [label.id for label in levels if label.structure is Structure.DISC]
    right = [np.bincount(found[(truth == disc) & pairs["discs"][0]], minlength=256).argmax() == disc for disc in discs]
    result["named"] = statistics.mean(map(float, right))
    return result


def segmented(segmenter: SpineSegmenter, case_image: Path, truth: Volume) -> dict[str, float]:
    """Label an image and score it on the grid of its label map."""
    spine = segmenter.segment(read_image(case_image))
    grid = Geometry(spine.labels.shape, spine.affine)
    expected = restore_labels(truth.data.astype(np.uint8), truth.affine, grid)
    box = ndimage.find_objects((expected > 0).astype(np.uint8))[0]
    box = tuple(slice(max(0, s.start - 15), s.stop + 15) for s in box)
    return score(spine.labels[box], expected[box], spine.affine)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(argv)
    try:
        segmenter = SpineSegmenter(resolve(options.model), threads=options.threads)
        print("map\t" + "\t".join(COLUMNS) + "\timages")
        for path in options.label_maps:
            name = path.name.split(".")[0]
            source, bids = options.output / "maps" / name, options.output / "bids" / name
            source.mkdir(parents=True, exist_ok=True)
            link = source / path.name
            if not link.exists():
                link.symlink_to(path.resolve())
            if not (bids / "participants.tsv").exists():
                write_dataset(bids, options.images, options.seed, label_maps=source, most_images=options.images)
            cases, _ = find_cases([bids])
            rows = []
            with bar(total=len(cases), desc=f"label {name}") as progress:
                for case in cases:
                    rows.append(segmented(segmenter, case.image, read_labels(case.labels.levels[0])))
                    progress.update()
            means = [[row[column] for row in rows if column in row] for column in COLUMNS]
            print(
                name, *(f"{statistics.mean(values):.3f}" if values else "n/a" for values in means), len(rows), sep="\t"
            )
    except SpineAppError as error:
        sys.stderr.write(f"held_out_anatomy: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
