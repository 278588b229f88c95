"""Score a model on a real dataset with truth: ``python benchmarks/evaluate_real.py FOLDER --help``.

FOLDER is a BIDS dataset with label images in ``derivatives/labels``, such as ``totalspineseg-tools datasets get`` makes
of SPIDER, spine-generic or whole-spine. Each image is segmented and compared on its own grid. Prints a Markdown table
of Dice, normalised surface distance (NSD) and names by structure and region, and one of names by contrast; the output
folder gets the labels and TSV, JSON and a page of the figures.

Datasets label parts of the spine only, so a prediction is compared with what the truth covers: structures that no image
of the dataset has labelled are left out, and so are levels beyond those that the truth of an image has labelled. Where
the truth has a canal and no cord, the canal includes the cord.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LABEL_SCHEMES, Structure
from totalspineseg_bids.app.files import FileJob, segment_files
from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.errors import NothingSelectedError, SpineAppError
from totalspineseg_bids.evaluation.evaluate import Evaluation
from totalspineseg_bids.evaluation.evaluate_output import format_figure, write_evaluation
from totalspineseg_bids.evaluation.metrics import GROUPS, LEVELLED, ImageResult, LevelResult, Outcome, compare
from totalspineseg_bids.evaluation.surface_distance import TOLERANCE_MM
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.io import read_image, read_labels
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.progress import bar
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
from totalspineseg_bids.training.case_labels import SchemeChoice, merged_labels
from totalspineseg_bids.training.cases import TrainingCase, find_cases

REGIONS = {"C": "cervical", "T": "thoracic", "L": "lumbar", "S": "sacral"}
#: A predicted level that is not in the truth is an error if at least this share of it lies on labelled bone or disc.
_ON_LABELS = 0.1


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Score a model on a real dataset with truth in derivatives/labels.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="BIDS dataset")
    parser.add_argument("--model", default="bundled", help="name, folder or zip (default: %(default)s)")
    parser.add_argument("--labels-folder", default="derivatives/labels", help="of the truth (default: %(default)s)")
    parser.add_argument("--truth-scheme", default="auto", choices=("auto", *LABEL_SCHEMES), help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("evaluation-real"), help="default: %(default)s")
    parser.add_argument("--images", type=positive, help="only the first so many (default: all)")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE_MM, help="of the NSD, mm (default: %(default)s)")
    parser.add_argument("--reuse", action="store_true", help="score labels that are in the output folder already")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--threads", type=positive)
    return parser.parse_args(argv)


def segment(options: argparse.Namespace, cases: Sequence[TrainingCase]) -> tuple[list[Path], list[float]]:
    """Segment the images and return the paths of their labels and the seconds of each that was segmented now."""
    jobs = [FileJob(case.image, options.output / "labels" / f"{case.case_id}.nii.gz") for case in cases]
    todo = [job for job in jobs if not (options.reuse and job.target.exists())]
    seconds: list[float] = []
    if todo:
        segmenter = SpineSegmenter(
            resolve(options.model, need=("step1", "step2")),
            device=options.device,
            engine=options.engine,
            threads=options.threads,
        )
    with bar(total=len(todo), desc="segment") as progress:
        for job in todo:
            job.target.unlink(missing_ok=True)
            start = time.perf_counter()
            for outcome in segment_files([job], segmenter):
                if outcome.error is not None:
                    sys.stderr.write(f"{outcome.line}\n")
            seconds.append(time.perf_counter() - start)
            progress.update()
    return [job.target for job in jobs], seconds


def covered(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], kinds: Iterable[Structure]) -> NDArray[np.uint8]:
    """Return a prediction without what its truth does not cover.

    Parameters
    ----------
    truth, predicted : uint8 array
        Canonical ids on one grid.
    kinds : iterable of Structure
        Structures that the dataset labels.

    Returns
    -------
    ndarray of uint8
        The prediction without other structures and without levels beyond those of the truth.
    """
    kinds = set(kinds)
    table = np.arange(256, dtype=np.uint8)
    known = [label for label in anatomy.LABELS if label.structure in LEVELLED]
    bone_or_disc = np.isin(truth, [label.id for label in known])
    in_truth = set(np.unique(truth).tolist())
    for label in anatomy.LABELS:
        if label.structure is Structure.CORD and Structure.CANAL in kinds and label.structure not in kinds:
            table[label.id] = anatomy.CANAL_ID
        elif label.structure not in kinds:
            table[label.id] = 0
        elif label.structure in LEVELLED and label.id not in in_truth:
            claim = predicted == label.id
            if claim.any() and bone_or_disc[claim].mean() < _ON_LABELS:
                table[label.id] = 0
    return table[predicted]


def load_truth(case: TrainingCase, scheme: SchemeChoice) -> Volume | str:
    """Return the labels of an image on its grid, or the reason why they cannot be used."""
    try:
        image = read_image(case.image, volume="mean")
        return Volume(merged_labels(case.labels, image, image.geometry, scheme), image.affine)
    except SpineAppError as error:
        return str(error)


def score(
    cases: Sequence[TrainingCase], predictions: Sequence[Path], scheme: SchemeChoice, tolerance_mm: float
) -> Evaluation:
    """Compare predictions with truths; an image without labels counts as one in which nothing was found."""
    truths: list[tuple[TrainingCase, Path, Volume]] = []
    failed: list[tuple[str, str]] = []
    for case, path in zip(cases, predictions, strict=True):
        truth = load_truth(case, scheme)
        if isinstance(truth, Volume):
            truths.append((case, path, truth))
        else:
            failed.append((case.image.name, truth))
    present = {int(value) for _, _, truth in truths for value in np.unique(truth.data)} - {0}
    kinds = {anatomy.BY_ID[value].structure for value in present}
    images: list[ImageResult] = []
    with bar(total=len(truths), desc="compare") as progress:
        for case, path, truth in truths:
            predicted = np.zeros_like(truth.data)
            if path.exists():
                labels = read_labels(path)
                predicted = restore_labels(labels.data.astype(np.uint8), labels.affine, truth.geometry)
            predicted = covered(truth.data, predicted, kinds)
            tags = {"contrast": case.contrast}
            images.append(
                compare(truth.data, predicted, truth.affine, case.image.name, tags, tolerance_mm=tolerance_mm)
            )
            progress.update()
    return Evaluation(tuple(images), tuple(failed), tolerance_mm)


def region_of(level: str) -> str:
    """Return the region of a level; that of the vertebra above a disc.

    >>> region_of("T12-L1"), region_of("S"), region_of("")
    ('thoracic', 'sacral', 'all')
    """
    return REGIONS.get(level[:1], "all")


def _mean(values: Iterable[float]) -> str:
    finite = [value for value in values if not np.isnan(value)]
    return format_figure(float(np.mean(finite)) if finite else float("nan"))


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, the first two columns to the left and the others to the right."""
    rules = ["---" if column < 2 else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *rows))


def structure_table(result: Evaluation) -> str:
    """Return the table by structure and region, over structures in full view."""
    rows: list[list[str]] = []
    found = [row for image in result.images for row in image.levels if row.in_truth and row.full_view]
    for structure, name in GROUPS.items():
        of_kind = [row for row in found if row.structure is structure]
        regions = dict.fromkeys(
            region for region in REGIONS.values() if any(region_of(r.level) == region for r in of_kind)
        )
        for region in [*regions, "all"] if len(regions) != 1 else list(regions):
            rows.extend(_structure_rows(name, region, [r for r in of_kind if region in ("all", region_of(r.level))]))
    return markdown(("structure", "region", "n", "Dice", "NSD", "names"), rows)


def _structure_rows(name: str, region: str, rows: Sequence[LevelResult]) -> list[list[str]]:
    if not rows:
        return []
    asked = [row.identified for row in rows if row.identified is not None]
    names = f"{sum(map(bool, asked))} of {len(asked)}" if asked else "-"
    return [
        [name.replace("_", " "), region, str(len(rows)), _mean(r.dice for r in rows), _mean(r.nsd for r in rows), names]
    ]


def image_table(result: Evaluation) -> str:
    """Return the table by contrast: images by the outcome of the names."""
    rows = []
    every, *contrasts = result.groups()
    for _tag, contrast, part in (*contrasts, every):
        images = part.images
        outcomes = [image.outcome for image in images]
        nameless = outcomes.count(Outcome.ABSTAINED) + outcomes.count(Outcome.EMPTY)
        levels = [row.dice for image in images for row in image.levels if row.in_truth and row.full_view and row.level]
        counts = (
            outcomes.count(Outcome.RIGHT),
            outcomes.count(Outcome.INCOMPLETE),
            nameless,
            outcomes.count(Outcome.WRONG),
        )
        rows.append([contrast, str(len(images)), _mean(levels), *map(str, counts)])
    return markdown(("contrast", "images", "Dice of levels", "all right", "incomplete", "no names", "wrong"), rows)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(argv)
    try:
        cases, refused = find_cases([options.folder], options.labels_folder)
        cases = cases[: options.images]
        if not cases:
            msg = f"{options.folder}: no image has labels in {options.labels_folder}; {refused[0].reason}"
            raise NothingSelectedError(msg)
        predictions, seconds = segment(options, cases)
        result = score(cases, predictions, options.truth_scheme, options.tolerance)
    except SpineAppError as error:
        sys.stderr.write(f"evaluate_real: {error}\n")
        return int(error.exit_code)
    write_evaluation(result, options.output, {"model": options.model, "dataset": options.folder.resolve().name})
    title = f"{options.folder.resolve().name}: {len(result.images)} images, model {options.model}"
    print(f"{title}; structures in full view, NSD at {options.tolerance:g} mm\n")
    print(f"{structure_table(result)}\n\n{image_table(result)}\n")
    if seconds:
        print(f"seconds per image: mean {statistics.mean(seconds):.1f}, most {max(seconds):.1f}")
    for name, reason in [*result.failed, *((refusal.image.name, refusal.reason) for refusal in refused)]:
        print(f"not compared: {name}: {reason}")
    print(f"written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
