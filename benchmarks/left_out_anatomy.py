"""Measure the loss of accuracy on anatomy left out of training: ``python benchmarks/left_out_anatomy.py --help``.

Trains two small networks of Dataset101 for the same time from scratch, one with all label maps and one without those
of ``--left-out``, and measures both on the same unseen images made from the left-out map alone and from parametric
spines. It compares what step 1 finds (cord, canal, discs and vertebrae of any level), because names need longer
trainings. Trainings continue where an earlier call stopped. Prints a table.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.errors import ModelError, SpineAppError, UsageError
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.io import read_image, read_labels
from totalspineseg_bids.imaging.masks import apply_table
from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.progress import bar
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
from totalspineseg_bids.synthesis.dataset import write_dataset
from totalspineseg_bids.training.cases import find_cases
from totalspineseg_bids.training.synthetic.bundle import publish
from totalspineseg_bids.training.synthetic.options import SyntheticTraining
from totalspineseg_bids.training.synthetic.synthetic_training import train_bundled

#: Parametric spines in the pool of each training.
SPINES = 30
#: Of the networks, a quarter of the bundled ones' work, so that a CPU gets somewhere in half an hour.
FEATURES = (8, 16, 32, 64, 96, 96)
GROUPS = {
    "cord": (Structure.CORD,),
    "canal with cord": (Structure.CANAL, Structure.CORD),
    "discs": (Structure.DISC,),
    "vertebrae": (Structure.VERTEBRA,),
}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what a training loses on anatomy it did not see.")
    parser.add_argument("label_maps", type=Path, help="folder of label maps of real anatomy")
    parser.add_argument("--left-out", nargs="+", required=True, metavar="NAME", help="maps to leave out, a glob each")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training (default: %(default)s)")
    parser.add_argument("--images", type=positive, default=12, help="of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the images (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("left-out-anatomy"), help="default: %(default)s")
    parser.add_argument("--threads", type=positive)
    return parser.parse_args(argv)


def split_maps(options: argparse.Namespace) -> dict[str, Path]:
    """Link the maps into three folders: all, those that stay, and those left out."""
    maps = {file for file in options.label_maps.iterdir() if file.name.endswith(".nii.gz")}
    out = {file for pattern in options.left_out for file in options.label_maps.glob(pattern)} & maps
    if not out or out == maps:
        msg = f"{' '.join(options.left_out)} matches {len(out)} of {len(maps)} maps in {options.label_maps}; name some"
        raise UsageError(msg)
    folders = {}
    for name, files in (("with", maps), ("without", maps - out), ("left-out", out)):
        folders[name] = options.output / "maps" / name
        folders[name].mkdir(parents=True, exist_ok=True)
        for link in folders[name].iterdir():
            link.unlink()
        for file in files:
            (folders[name] / file.name).symlink_to(file.resolve())
    return folders


def train(options: argparse.Namespace, name: str, maps: Path) -> Path:
    """Train one network and return its folder of stripped models."""
    work, models = options.output / "training" / name, Path(options.output) / "models" / name
    training = SyntheticTraining(
        work, 101, options.minutes, label_maps=maps, spines=SPINES, threads=options.threads, features=FEATURES
    )
    # nnU-Net takes its folders from the environment when it is imported, so each training is a process of its own.
    process = multiprocessing.get_context("spawn").Process(target=train_bundled, args=(training,))
    process.start()
    process.join()
    if process.exitcode != 0:
        msg = f"the training {name} stopped with exit code {process.exitcode}; its log is in {work / 'results'}"
        raise ModelError(msg)
    publish(work, models)
    return models


def masks(labels: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """Return the mask of each structure group of a canonical label map, for any level."""
    result = {}
    for group, structures in GROUPS.items():
        table = np.zeros(256, np.uint8)
        table[[label.id for label in anatomy.LABELS if label.structure in structures]] = 1
        result[group] = apply_table(labels, table) > 0
    return result


def measure(options: argparse.Namespace, models: Path, bids: Path) -> dict[str, list[float]]:
    """Return the Dice of each group on each image; an image without this group in view is left out."""
    segmenter = SpineSegmenter(resolve(str(models), need=("step1",)), threads=options.threads, step1_only=True)
    dice: dict[str, list[float]] = {group: [] for group in GROUPS}
    cases, _ = find_cases([bids])
    with bar(total=len(cases), desc=f"segment with {models.name}") as progress:
        for case in cases:
            spine = segmenter.segment(read_image(case.image))
            truth = read_labels(case.labels.levels[0])
            grid = Geometry(spine.labels.shape, spine.affine)
            expected = masks(restore_labels(truth.data.astype(np.uint8), truth.affine, grid))
            for group, found in masks(spine.labels).items():
                size = np.count_nonzero(found) + np.count_nonzero(expected[group])
                if expected[group].any():
                    dice[group].append(2 * np.count_nonzero(found & expected[group]) / size)
            progress.update()
    return dice


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(argv)
    try:
        maps = split_maps(options)
        datasets = {}
        for name, source in (("left-out", maps["left-out"]), ("parametric", None)):
            datasets[name] = options.output / "bids" / name
            write_dataset(datasets[name], options.images, options.seed, label_maps=source, most_images=options.images)
        print(f"left out: {', '.join(sorted(file.name for file in maps['left-out'].iterdir()))}")
        print(f"training\timages of\t{chr(9).join(GROUPS)}\timages")
        for name in ("with", "without"):
            models = train(options, name, maps[name])
            for kind, bids in datasets.items():
                dice = measure(options, models, bids)
                row = "\t".join(f"{statistics.mean(values):.3f}" if values else "n/a" for values in dice.values())
                print(f"{name}\t{kind}\t{row}\t{max(map(len, dice.values()))}", flush=True)
    except SpineAppError as error:
        sys.stderr.write(f"left_out_anatomy: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
