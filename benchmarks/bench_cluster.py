"""Cost of running participants as jobs of Snakemake: ``python benchmarks/bench_cluster.py --help``.

- Planning and submission of 1,000 and 5,000 participants: seconds and memory of the app and of Snakemake, with jobs
  that do nothing. Snakemake's time for each job is what it adds to a job of any length.
- Overhead: participants with the segmenter of the tests, which thresholds, one job at a time by Snakemake and by a
  plain loop over the same commands.

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
#: Share of the time of the loop that Snakemake may add.
LIMIT = 0.05


def fake_dataset(folder: Path, participants: int) -> Path:
    """Write a dataset whose participants have the same tiny image."""
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


def submit_here(raw: str, out: str, program: str, batch: str) -> None:
    """Submit in this process and print its figures as JSON on the last line."""
    containers.TOOLS_COMMAND = tuple(program.split())
    loaded = LoadedSegmenter(TinySegmenter(), "bundled", "0" * 64, True)
    config = configure(Path(raw), Path(out), batch_size=int(batch), stop_on_first_crash=False)
    begin = time.monotonic()
    submit(config, factory=lambda _: loaded)
    figures = {"wall": time.monotonic() - begin}
    for name, who in (("app", resource.RUSAGE_SELF), ("snakemake", resource.RUSAGE_CHILDREN)):
        usage = resource.getrusage(who)
        figures |= {f"{name} s": usage.ru_utime + usage.ru_stime, f"{name} MB": usage.ru_maxrss / 1024}
    print(json.dumps(figures))


def measure(raw: Path, out: Path, program: str, batch: int) -> dict[str, float]:
    """Submit in a separate process and return its figures."""
    command = [sys.executable, __file__, "--submit", str(raw), str(out), program, str(batch)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def loop(out: Path, program: str) -> float:
    """Run the commands of the last submission again one after the other, in a copy; return the seconds of CPU."""
    folder = max(out.glob("logs/run-*/")).resolve()
    before = os.times()
    for name in JobPlan.read(folder).jobs:
        subprocess.run([*program.split(), "run-job", str(folder), name], stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def overhead(folder: Path, participants: int, batch: int) -> bool:
    """Compare Snakemake with a plain loop and return whether it stays within the limit."""
    program = f"{sys.executable} {STUB}"
    raw = fake_dataset(folder / f"stub{participants}x{batch}", participants)
    out = folder / f"out{participants}x{batch}"
    figures = measure(raw, out, program, batch)
    for path in out.glob("sub-*/anat/*_seg-totalspineseg_*.json"):
        path.unlink()
    plain = loop(out, program)
    more = figures["snakemake s"] + figures["app s"] - plain
    share = f"{more:+.1f} s ({more / plain:+.1%})"
    print(f"{participants} participants, {batch} a job: loop {plain:.0f} s, with Snakemake {share}", flush=True)
    return more <= LIMIT * plain


def main() -> int:
    """Print all figures; the exit code is 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--submit", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 5000], help="participants of submissions")
    parser.add_argument("--stub", type=int, default=1000, help="participants with the segmenter of the tests")
    parser.add_argument("--batch", type=int, default=20, help="participants a job of these")
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
