"""Kill runs at random moments and run processes in parallel, to check that no output is lost or differs.

    python benchmarks/bench_crash_safety.py --moments 50

Each moment: a run over four tiny images is killed by SIGKILL after a random part of the time an unbroken run takes,
and run again. The second run must leave the bytes of an unbroken one and must not touch what was complete (inode and
time of change of every file). The segmenter is the tests' own, which thresholds; everything after it is the real thing.
Prints a line a moment and a summary; ends with 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "app"))

from processes import IMAGES, config, dataset, finish, kill_and_go_on, start
from tiny_spine import contents, one_dot

from totalspineseg_bids.report import figures


def moments(folder: Path, number: int, seed: int) -> bool:
    """Kill runs at random moments, resume them, and return whether nothing was lost."""
    raw = dataset(folder / "raw")
    # The first run is slower than the others: nothing is in the disk's cache yet.
    finish(config(raw, folder / "first"))
    duration = finish(config(raw, folder / "whole"))
    whole = contents(folder / "whole")
    print(f"unbroken run: {len(whole)} files, {duration:.1f} s here")
    rng = random.Random(seed)  # noqa: S311 - moments, not secrets
    complete: Counter[int] = Counter()
    lost = 0
    for moment in range(1, number + 1):
        out, share = folder / "out", rng.random()
        shutil.rmtree(out, ignore_errors=True)
        try:
            done = kill_and_go_on(config(raw, out), lambda: time.sleep(share * duration), whole)  # noqa: B023
        except AssertionError as error:
            lost += 1
            print(f"{moment:3d}  killed at {share:4.0%}  FAILED {error}", flush=True)
            continue
        complete[done] += 1
        print(f"{moment:3d}  killed at {share:4.0%}, {done} of {len(IMAGES)} images complete: same bytes", flush=True)
    shares = ", ".join(f"{count} with {images}" for images, count in sorted(complete.items()))
    print(f"{number - lost} of {number} moments: same bytes, nothing redone (images complete when killed: {shares})")
    return lost == 0


def side_by_side(folder: Path) -> bool:
    """Run eight processes on the same dataset and return whether they write the files that one process writes."""
    names = [f"sub-{i:02d}/anat/sub-{i:02d}_T2w.nii.gz" for i in range(1, 9)]
    raw = dataset(folder / "raw8", names)
    finish(config(raw, folder / "one"))
    processes = [start(config(raw, folder / "eight")) for _ in range(8)]
    for process in processes:
        process.join()
    for out in ("one", "eight"):
        finish(config(raw, folder / out, "group"))
    same = contents(folder / "one") == contents(folder / "eight")
    codes = {process.exitcode for process in processes}
    print(f"eight processes at once over eight images: exit codes {codes}, {'same' if same else 'OTHER'} bytes as one")
    return same and codes == {0}


def main() -> int:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moments", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dots", action="store_true", help="write a dot in place of the figures (half the time)")
    options = parser.parse_args()
    if options.dots:
        figures.write_figures = one_dot
    with tempfile.TemporaryDirectory() as folder:
        safe = moments(Path(folder), options.moments, options.seed)
        safe = side_by_side(Path(folder)) and safe
    return 0 if safe else 1


if __name__ == "__main__":
    sys.exit(main())
