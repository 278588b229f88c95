"""``totalspineseg-tools reproduce``, ``snakefile`` and ``run-job``: runs of the BIDS App, repeated or as jobs."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from totalspineseg_bids.cli.tools_common import Subparsers, add_subcommand, positive, say
from totalspineseg_bids.errors import SpineAppError


def add_subcommands(subparsers: Subparsers) -> None:
    """Add the subcommands."""
    parser = add_subcommand(
        subparsers,
        "reproduce",
        _reproduce,
        "repeat a recorded run of the BIDS App and compare its results byte for byte",
        "Versions, model and inputs are checked first; the run is repeated only where the inputs, the settings and the "
        "model are those of the recorded results. The exit code is 0 if all files are identical.",
    )
    parser.add_argument("record", type=Path, metavar="RECORD", help="OUTPUT_DIR/logs/run-*.toml of the run")
    parser.add_argument("--bids-dir", type=Path, metavar="DIR", help="the dataset, if it has moved")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="keep the new results there (default: a temporary folder)"
    )
    add_subcommand(subparsers, "snakefile", _snakefile, "print the path of the Snakefile that --executor uses")
    job = add_subcommand(
        subparsers, "run-job", _run_job, "process the images of one job of a submission, as the Snakefile does"
    )
    job.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the submission, with its plan.json")
    job.add_argument("name", metavar="JOB", help="name of the job in the plan, or 'group'")
    job.add_argument("--n-cpus", type=positive, metavar="N", help="number of CPU cores (default: that of the plan)")


def _reproduce(record: Path, bids_dir: Path | None, output: Path | None) -> None:
    from totalspineseg_bids.app.reproduce import reproduce

    with tempfile.TemporaryDirectory(prefix="totalspineseg-") as temporary:
        result = reproduce(record, output or Path(temporary), bids_dir=bids_dir)
    for line in result.lines():
        say(line)
    if not result.identical:
        msg = f"{record}: not reproduced, see the lines above"
        raise SpineAppError(msg)


def _snakefile() -> None:
    from totalspineseg_bids.cluster.submit import SNAKEFILE

    say(str(SNAKEFILE))


def _run_job(folder: Path, name: str, n_cpus: int | None) -> int:
    from totalspineseg_bids.cluster.job import run_job

    return run_job(folder, name, n_cpus, sys.argv)
