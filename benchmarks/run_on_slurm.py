"""Run small synthetic participants on a Slurm cluster of one node and compare with one process: ``make cluster-test``.

Two jobs are killed at random and slurmd is restarted while jobs run. The results must be those of one process byte by
byte and valid by bids-validator-deno, and no image may be completed twice. The program prints its figures; without
root and Slurm packages it says why it does nothing. With ``--container`` all of it runs in an image, as
``make container-cluster-test`` does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "app"))

from one_node_slurm import OneNodeSlurm, SlurmUnavailableError, install
from one_node_slurm import run as call
from processes import complete_files
from tiny_spine import contents, make_dataset

from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.synthesis.dataset import write_dataset

#: Synthetic spines, of each of which several windows are participants.
_SPINES = 4
#: Size of a window, mm: left to right, back to front, foot to head.
_WINDOW = (36, 88, 96)
_PROFILE = """\
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 2
seconds-between-status-checks: 2
retries: 3
"""
#: Job without Snakemake, which Slurm only checks here.
_ARRAY = Path(__file__).resolve().parents[1] / "docs/platforms/slurm-array.sh"
_JOB = re.compile(rb"run-job\0\.\0(sub-[^\0]+)\0")


def make_small_dataset(folder: Path, participants: int) -> Path:
    """Write a dataset of windows of synthetic spines, each a participant, and return it."""
    spines = folder / "spines"
    write_dataset(spines, _SPINES, 7, fields_of_view=["cervical"], contrasts=["T2w"], most_images=1)
    images = [nib.load(path) for path in sorted(spines.glob("sub-*/**/anat/*_T2w.nii.gz"))]
    raw = make_dataset(folder / "raw", {})
    for number in range(participants):
        image = nib.as_closest_canonical(images[number % len(images)])
        size = np.minimum(np.ceil(np.array(_WINDOW) / image.header.get_zooms()[:3]).astype(int), image.shape[:3])
        first = (np.array(image.shape[:3]) - size) // 2
        steps = max(1, -(-participants // len(images)))
        first[2] = (image.shape[2] - size[2]) * (number // len(images)) // steps
        window = image.slicer[tuple(slice(a, a + n) for a, n in zip(first, size, strict=True))]
        path = raw / f"sub-{number:02d}/anat/sub-{number:02d}_T2w.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(window, path)
    shutil.rmtree(spines)
    return raw


def app(*arguments: object) -> list[str]:
    """Return a command line of the BIDS App with the first network of the bundled model and one core."""
    fixed = ("--model", "bundled", "--step1-only", "--no-full-viewer", "--n-cpus", "1", "--no-progress")
    return [sys.executable, "-m", "totalspineseg_bids", *map(str, arguments), *fixed]


def job_processes(out: Path) -> dict[str, int]:
    """Return the process ids of the running jobs that write to an output folder, by name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            # In a container, the path starts with that of the unpacked image.
            is_here = str(out) in str((path / "cwd").readlink())
        except OSError:
            continue
        match = _JOB.search(command)
        if match and is_here and b"snakemake" not in command:
            found[match[1].decode()] = int(path.name)
    return found


def disturb(
    submission: subprocess.Popen[bytes], out: Path, slurm: OneNodeSlurm, kills: int, rng: random.Random
) -> dict[str, list[str]]:
    """Kill running jobs at random moments and restart slurmd once; return what was done, by names of jobs."""
    killed: list[str] = []
    restarted: list[str] = []
    while submission.poll() is None:
        time.sleep(rng.uniform(2, 8))
        victims = {name: pid for name, pid in job_processes(out).items() if name not in killed}
        if len(killed) < kills and victims:
            name = rng.choice(sorted(victims))
            os.kill(victims[name], signal.SIGKILL)
            killed.append(name)
        elif not restarted and victims:
            slurm.restart_node()
            restarted = sorted(victims)
    return {"killed": killed, "running while slurmd was restarted": restarted}


def completions(out: Path) -> Counter[str]:
    """Return how often each image was completed, by the logs of the jobs."""
    lines = (line for log in out.glob("logs/run-*/sub-*.log") for line in log.read_text().splitlines())
    matches = (re.fullmatch(r"INFO (sub-\w+): (labelled|abstained|no-spine)\b.*", line) for line in lines)
    return Counter(match[1] for match in matches if match)


def run(folder: Path, options: argparse.Namespace) -> list[str]:
    """Run the test and return a list of problems."""
    participants = options.participants
    raw = make_small_dataset(folder, participants)
    one, many = folder / "one", folder / "many"

    def run_in_one_process(level: str) -> None:
        one.mkdir(exist_ok=True)
        command = app(raw, one, level)
        if options.container:
            binds = ["--bind", f"{raw}:{raw}:ro", "--bind", f"{one}:{one}"]
            command[:3] = ["singularity", "exec", *binds, str(options.container), "totalspineseg-bids"]
        subprocess.run(command, check=True, cwd=one)

    begin = time.monotonic()
    run_in_one_process("participant")
    print(f"one process: {time.monotonic() - begin:.0f} s for {participants} participants", flush=True)
    (folder / "profile").mkdir()
    (folder / "profile/config.yaml").write_text(_PROFILE)
    executor = ["--executor", "slurm", "--jobs", options.jobs, "--profile", folder / "profile", "--then-group"]
    executor += ["--container", options.container] if options.container else []
    command = app(raw, many, "participant", *executor)
    with OneNodeSlurm(folder / "slurm") as slurm:
        begin = time.monotonic()
        submission = subprocess.Popen(command)
        disturbed = disturb(submission, many, slurm, 2, random.Random(options.seed))  # noqa: S311 - moments, not secrets
        seconds = time.monotonic() - begin
        before = complete_files(many)
        again = subprocess.run(command, check=False, capture_output=True, text=True)
        array = call("sbatch", "--test-only", "--array=1-2", "--cpus-per-task=1", *map(str, (_ARRAY, raw, many)))
    run_in_one_process("group")
    for what, names in disturbed.items():
        print(f"{what}: {', '.join(names)}")
    wrong = {
        "the exit code is not 0": submission.returncode != 0 or again.returncode != 0,
        "two jobs were not killed": len(disturbed["killed"]) < 2,
        "slurmd was not restarted": not all(disturbed.values()),
        f"Slurm refuses {_ARRAY.name}: {array.stderr.strip()}": array.returncode != 0,
        "a rerun changed complete images": complete_files(many) != before,
        **compare(one, many, seconds),
    }
    return [text for text, is_so in wrong.items() if is_so]


def compare(one: Path, many: Path, seconds: float) -> dict[str, bool]:
    """Print figures and return whether the results of the jobs differ from those of one process, by what is wrong."""
    expected, found, times = contents(one), contents(many), completions(many)
    different = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    issues = validate(many)
    resubmitted = json.loads(max(many.glob("logs/run-*/plan.json")).read_text())["jobs"]
    twice = [name for name, count in times.items() if count != 1]
    print(f"Slurm: {seconds:.0f} s, {sum(times.values())} images completed in jobs, {len(twice)} of them twice")
    print(f"{len(found)} files, {len(different)} different; {len(issues)} errors of the validator")
    print(f"jobs of a rerun: {len(resubmitted)}")
    return {
        f"files differ: {different[:5]}": bool(different),
        f"the validator objects: {issues[:5]}": bool(issues),
        f"completed more than once: {twice}": bool(twice),
        "a rerun submitted jobs of participants": bool(resubmitted),
    }


def stop(*_: object) -> None:
    """End the program; the services are stopped, also if the signal comes once more, as it does from timeout(1)."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


def main() -> int:
    """Run the test in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--participants", type=int, default=24)
    parser.add_argument("--jobs", type=int, default=2, help="at a time; with 2, jobs get several participants")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1000), help="of the moments")
    parser.add_argument("--container", type=Path, help="image in which the app and the jobs run")
    parser.add_argument("--keep", type=Path, help="folder for all of it (default: a temporary one)")
    options = parser.parse_args()
    if importlib.util.find_spec("snakemake") is None:
        parser.error("Snakemake is not installed; pip install '.[cluster]'")
    print(f"seed {options.seed}")
    signal.signal(signal.SIGTERM, stop)
    try:
        install()
        with tempfile.TemporaryDirectory(prefix="cluster-test-") as temporary:
            folder = options.keep or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            wrong = run(folder, options)
    except SlurmUnavailableError as error:
        print(f"cluster-test: skipped, {error}")
        return 0
    for text in wrong:
        print(f"cluster-test: {text}", file=sys.stderr)
    print("cluster-test: " + ("failed" if wrong else "passed"))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
