"""Measure accuracy against time over the passes and the overlap of the networks.

``python benchmarks/bench_frontier.py BIDS`` segments the images of a labelled dataset, such as the one that
``evaluate_synthetic.py`` writes, with each setting of the list below. What the settings have in common runs once for
each image. Prints the mean Dice over levels, the images in which every name is right, the seconds of the networks
(wall clock and processor), and marks the settings that no other one beats in both accuracy and time. ``WINDOW_LIMITS``
in ``segmentation/quality.py`` holds the choice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from totalspineseg_bids.cli.tools_common import bar, positive
from totalspineseg_bids.evaluation.evaluate import Evaluation, evaluate
from totalspineseg_bids.evaluation.metrics import ImageResult
from totalspineseg_bids.imaging.grid import to_working_grid
from totalspineseg_bids.imaging.io import load_image, write_labels
from totalspineseg_bids.inference import predictor
from totalspineseg_bids.inference.engines import Engine
from totalspineseg_bids.inference.model import NnUNetModel
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.models.roles import Role
from totalspineseg_bids.segmentation.labelling import label_map, odd_discs
from totalspineseg_bids.segmentation.networks import (
    CROP_MARGIN_MM,
    WORKING_SPACING_MM,
    NetworkOutputs,
    SegmentationNetworks,
)
from totalspineseg_bids.segmentation.pipeline import label_outputs
from totalspineseg_bids.segmentation.quality import WindowLimits
from totalspineseg_bids.segmentation.result import no_progress
from totalspineseg_bids.segmentation.spine_roi import spine_box
from totalspineseg_bids.training.cases import find_cases


class Setting(NamedTuple):
    """Region of interest, and the limits of the windows of the networks."""

    roi: bool
    step1: WindowLimits
    step2: WindowLimits
    refine: WindowLimits


_ALL = WindowLimits()
_LARGE = WindowLimits(growth=2.25)
_ONE, _TWO = (WindowLimits(passes=passes) for passes in (1, 2))
_LARGE_ONE, _LARGE_TWO = (WindowLimits(passes, 0.85, 2.25) for passes in (1, 2))
#: The first is ``best``.
SETTINGS = (
    Setting(True, _ALL, _ALL, _ALL),
    Setting(True, _ALL, _LARGE_TWO, _TWO),
    Setting(True, _ALL, _LARGE_TWO, _ONE),
    Setting(True, _LARGE, _LARGE_TWO, _TWO),
    Setting(True, _LARGE, _LARGE_TWO, _ONE),
    Setting(True, _LARGE, _LARGE_ONE, _TWO),
    Setting(True, _LARGE, _LARGE_ONE, _ONE),
)


def share_engines() -> None:
    """Let all predictors of a model use one engine, which otherwise takes about 1 GB for each."""
    make, engines = predictor.make_engine, {}

    def shared(model: NnUNetModel, options: InferenceOptions) -> Engine:
        if model.digest not in engines:
            engines[model.digest] = make(model, options)
        return engines[model.digest]

    predictor.make_engine = shared


class Stages:
    """The networks with the window of any setting, and results and times of the stages for one image."""

    def __init__(self, model: str, threads: int | None) -> None:
        self._models, self._options = resolve(model, need=("step1", "step2")), InferenceOptions(threads=threads)
        self._networks: dict[tuple[Role, WindowLimits], SegmentationNetworks] = {}
        self._done: dict[Any, tuple[Any, np.ndarray]] = {}

    def networks(self, role: Role, limits: WindowLimits) -> SegmentationNetworks:
        """Return networks in which one role has the limits; all settings share the engine of a role."""
        key = role, limits
        if key not in self._networks:
            self._networks[key] = SegmentationNetworks(self._models, self._options, limits={role: limits})
        return self._networks[key]

    def next_image(self) -> None:
        """Forget the results of an image."""
        self._done.clear()

    def run(self, key: Any, work: Callable[[], Any]) -> tuple[Any, np.ndarray]:  # noqa: ANN401 - results of any stage
        """Return the result of a stage, and its seconds by the wall clock and by the processor."""
        if key not in self._done:
            wall, cpu = time.perf_counter(), time.process_time()
            found = work()
            self._done[key] = found, np.array([time.perf_counter() - wall, time.process_time() - cpu])
        return self._done[key]


def segment(image: Any, setting: Setting, stages: Stages) -> tuple[Any, np.ndarray]:  # noqa: ANN401 - a volume
    """Return the labelled spine of an image and the seconds of its networks."""
    work = to_working_grid(image, WORKING_SPACING_MM)
    one = stages.networks(Role.STEP1, setting.step1)
    (prior, region), seconds = stages.run("prior", lambda: one.locate(work, no_progress))
    first, spent = stages.run(setting[:2], lambda: one.step1(work, region if setting.roi else None, no_progress))
    seconds = seconds + spent
    box = spine_box(first.labels, CROP_MARGIN_MM, WORKING_SPACING_MM)
    if box is None:
        return label_outputs(NetworkOutputs(work.affine, first.measured())), seconds
    cropped = first.crop(box)

    def run_step2() -> Any:  # noqa: ANN401
        named = label_map(first.labels, work.affine, first.class_map, level_prior=prior, discs_only=True)
        odd = odd_discs(named)
        channels = np.stack([work.data[box], odd[box].astype(np.float32)])
        two = stages.networks(Role.STEP2, setting.step2)
        return channels, two.step2(channels, work.spacing, cropped.labels > 0, no_progress)

    (channels, second), spent = stages.run(setting[:3], run_step2)
    seconds = seconds + spent
    three = stages.networks(Role.REFINE, setting.refine)
    refined, spent = stages.run(setting, lambda: three.refine(channels[0], work.spacing, cropped, second, no_progress))
    seconds = seconds + spent
    whole = refined.paste(box, work.geometry.shape)
    outputs = NetworkOutputs(work.affine, whole, replace(first, probabilities={}), prior)
    return label_outputs(outputs), seconds


def print_table(seconds: dict[Setting, list[np.ndarray]], images: dict[Setting, list[ImageResult]]) -> list[Any]:
    """Print and return accuracy and mean seconds of each setting."""
    rows = []
    for setting in SETTINGS:
        result = Evaluation(tuple(images[setting]))
        wall, cpu = (statistics.mean(float(spent[k]) for spent in seconds[setting]) for k in range(2))
        right = sum(image.outcome.value == "right" for image in result.images)
        rows.append((setting, float(result.summary()["dice_levels"]), right, wall, cpu))
    print("region       step 1       step 2       refine    Dice  right  wall, s   CPU, s")
    for setting, dice, right, wall, cpu in rows:
        beaten = any(other[1] >= dice and other[4] < cpu for other in rows)
        text = f"{'auto' if setting.roi else 'off':>6} " + " ".join(_in_words(limits) for limits in setting[1:])
        text += f" {dice:7.4f} {right:6} {wall:8.1f} {cpu:8.1f}"
        print(text + ("" if beaten else "  *"), flush=True)
    return [["; ".join(_in_words(limits) for limits in row[0][1:]), *row[1:]] for row in rows]


def _in_words(limits: WindowLimits) -> str:
    """Return passes, overlap and growth; a dot where the network's own hold."""
    parts = (limits.passes, limits.step or None, limits.growth)
    return f"{' '.join('.' if part is None else str(part) for part in parts):>12}"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Measure accuracy against time over passes and overlap.")
    parser.add_argument("bids", type=Path, help="dataset with labels")
    parser.add_argument("--output", type=Path, default=Path("frontier"), help="default: %(default)s")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--images", type=positive, default=12)
    parser.add_argument("--threads", type=positive)
    options = parser.parse_args(argv)
    share_engines()
    cases = find_cases([options.bids])[0][: options.images]
    stages = Stages(options.model, options.threads)
    seconds: dict[Setting, list[np.ndarray]] = {setting: [] for setting in SETTINGS}
    images: dict[Setting, list[ImageResult]] = {setting: [] for setting in SETTINGS}
    with bar(len(cases) * len(SETTINGS), "frontier") as progress:
        for number, case in enumerate(cases):
            image = load_image(case.image).volume
            stages.next_image()
            for place, setting in enumerate(SETTINGS):
                spine, spent = segment(image, setting, stages)
                target = options.output / str(place) / f"{number}_{case.image.name}"
                target.parent.mkdir(parents=True, exist_ok=True)
                write_labels(target, spine.labels_on(image.geometry), image.affine)
                seconds[setting].append(spent)
                images[setting] += evaluate([target], [case.labels.levels[0]]).images
                progress.update()
            print(f"{number + 1} images")
            rows = print_table(seconds, images)
            (options.output / "frontier.json").write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
