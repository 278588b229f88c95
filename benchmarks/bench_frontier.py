"""Measure accuracy against time over the passes and the overlap of the networks.

``python benchmarks/bench_frontier.py BIDS`` segments the images of a labelled dataset, such as the one that
``evaluate_synthetic.py`` writes, with each setting of the list below. What the settings have in common runs once for
each image. Prints the mean Dice over levels, the images in which every name is right, the seconds of the networks
(wall clock and processor), and marks the settings that no other one beats in both accuracy and time. ``--images 0:4``
takes a part of the images, and later calls with the same ``--output`` add others. ``WINDOW_LIMITS`` in
``segmentation/quality.py`` holds the choice.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scored_images import cases_of, image_slice, score, summarize

from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.imaging.grid import to_working_grid
from totalspineseg_bids.imaging.io import load_image, write_labels
from totalspineseg_bids.inference import predictor
from totalspineseg_bids.inference.engines import Engine, make_engine
from totalspineseg_bids.inference.model import NnUNetModel
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.models.roles import Role
from totalspineseg_bids.progress import bar
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


class Setting(NamedTuple):
    """Region of interest, and the limits of the windows of the networks."""

    roi: bool
    step1: WindowLimits
    step2: WindowLimits
    refine: WindowLimits


_ALL = WindowLimits()
_LARGE = WindowLimits(step=0.85, growth=2.25)
_ONE, _TWO = (WindowLimits(passes=passes) for passes in (1, 2))
_LARGE_ONE, _LARGE_TWO = (WindowLimits(passes, step=0.85, growth=2.25) for passes in (1, 2))
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
    engines: dict[str, Engine] = {}

    def shared(model: NnUNetModel, options: InferenceOptions) -> Engine:
        if model.digest not in engines:
            engines[model.digest] = make_engine(model, options)
        return engines[model.digest]

    predictor.make_engine = shared  # type: ignore[assignment, attr-defined]


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


def print_table(scores: dict[str, dict[str, Any]]) -> None:
    """Print accuracy and mean seconds of each setting."""
    rows = {setting: summarize(scores[_in_words(setting)].values()) for setting in SETTINGS}
    print("region       step 1       step 2       refine    Dice  right  wall, s   CPU, s")
    for setting, row in rows.items():
        beaten = any(other["Dice"] >= row["Dice"] and other["CPU s"] < row["CPU s"] for other in rows.values())
        text = f"{_in_words(setting)} {row['Dice']:7.4f} {row['right']:>6} {row['s']:8.1f} {row['CPU s']:8.1f}"
        print(text + ("" if beaten else "  *"), flush=True)


def _in_words(setting: Setting) -> str:
    """Return the region, and of each network passes, overlap and growth; a dot where the network's own hold."""
    windows = [(limits.passes, limits.step or None, limits.growth) for limits in setting[1:]]
    words = [" ".join("." if part is None else str(part) for part in window) for window in windows]
    return f"{'auto' if setting.roi else 'off':>6} " + " ".join(f"{word:>12}" for word in words)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Measure accuracy against time over passes and overlap.")
    parser.add_argument("bids", type=Path, help="dataset with labels")
    parser.add_argument("--output", type=Path, default=Path("frontier"), help="default: %(default)s")
    parser.add_argument("--model", default="bundled", help="name or folder (default: %(default)s)")
    parser.add_argument("--images", type=image_slice, default="::5", metavar="FIRST:LAST:STEP", help="(%(default)s)")
    parser.add_argument("--threads", type=positive)
    options = parser.parse_args(argv)
    share_engines()
    cases = cases_of(options.bids, options.images)
    stages = Stages(options.model, options.threads)
    file = options.output / "frontier.json"
    scores: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    with bar(total=len(cases) * len(SETTINGS), desc="frontier") as progress:
        for case in cases:
            image = load_image(case.image).volume
            stages.next_image()
            for place, setting in enumerate(SETTINGS):
                spine, (wall, cpu) = segment(image, setting, stages)
                target = options.output / str(place) / case.image.name
                target.parent.mkdir(parents=True, exist_ok=True)
                write_labels(target, spine.labels_on(image.geometry), image.affine)
                row = scores.setdefault(_in_words(setting), {})
                row[case.image.name] = {"s": wall, "CPU s": cpu, **score(target, case)}
                progress.update()
            file.write_text(json.dumps(scores, indent=1))
    print_table(scores)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
