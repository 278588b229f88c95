"""Label recorded network outputs again: ``python benchmarks/replay_labelling.py FOLDER``.

FOLDER is the output of ``evaluate_synthetic.py --record``. The labelling of this checkout meets the recorded maps and
level prior probabilities, the errors of real networks in them, in a twentieth of the time. Prints the table of that
benchmark and every structure whose name or doubt is another than at the time of the recording. Step 2 saw the odd discs
of the labelling of that day: images in which this one would give it others are listed, because only the networks
can compute the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evaluate_synthetic import compare_all, print_result, recording, report_path
from recordings import load, odd_discs_of

from totalspineseg_bids.app.files import FileJob, FileResult, find_file_jobs, segment_files
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.evaluation.evaluate_output import write_evaluation
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.progress import bar
from totalspineseg_bids.segmentation.networks import NetworkOutputs
from totalspineseg_bids.segmentation.pipeline import label_outputs
from totalspineseg_bids.segmentation.result import LabelledSpine, StageProgress

_DOUBTFUL = 0.9


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Label again what networks made of synthetic images.")
    parser.add_argument("folder", type=Path, help="output of evaluate_synthetic.py --record")
    return parser.parse_args(argv)


class Replayer:
    """A segmenter whose networks have run before."""

    def __init__(self, perception: NetworkOutputs) -> None:
        self.perception = perception

    def segment(
        self,
        volume: Volume,  # noqa: ARG002 - the networks have seen it
        *,
        localizer: Volume | None = None,
        companions: Sequence[Volume] = (),  # noqa: ARG002
        progress: StageProgress | None = None,  # noqa: ARG002
    ) -> LabelledSpine:
        """Label the recording."""
        return label_outputs(self.perception, localizer)


def relabel(job: FileJob, perception: NetworkOutputs) -> FileResult:
    """Label a recording and write the map and the report."""
    job.target.unlink(missing_ok=True)
    (outcome,) = segment_files([job], Replayer(perception))
    return outcome


def components(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the entry of each component in a report, by its kind and number."""
    components = json.loads(path.read_text(encoding="utf-8"))["components"]
    counted: dict[tuple[str, int], dict[str, Any]] = {}
    for component in components:
        kind = component["structure"]
        counted[kind, sum(1 for other in counted if other[0] == kind)] = component
    return counted


def changes(before: Path, after: Path) -> Iterator[str]:
    """List the names and doubts that differ between two reports."""
    old, new = components(before), components(after)
    if list(old) != list(new):
        yield f"{len(old)} -> {len(new)} components"
    for key in old.keys() & new.keys():
        was, now = old[key], new[key]
        doubt = (was["confidence"] < _DOUBTFUL) != (now["confidence"] < _DOUBTFUL)
        if was["name"] != now["name"] or doubt or was["reason"] != now["reason"]:
            yield " -> ".join(f"{c['name']} {c['confidence']:.2f} ({c['reason'] or 'no doubt'})" for c in (was, now))


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(argv)
    folder, again = options.folder, options.folder / "replayed"
    try:
        jobs = [
            job for job in find_file_jobs(folder / "bids", again / "labels") if recording(folder, job.source).exists()
        ]
        outcomes, other_discs = [], []
        with bar(total=len(jobs), desc="label") as progress:
            for job in jobs:
                perception, odd = load(recording(folder, job.source))
                outcomes.append(relabel(job, perception))
                # Either may be None, which equals None only.
                if not np.array_equal(odd, odd_discs_of(perception)):  # type: ignore[arg-type]
                    other_discs.append(job.source.name)
                progress.update()
        result = compare_all(outcomes, folder / "bids")
    except SpineAppError as error:
        sys.stderr.write(f"replay_labelling: {error}\n")
        return int(error.exit_code)
    write_evaluation(result, again)
    print_result(result, outcomes)
    for job in jobs:
        before = report_path(folder / "labels" / job.target.relative_to(again / "labels"))
        for line in sorted(changes(before, report_path(job.target))):
            print(f"changed: {job.source.name}: {line}")
    for name in other_discs:
        print(f"other odd discs: {name}: run evaluate_synthetic.py again")
    print(f"written to {again}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
