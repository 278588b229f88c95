"""Cost of running participants as jobs of Snakemake: ``python benchmarks/bench_cluster.py --help``.

- Planning and submission of 1,000 and 5,000 participants: seconds and memory of the app and of Snakemake, with jobs
  that do nothing. Snakemake's time for each job is what it adds to a job of any length.
- Overhead: participants with the segmenter of the tests, which thresholds, in one process and one job at a time by
  Snakemake. What the jobs add does not depend on the segmenter, so that its share is given for participants on whom the
  networks spend a second, and ten; real ones take 10 to 30 s.

CPU time, not wall time, unless it says so: it depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "app"))

from tiny_spine import TinySegmenter, make_dataset, tiny_image

from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.cluster import containers
from totalspineseg_bids.cluster.plan import JobPlan
from totalspineseg_bids.cluster.submit import submit
from totalspineseg_bids.config import RunConfig

STUB = Path(__file__).resolve().parents[1] / "tests/cluster/stub_tools.py"
#: Share of the time of the loop that Snakemake may add, where the networks take so many seconds for a participant.
LIMIT, SECONDS = 0.05, 1.0


def fake_dataset(folder: Path, participants: int) -> Path:
    """Write a dataset in which all participants have the same tiny image."""
    image = nib.Nifti1Image(tiny_image(), [[1, 0, 0, -9], [0, 1, 0, -12], [0, 0, 1, 30], [0, 0, 0, 1]])
    content = gzip.compress(image.to_bytes(), 1)
    raw = make_dataset(folder, {})
    for number in range(participants):
        path = raw / f"sub-{number:04d}/anat/sub-{number:04d}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    return raw


def configure(raw: Path, out: Path, **settings: object) -> RunConfig:
    """Return the settings of a submission, one job at a time on this machine."""
    fixed = {"analysis_level": "participant", "model": "bundled", "progress": False, "skip_bids_validation": True}
    return RunConfig.from_mapping(
        {"bids_dir": raw, "output_dir": out, "executor": "local", "verbose": 0, **fixed, **settings}
    )


def submit_here(raw: str, out: str, program: str, batch: str = "") -> None:
    """Submit in this process and print its figures as JSON on the last line."""
    containers.TOOLS_COMMAND = tuple(program.split())
    loaded = LoadedSegmenter(TinySegmenter(), "bundled", "0" * 64, True)
    config = configure(Path(raw), Path(out), batch_size=int(batch) if batch else None, stop_on_first_crash=False)
    begin = time.monotonic()
    submit(config, factory=lambda _: loaded)
    figures = {"wall": time.monotonic() - begin}
    for name, who in (("app", resource.RUSAGE_SELF), ("snakemake", resource.RUSAGE_CHILDREN)):
        usage = resource.getrusage(who)
        figures |= {f"{name} s": usage.ru_utime + usage.ru_stime, f"{name} MB": usage.ru_maxrss / 1024}
    print(json.dumps(figures))


def measure(raw: Path, out: Path, program: str, batch: int | None) -> dict[str, float]:
    """Submit in a separate process and return its figures."""
    command = [sys.executable, __file__, "--submit", str(raw), str(out), program, *([str(batch)] if batch else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def loop(raw: Path, out: Path, program: str) -> tuple[float, float]:
    """Process all participants in one process; return the seconds of CPU and of wall time."""
    before, begin = os.times(), time.monotonic()
    options = ["participant", "--model", "bundled", "--no-progress", "--skip-bids-validation"]
    subprocess.run([*program.split(), str(raw), str(out), *options], stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.monotonic() - begin


def overhead(folder: Path, participants: int, batch: int | None) -> bool:
    """Compare jobs with a plain loop and return whether they stay within the limit."""
    program = f"{sys.executable} {STUB}"
    raw = fake_dataset(folder / "stub", participants)
    plain, wall = loop(raw, folder / "one", program)
    figures = measure(raw, folder / "many", program, batch)
    more = figures["snakemake s"] + figures["app s"] - plain
    jobs = len(JobPlan.read(next((folder / "many").glob("logs/run-*/"))).jobs)
    print(f"{participants} participants: loop {plain:.0f} s of CPU ({wall:.0f} s)", flush=True)
    print(f"  one at a time in {jobs} jobs of Snakemake: {more:+.0f} s of CPU ({figures['wall'] - wall:+.0f} s)")
    shares = {seconds: more / (plain + seconds * participants) for seconds in (SECONDS, 10 * SECONDS)}
    print("  ".join(["", *(f"{share:+.1%} with {s:.0f} s of networks a participant" for s, share in shares.items())]))
    return shares[SECONDS] <= LIMIT


def main() -> int:
    """Print all figures; the exit code is 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--submit", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 5000], help="participants of submissions")
    parser.add_argument("--stub", type=int, default=1000, help="participants with the segmenter of the tests")
    parser.add_argument("--batch", type=int, help="participants a job of these (default: as planned)")
    options = parser.parse_args()
    if options.submit:
        submit_here(*options.submit)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for size in options.sizes:
            figures = measure(fake_dataset(folder / f"raw{size}", size), folder / f"out{size}", "true", 1)
            print(
                f"{size} participants, jobs that do nothing: " + ", ".join(f"{k} {v:.1f}" for k, v in figures.items())
            )
            print(f"  Snakemake: {1000 * figures['snakemake s'] / size:.0f} ms of CPU a job", flush=True)
        within = not options.stub or overhead(folder, options.stub, options.batch)
    print("within the limit" if within else f"over the limit of {LIMIT:.0%}")
    return int(not within)


if __name__ == "__main__":
    sys.exit(main())
