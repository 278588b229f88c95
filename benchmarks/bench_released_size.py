"""Compare two networks of the size of the public releases, on a whole spine, with nnUNetPredictor on the whole image.

    python benchmarks/bench_released_size.py FOLDER
    python benchmarks/bench_released_size.py FOLDER --slices 240 --steps nnunet-101 bf16-101

nnU-Net runs step 1 and step 2 on the whole image. Our side runs as for a public model: the bundled level prior finds
the region for step 1 (its time counts), and step 2 runs in the box of the spine. Both use an overlap of half a patch
and no mirroring. Time is that of residual-encoder networks of the size of the releases, with random weights, because
the public ones cannot be loaded here. Box and odd discs of step 2 therefore come from the labels of the image. Labels
of random weights mean nothing, so that Dice is that of the bundled networks: our labels against nnU-Net's with the same
weights, in the box that our patches cover.

``--slices`` measures a part of the spine; the last lines then calculate the whole one from the time of a patch and the
number of patches. Each step is a process of its own. ``FOLDER`` keeps what is done, so that a later call goes on with
the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.imaging.grid import Box, foreground_box, restore_labels, to_working_grid, working_geometry
from totalspineseg_bids.imaging.io import load_image
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions, Precision
from totalspineseg_bids.inference.patch_grid import WORTHWHILE, PatchGrid, RegionOfInterest
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.models.roles import Role
from totalspineseg_bids.segmentation.networks import (
    CROP_MARGIN_MM,
    REGION_MARGIN_MM,
    WORKING_SPACING_MM,
    SegmentationNetworks,
)
from totalspineseg_bids.segmentation.result import no_progress
from totalspineseg_bids.synthesis.dataset import write_dataset
from totalspineseg_bids.training.cases import find_cases
from totalspineseg_bids.training.class_maps import DatasetId, dataset_json
from totalspineseg_bids.training.semantic_targets import odd_disc_mask

ENGINES = ("nnunet", "fp32", "bf16")
DATASETS: tuple[DatasetId, DatasetId] = (101, 102)
STEPS = ("inputs", *(f"{work}-{dataset}" for work in (*ENGINES, "dice") for dataset in DATASETS))
#: Features and residual blocks by stage, and patch (z, y, x), of a released network.
FEATURES, BLOCKS, PATCH = (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), (96, 160, 160)
#: Labels with fewer voxels are not compared.
_LEAST_VOXELS = 1000
_SPACING = (WORKING_SPACING_MM, WORKING_SPACING_MM, WORKING_SPACING_MM)
Labels = NDArray[np.uint8]


class Task(NamedTuple):
    """Input of a step."""

    channels: NDArray[np.float32]
    """Shape (C, X, Y, Z), 1 mm."""
    spine: NDArray[np.bool_]
    """Labels of the image."""
    locate: Callable[[], NDArray[np.bool_] | None]
    """Finds the region of the step; None for the whole image."""

    @property
    def is_step2(self) -> bool:
        """True for step 2, which runs around the spine that step 1 found."""
        return len(self.channels) > 1

    @property
    def margin(self) -> int:
        """Margin around the region, voxels."""
        return round(CROP_MARGIN_MM if self.is_step2 else REGION_MARGIN_MM)


class Work:
    """Inputs and results in a folder.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._folder: Path = options.folder

    def run(self, step: str) -> dict[str, Any]:
        """Run a step in this process and return its figures."""
        if step == "inputs":
            return self._make_inputs()
        work, number = step.split("-")
        dataset: DatasetId = 101 if number == "101" else 102
        task = self._task(dataset)
        if work == "nnunet":
            return _timed(_nnunet(self._model(dataset), task))[1]
        if work != "dice":
            return _timed(_ours(self._model(dataset), task, self._with_precision(work)))[1]
        folder = resolve("bundled").require(Role.STEP1 if dataset == 101 else Role.STEP2)
        expected = _nnunet(folder, task)()
        found = {}
        for precision in ENGINES[1:]:
            labels, box = _ours(folder, task, self._with_precision(precision))()
            found[precision] = _dice(expected[box], labels[box])
        return found

    def _with_precision(self, precision: str) -> InferenceOptions:
        reduced: Precision = "bf16" if precision == "bf16" else "fp32"
        return InferenceOptions(device="cpu", threads=self._options.threads, precision=reduced)

    def _make_inputs(self) -> dict[str, Any]:
        """Draw a whole spine and write the two networks."""
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from tests.inference.untrained import write_untrained_model  # noqa: PLC0415

        for dataset in DATASETS:
            folder = self._model(dataset).parent
            shutil.rmtree(folder, ignore_errors=True)
            size: dict[str, Any] = {"features": FEATURES, "blocks": BLOCKS, "patch_size": PATCH}
            write_untrained_model(folder, dataset_json(dataset, 1), architecture="residual", **size)
        write_dataset(self._folder / "bids", 1, 1, fields_of_view=["whole"], contrasts=["T2w"], most_images=1)
        case = find_cases([self._folder / "bids"])[0][0]
        image, labels = (load_image(path).volume for path in (case.image, case.labels.levels[0]))
        work = to_working_grid(image, WORKING_SPACING_MM)
        values = np.asarray(labels.data).astype(np.uint8)
        truth = restore_labels(values, labels.affine, working_geometry(labels.geometry))
        figures = {}
        for name, kept in (("whole", slice(None)), ("measured", slice(None, self._options.slices))):
            np.savez(self._folder / "image.npz", image=work.data[..., kept], truth=truth[..., kept], affine=work.affine)
            figures[name] = {"shape": truth[..., kept].shape, "patches": [self._patches(one) for one in DATASETS]}
        return figures

    def _patches(self, dataset: DatasetId) -> tuple[int, int]:
        """Return the number of patches of nnU-Net and ours."""
        task = self._task(dataset)
        region, shape, patch = task.locate(), task.spine.shape[::-1], PATCH
        whole = PatchGrid.over(shape, patch).count
        box = None if region is None else foreground_box(region, task.margin)
        if region is None or box is None:
            return whole, whole
        inside = region[box].transpose(2, 1, 0)
        ours = PatchGrid.over(inside.shape, patch, roi=RegionOfInterest(inside, task.margin)).count
        return whole, ours if task.is_step2 or ours <= WORTHWHILE * whole else whole

    def _model(self, dataset: DatasetId) -> Path:
        return self._folder / f"model-{dataset}" / "nnUNetTrainer__nnUNetPlans__3d_fullres"

    def _task(self, dataset: DatasetId) -> Task:
        with np.load(self._folder / "image.npz") as stored:
            image, truth, affine = (stored[name] for name in ("image", "truth", "affine"))
        if dataset == 102:
            return Task(np.stack([image, odd_disc_mask(truth)]).astype(np.float32), truth > 0, lambda: truth > 0)
        options = InferenceOptions(device="cpu", threads=self._options.threads)
        networks = SegmentationNetworks(resolve("bundled", need=(Role.LEVEL_PRIOR,)), options)
        volume = Volume(image.astype(np.float32), affine)
        return Task(volume.data[None], truth > 0, lambda: networks.locate(volume, no_progress)[1])


def _nnunet(folder: Path, task: Task) -> Callable[[], Labels]:
    """Return a function that predicts with nnU-Net on the whole image."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415

    plans, dataset = (json.loads((folder / name).read_text()) for name in ("plans.json", "dataset.json"))
    (network,) = load_model(folder).networks()
    manager = PlansManager(plans)
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    # Unlike a start from the folder, this needs no trainer class.
    predictor.manual_initialization(
        network, manager, manager.get_configuration("3d_fullres"), [network.state_dict()], dataset, "any", None
    )
    data, properties = task.channels.transpose(0, 3, 2, 1), {"spacing": list(_SPACING)}
    return lambda: predictor.predict_single_npy_array(data, properties, None, None).transpose(2, 1, 0)


def _ours(folder: Path, task: Task, options: InferenceOptions) -> Callable[[], tuple[Labels, Box | None]]:
    """Return a function that predicts in the region of the spine and gives the box around it.

    The size of patches is that of training, as for a public network.
    """
    predictor = Predictor(load_model(folder), options, growth=1.0)
    # Networks are converted at their first image.
    assert predictor.engine
    task.locate()

    def run() -> tuple[Labels, Box | None]:
        region = task.locate()
        if not (region is None or task.is_step2 or predictor.is_worthwhile(region, task.margin, _SPACING)):
            region = None
        found = predictor.predict(task.channels, _SPACING, roi=region, margin=task.margin)
        return found.labels, foreground_box(task.spine if region is None else region, task.margin)

    return run


def _timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    start, used = time.perf_counter(), time.process_time()
    found = work()
    return found, {"s": time.perf_counter() - start, "CPU s": time.process_time() - used}


def _dice(one: Labels, other: Labels) -> list[float]:
    """Return the Dice of each label of some size."""
    labels = [v for v in np.unique(one) if v and (one == v).sum() >= _LEAST_VOXELS]
    return [float(2 * ((one == v) & (other == v)).sum() / ((one == v).sum() + (other == v).sum())) for v in labels]


def print_table(results: dict[str, Any]) -> None:
    """Print the seconds of both networks, their ratio to nnU-Net and the Dice inside the box."""
    measured, whole = (results["inputs"][name] for name in ("measured", "whole"))
    print(f"image {measured['shape']}, patches of step 1 and 2 (nnU-Net, ours) {measured['patches']}")
    print(f"{'engine':8} {'step 1, s':>9} {'step 2, s':>9} {'faster':>7} {'CPU s':>7} {'less':>6}    Dice   least")
    base: dict[str, float] = {}
    full: dict[str, float] = {}
    for engine in ENGINES:
        both = [results[f"{engine}-{dataset}"] for dataset in DATASETS if f"{engine}-{dataset}" in results]
        if len(both) < len(DATASETS) or (engine != "nnunet" and not base):
            continue
        sums = {key: sum(one[key] for one in both) for key in ("s", "CPU s")}
        base = base or sums
        side = int(engine != "nnunet")
        counts = zip(both, whole["patches"], measured["patches"], strict=True)
        full[engine] = sum(one["CPU s"] * more[side] / few[side] for one, more, few in counts)
        dice = [value for dataset in DATASETS for value in results.get(f"dice-{dataset}", {}).get(engine, ())]
        print(
            f"{engine:8} {both[0]['s']:9.1f} {both[1]['s']:9.1f} {base['s'] / sums['s']:6.1f}x {sums['CPU s']:7.1f} "
            f"{base['CPU s'] / sums['CPU s']:5.1f}x {f'{np.mean(dice):7.4f} {min(dice):7.4f}' if dice else ''}"
        )
    if full and whole != measured:
        print(f"calculated for {whole['shape']}, patches {whole['patches']}:")
        print(", ".join(f"{engine} {full['nnunet'] / value:.1f}x" for engine, value in full.items()) + " less CPU time")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Compare networks of released size with nnUNetPredictor.")
    parser.add_argument("folder", type=Path, help="for inputs and results; kept")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="default: all")
    parser.add_argument("--slices", type=positive, help="use this many slices of 1 mm only")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="default: %(default)s")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.run:
        torch.set_num_threads(options.threads)
        print(json.dumps(Work(options).run(*options.steps)))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for step in (step for step in STEPS if step in options.steps and step not in results):
        command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv), "--run", "--steps", step]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results[step] = json.loads(done.stdout.splitlines()[-1])
        file.write_text(json.dumps(results, indent=1))
    print_table(results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
