"""Compare time, memory, accuracy and names with those of another checkout of this repository.

``python benchmarks/bench_speed.py BASE --data-dir DATA --rows whole neck`` runs each row in both checkouts, every
measurement in a process of its own, and prints the table of all rows so far, which ``--results`` keeps between calls:

whole       a synthetic whole spine: seconds of the second image of a process, most memory
neck        ``real_bids/sub-neck``: seconds of the second image of a process
first       the same: seconds from the start of a process to its first labels, on a machine that has run the program
evaluation  images of ``evaluate_synthetic.py``: mean seconds in a warm process, mean Dice over levels, images all right
names       ``real_bids``: images whose names of vertebrae and discs are the same
rerun       the BIDS App on six images that are all complete: seconds without validation

``--images 0:20`` measures a part of the evaluation, and later calls add others; ``::10`` is every tenth image. The
base is not measured again on an image.
``--setting quality=best`` passes settings to this checkout. Seconds are those of the wall clock, on an idle
machine; processor time (CPU s) varies less on a busy one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from scored_images import cases_of, image_slice, score, summarize

from totalspineseg_bids.synthesis.dataset import write_dataset
from totalspineseg_bids.training.cases import TrainingCase, find_cases

ROWS = ("whole", "neck", "first", "evaluation", "names", "rerun")
#: Prints a line for each image: seconds, peak memory and names. Runs in either checkout.
_PROGRAM = """
import json, sys, time
from pathlib import Path
from totalspineseg_bids.imaging.io import load_image, write_labels
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
folder, settings, *images = sys.argv[1:]
segmenter = SpineSegmenter(resolve("bundled", need=("step1", "step2")), **json.loads(settings))
if hasattr(segmenter, "preload"):
    segmenter.preload()
for number, name in enumerate(images):
    start, used = time.perf_counter(), time.process_time()
    image = load_image(Path(name)).volume
    spine = segmenter.segment(image)
    labels = spine.labels_on(image.geometry)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    target = Path(folder, f"{number}.nii.gz")
    write_labels(target, labels, image.affine)
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    names = [component.level for component in spine.components]
    print(json.dumps({"seconds": seconds, "cpu": used, "gib": peak, "names": names, "labels": str(target)}), flush=True)
"""


def segment(checkout: Path, folder: Path, images: Sequence[Path], settings: dict[str, str]) -> list[dict[str, Any]]:
    """Segment images in a process that runs a checkout; ``wall`` of the first counts from the start of the process."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _PROGRAM, str(folder), json.dumps(settings), *map(str, images)]
    start = time.perf_counter()
    found: list[dict[str, Any]] = []
    with subprocess.Popen(command, env=_environment(checkout), cwd=checkout, stdout=subprocess.PIPE) as process:
        found.extend({"wall": time.perf_counter() - start, **json.loads(line)} for line in process.stdout or ())
    if process.returncode:
        msg = f"{checkout}: the measurement failed with exit code {process.returncode}"
        raise RuntimeError(msg)
    return found


def _seconds_of_children() -> float:
    """Return the processor time of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment(checkout: Path) -> dict[str, str]:
    # Python keeps compiled modules, as it does for an installed package.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(checkout)}


class Measurements:
    """The rows, each measured in one checkout.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.settings: dict[str, str] = dict(text.split("=", maxsplit=1) for text in options.setting)
        self._scratch = options.results.resolve().with_suffix("")
        self._real = None if options.data_dir is None else options.data_dir.resolve() / "real_bids"

    def measure(self, row: str, checkout: Path, *, this: bool, known: Collection[str] = ()) -> dict[str, Any]:
        """Measure a row, of the evaluation only images that are not known."""
        settings = self.settings if this else {}
        folder = self._scratch / row / ("this" if this else "base")
        if row == "rerun":
            return self._rerun(checkout, folder)
        if row == "evaluation":
            cases = [case for case in self._cases() if case.image.name not in known]
            if not cases:
                return {}
            # The first image of a process takes longer.
            found = segment(checkout, folder, [cases[0].image, *(case.image for case in cases)], settings)[1:]
            return {
                case.image.name: {"s": image["seconds"], "CPU s": image["cpu"], **score(Path(image["labels"]), case)}
                for image, case in zip(found, cases, strict=True)
            }
        images = self._images(row)
        if row == "first":
            segment(checkout, folder, images, settings)  # whatever one run leaves for the next
            again = segment(checkout, folder, images, settings)[0]
            return {"s": again["wall"], "CPU s": again["cpu"]}
        if row in {"whole", "neck"}:
            _, second = segment(checkout, folder, images * 2, settings)
            return {"s": second["seconds"], "CPU s": second["cpu"], "GiB": second["gib"]}
        return {"names": [image["names"] for image in segment(checkout, folder, images, settings)]}

    def _images(self, row: str) -> list[Path]:
        if row == "whole":
            folder = self._scratch / "whole-spine"
            if not folder.exists():
                write_dataset(folder, 1, 1, fields_of_view=["whole"], contrasts=["T2w"], most_images=1)
            return [find_cases([folder])[0][0].image]
        if self._real is None:
            msg = f"row {row} needs --data-dir"
            raise SystemExit(msg)
        return sorted(self._real.glob("sub-*/anat/*.nii.gz" if row == "names" else "sub-neck/anat/*.nii.gz"))

    def _cases(self) -> list[TrainingCase]:
        if self._options.evaluation is None:
            msg = "row evaluation needs --evaluation, the folder 'bids' that evaluate_synthetic.py writes"
            raise SystemExit(msg)
        return cases_of(self._options.evaluation, self._options.images)

    def _rerun(self, checkout: Path, folder: Path) -> dict[str, float]:
        """Return the least seconds of a run of the BIDS App that finds the results of six images complete."""
        shutil.rmtree(folder, ignore_errors=True)
        write_dataset(folder / "bids", 6, 1, fields_of_view=["cervical"], contrasts=["T2w"], most_images=6)
        command = [
            sys.executable,
            "-m",
            "totalspineseg_bids",
            str(folder / "bids"),
            str(folder / "out"),
            "participant",
            "--model",
            "bundled",
        ]
        seconds, used = [], []
        for _ in range(3):
            start, before = time.perf_counter(), _seconds_of_children()
            done = [*command, "--skip-bids-validation", "--step1-only"]
            subprocess.run(done, env=_environment(checkout), cwd=checkout, check=True, capture_output=True)
            seconds.append(time.perf_counter() - start)
            used.append(_seconds_of_children() - before)
        return {"s": min(seconds[1:]), "CPU s": min(used[1:])}


def print_table(results: dict[str, Any]) -> None:
    """Print base, this checkout and their ratio for each figure."""
    print(f"{'row':12} {'figure':7} {'base':>9} {'this':>9} {'ratio':>6}")
    for row, pair in results.items():
        base, this = pair
        if not base or not this:
            continue
        if row == "evaluation":
            base, this = (summarize(one[name] for name in base if name in this) for one in pair)
        for figure, value in this.items():
            if figure == "names":
                same = sum(a == b for a, b in zip(base["names"], value, strict=True))
                print(f"{row:12} {'same':7} {'':9} {f'{same}/{len(value)}':>9}")
            elif isinstance(value, str):
                print(f"{row:12} {figure:7} {base[figure]:>9} {value:>9}")
            else:
                print(f"{row:12} {figure:7} {base[figure]:9.3f} {value:9.3f} {base[figure] / value:5.1f}x")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Compare with another checkout of this repository.")
    parser.add_argument("base", type=Path, help="the other checkout")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--data-dir", type=Path, help="folder with real_bids")
    parser.add_argument("--evaluation", type=Path, help="folder 'bids' that evaluate_synthetic.py writes")
    parser.add_argument(
        "--images", type=image_slice, default="::5", metavar="FIRST:LAST:STEP", help="of the evaluation (%(default)s)"
    )
    parser.add_argument("--setting", nargs="+", default=[], metavar="NAME=VALUE", help="of this checkout")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir(), "bench_speed.json"))
    options = parser.parse_args(argv)
    here = Path(__file__).resolve().parents[1]
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    measurements = Measurements(options)
    for row in options.rows:
        pair = results[row] = results.get(row, [{}, {}]) if row == "evaluation" else [{}, {}]
        for place, path in enumerate((options.base.resolve(), here)):
            pair[place] |= measurements.measure(row, path, this=path == here, known=() if place else pair[place])
            options.results.write_text(json.dumps(results, indent=1))
    print(f"{_processor()}, {len(os.sched_getaffinity(0))} cores")
    print_table(results)
    return 0


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


if __name__ == "__main__":
    raise SystemExit(main())
