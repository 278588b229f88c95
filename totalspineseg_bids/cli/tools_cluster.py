"""``totalspineseg-tools snakefile|run-job``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from totalspineseg_bids.cli.tools_common import Subparsers, add_subcommand, positive, say
from totalspineseg_bids.errors import ExitCode


def add_subcommands(subparsers: Subparsers) -> None:
    """Add the subcommands that run the BIDS App as jobs of Snakemake."""
    add_subcommand(subparsers, "snakefile", _snakefile, "print the path of the Snakefile that --executor uses")
    job = add_subcommand(
        subparsers, "run-job", _run_job, "process the images of one job of a submission, as the Snakefile does"
    )
    job.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the submission, with its plan.json")
    job.add_argument("name", metavar="JOB", help="name of the job in the plan, or 'group'")
    job.add_argument("--n-cpus", type=positive, metavar="N", help="number of CPU cores (default: that of the plan)")


def _snakefile(_options: argparse.Namespace) -> int:
    from totalspineseg_bids.cluster.submit import SNAKEFILE

    say(str(SNAKEFILE))
    return int(ExitCode.SUCCESS)


def _run_job(options: argparse.Namespace) -> int:
    from totalspineseg_bids.cluster.job import run_job

    return run_job(options.folder, options.name, options.n_cpus, sys.argv)
