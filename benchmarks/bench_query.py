"""Time the queries for the images of one participant and of all participants in a large dataset.

    python benchmarks/bench_query.py --subjects 5000

Writes a dataset of empty files, ten per participant (two anatomical images with sidecars, a functional and a diffusion
series with theirs), and prints processor and wall-clock seconds of each query. Each runs in a separate
process with pyBIDS loaded.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from totalspineseg_bids.bids.query import Selection, find_images

_FILES = (
    *("anat/{}_T1w.nii.gz", "anat/{}_T1w.json", "anat/{}_acq-sag_T2w.nii.gz", "anat/{}_acq-sag_T2w.json"),
    *("func/{}_task-rest_bold.nii.gz", "func/{}_task-rest_bold.json"),
    *("dwi/{}_dwi.nii.gz", "dwi/{}_dwi.json", "dwi/{}_dwi.bval", "dwi/{}_dwi.bvec"),
)


def write_dataset(root: Path, subjects: int) -> None:
    """Write the dataset."""
    (root / "dataset_description.json").write_text(json.dumps({"Name": "Large", "BIDSVersion": "1.10.0"}))
    for number in range(1, subjects + 1):
        name = f"sub-{number:05d}"
        for folder in ("anat", "func", "dwi"):
            (root / name / folder).mkdir(parents=True)
        for file in _FILES:
            (root / name / file.format(name)).touch()


def measure(title: str, query: Callable[[], int]) -> None:
    """Run a query in a process of its own and print how long it took."""

    def run() -> None:
        wall, cpu = time.monotonic(), time.process_time()
        found = query()
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        print(f"{title:42s} {found:6d} images  {cpu:7.2f} s processor  {wall:7.2f} s wall clock", flush=True)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()


def main() -> int:
    """Write the dataset and query it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=5000)
    subjects = parser.parse_args().subjects
    import bids.layout  # noqa: F401, PLC0415 - loaded before the clock starts

    with tempfile.TemporaryDirectory() as folder:
        root, index = Path(folder, "bids"), Path(folder, "index")
        root.mkdir()
        write_dataset(root, subjects)
        last = f"{subjects:05d}"
        print(f"{subjects} subjects, {len(_FILES)} files each")
        measure("one participant", lambda: len(find_images(root, Selection(participants=(last,)))))
        measure("all", lambda: len(find_images(root, Selection())))
        measure("all, making an index", lambda: len(find_images(root, Selection(), database=index)))
        measure(
            "one participant, from the index",
            lambda: len(find_images(root, Selection(participants=(last,)), database=index)),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
