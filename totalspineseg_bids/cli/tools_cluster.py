"""``totalspineseg-tools snakefile|run-job``."""

from __future__ import annotations

import sys
from pathlib import Path

from totalspineseg_bids.cli.tools_common import Subparsers, add_subcommand, positive, say


def add_subcommands(subparsers: Subparsers) -> None:
    """Add the subcommands that run the BIDS App as jobs of Snakemake."""
    add_subcommand(subparsers, "snakefile", _snakefile, "print the path of the Snakefile that --executor uses")
    job = add_subcommand(
        subparsers, "run-job", _run_job, "process the images of one job of a submission, as the Snakefile does"
    )
    job.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the submission, with its plan.json")
    job.add_argument("name", metavar="JOB", help="name of the job in the plan, or 'group'")
    job.add_argument("--n-cpus", type=positive, metavar="N", help="number of CPU cores (default: that of the plan)")


def _snakefile() -> None:
    from totalspineseg_bids.cluster.submit import SNAKEFILE

    say(str(SNAKEFILE))


def _run_job(folder: Path, name: str, n_cpus: int | None) -> int:
    from totalspineseg_bids.cluster.job import run_job

    return run_job(folder, name, n_cpus, sys.argv)
