"""Measure a model on synthetic spines that no training saw: ``python benchmarks/evaluate_synthetic.py --help``.

Writes a BIDS dataset of synthetic images (fields of view and contrasts mixed, seeds of the evaluation domain), labels
each with the model through ``SpineSegmenter``, and compares with the truth. Prints Dice by structure group and level,
by contrast and by field of view; the number of images in which every level in full view is right, that abstained, and
that have a wrong name, with the warning; and the seconds per image.
The folder keeps the dataset, the labels, TSV and JSON, and
with ``--record`` what the networks made of each image, for ``replay_labelling.py``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from recordings import Recorder, save

from totalspineseg_bids.app.files import FileResult, find_file_jobs, segment_files
from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.evaluation.evaluate import Evaluation, evaluate
from totalspineseg_bids.evaluation.evaluate_output import evaluation_table, write_evaluation
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.progress import bar
from totalspineseg_bids.synthesis.dataset import write_dataset
from totalspineseg_bids.training.cases import find_cases


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure a model on unseen synthetic spine images.")
    parser.add_argument("--model", default="bundled", help="name, folder or zip (default: %(default)s)")
    parser.add_argument("--images", type=positive, default=40, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the images (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("evaluation-synthetic"), help="default: %(default)s")
    parser.add_argument("--fov", nargs="+", help="fields of view (default: all in turn)")
    parser.add_argument("--contrast", nargs="+", help="contrasts (default: mixed)")
    parser.add_argument("--label-maps", type=Path, help="pose these label maps instead of parametric spines")
    parser.add_argument("--variants", action="store_true", help="some spines with other numbers of vertebrae")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=positive)
    parser.add_argument("--single-step", action="store_true", help="use the single-step model")
    parser.add_argument("--record", action="store_true", help="keep what the networks make of each image")
    return parser.parse_args(argv)


def make_images(options: argparse.Namespace) -> Path:
    """Write the dataset, unless the folder has the same one already."""
    folder = Path(options.output) / "bids"
    recipe = {
        key: str(getattr(options, key)) for key in ("images", "seed", "fov", "contrast", "label_maps", "variants")
    }
    mark = folder.with_name("bids.json")
    if mark.exists() and json.loads(mark.read_text()) == recipe:
        return folder
    write_dataset(
        folder,
        options.images,
        options.seed,
        fields_of_view=options.fov,
        contrasts=options.contrast,
        label_maps=options.label_maps,
        variants=options.variants,
        most_images=options.images,
    )
    write_text(mark, json.dumps(recipe))
    return folder


def segment(options: argparse.Namespace, bids: Path) -> tuple[list[FileResult], list[float]]:
    """Label the images and return the result and the seconds of each."""
    need = ("single",) if options.single_step else ("step1", "step2")
    segmenter = Recorder(
        resolve(options.model, need=need),
        device=options.device,
        engine=options.engine,
        threads=options.threads,
        single_step=options.single_step,
    )
    jobs = find_file_jobs(bids, options.output / "labels")[: options.images]
    for job in jobs:
        # A label map of an earlier model must not be scored if this model finds nothing.
        job.target.unlink(missing_ok=True)
    outcomes: list[FileResult] = []
    seconds: list[float] = []
    with bar(total=len(jobs), desc="segment") as progress:
        for job in jobs:
            start = time.perf_counter()
            outcomes += segment_files([job], segmenter)
            seconds.append(time.perf_counter() - start)
            if options.record and segmenter.last is not None:
                save(recording(options.output, job.source), segmenter.last)
            progress.update()
    return outcomes, seconds


def recording(folder: Path, image: Path) -> Path:
    """Return where the recording of an image is kept."""
    return folder / "recordings" / f"{image.name.removesuffix('.nii.gz')}.npz"


def tags_of(image: Path) -> dict[str, str]:
    """Return the grouping tags of an image, from its sidecar."""
    sidecar = json.loads(image.with_name(image.name.removesuffix(".nii.gz") + ".json").read_text())
    contrast = sidecar["SyntheticContrast"]
    return {
        "contrast": contrast,
        "field": sidecar["SyntheticFieldOfView"],
        "kind": "T1w+T2w" if contrast in ("T1w", "T2w") else "other",
        "plane": sidecar["SeriesDescription"].split()[2],
    }


def compare_all(outcomes: list[FileResult], bids: Path) -> Evaluation:
    """Compare with the truth; an image without output counts as one in which nothing was found."""
    cases, _ = find_cases([bids])
    truths = {case.image: case.labels.levels[0] for case in cases}
    jobs = [outcome.job for outcome in outcomes]
    pairs = [(job.target if job.target.exists() else None, truths[job.source.resolve()]) for job in jobs]
    return evaluate(pairs, tags=[tags_of(job.source) for job in jobs])


def report_path(target: Path) -> Path:
    """Return the report that lies beside a label map."""
    return target.with_name(f"{target.name.removesuffix('.nii.gz')}.json")


def reported_reasons(outcome: FileResult) -> dict[str, str | None]:
    """Return the warnings of the labelling for an image, by the name of the structure."""
    report = json.loads(report_path(outcome.job.target).read_text(encoding="utf-8"))
    return {component["name"]: component["reason"] for component in report["components"]}


def print_result(result: Evaluation, outcomes: list[FileResult]) -> None:
    """Print the table, what failed, and every wrong name with its warning."""
    print(evaluation_table(result))
    for outcome in outcomes:
        if outcome.error is not None:
            print(outcome.line)
    for image, outcome in zip(result.images, outcomes, strict=True):
        if image.outcome.value == "wrong":
            reasons = reported_reasons(outcome)
            names = (f"{row.name} ({reasons.get(row.name) or 'no warning'})" for row in image.levels if row.misnamed)
            print(f"wrong: {image.name}: {', '.join(names)}")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(argv)
    try:
        bids = make_images(options)
        outcomes, seconds = segment(options, bids)
        result = compare_all(outcomes, bids)
    except SpineAppError as error:
        sys.stderr.write(f"evaluate_synthetic: {error}\n")
        return int(error.exit_code)
    timing: dict[str, Any] = {
        "mean": statistics.mean(seconds),
        "median": statistics.median(seconds),
        "max": max(seconds),
    }
    write_evaluation(result, options.output, {"model": options.model, "seed": options.seed, "seconds": timing})
    print_result(result, outcomes)
    print(f"seconds per image: mean {timing['mean']:.1f}, median {timing['median']:.1f}, most {timing['max']:.1f}")
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
