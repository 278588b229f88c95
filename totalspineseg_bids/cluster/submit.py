"""Run the participants of a dataset as jobs of Snakemake."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from totalspineseg_bids.app.crash import read_crashes
from totalspineseg_bids.app.participant import prepare_output
from totalspineseg_bids.app.run import RunOutcome, execute
from totalspineseg_bids.app.segmenter import SegmenterFactory, load_segmenter
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.cluster.containers import apptainer_options
from totalspineseg_bids.cluster.plan import GROUP, PLAN, JobPlan
from totalspineseg_bids.cluster.planning import find_incomplete, make_plan
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import ExitCode, MissingInputError, UsageError

logger = logging.getLogger(__name__)

SNAKEFILE = Path(__file__).parent / "workflow" / "Snakefile"
#: Number of times that a failed job is repeated, unless a profile says it.
RETRIES = 2
#: Failed participants that the last line names.
_NAMED = 5


def submit(config: RunConfig, command: Sequence[str] = (), factory: SegmenterFactory = load_segmenter) -> int:
    """Run the participant level as jobs and return the exit code; the last line on standard error describes a failure.

    Parameters
    ----------
    config : RunConfig
        Settings of the run, with an executor.
    command : sequence of str
        Command line, recorded in ``logs/``.
    factory : SegmenterFactory
        Reports the digest of the model.
    """
    return execute(config, command, lambda log: _submit(config, factory, log))


def _submit(config: RunConfig, factory: SegmenterFactory, log: Path | None) -> RunOutcome:
    if config.executor != "local" and config.job_limit is None and config.profile is None:
        msg = f"--executor {config.executor} needs --jobs N, or a --profile that limits the number of jobs"
        raise UsageError(msg)
    plan = make_plan(config, factory)
    if config.dry_run or log is None:
        sys.stdout.writelines(f"{line}\n" for line in plan_table(plan))
        return int(ExitCode.SUCCESS), None
    if not plan.jobs:
        logger.info("all images are complete")
    if not (plan.jobs or config.then_group):
        return int(ExitCode.SUCCESS), None
    require_snakemake()
    if config.container is None:  # otherwise the jobs do it, so that the description names the container
        prepare_output(config)
    return Submission(config, plan, log.with_suffix("")).go()


def plan_table(plan: JobPlan) -> Iterable[str]:
    """Yield the lines of a table of the jobs: name, resources and number of images."""
    yield "job\timages\tmem_mb\tminutes\tcores\tgpus"
    for name, job in plan.jobs.items():
        resources = job.resources
        numbers = (len(job.images), resources.mem_mb, resources.minutes, resources.threads, resources.gpus)
        yield "\t".join((name, *map(str, numbers)))


def require_snakemake() -> None:
    """Raise an error if Snakemake is not installed.

    Raises
    ------
    MissingInputError
        If it is not installed.
    """
    if importlib.util.find_spec("snakemake") is None:
        msg = "Snakemake is not installed; pip install 'totalspineseg-bids[cluster]', or leave out --executor"
        raise MissingInputError(msg)


@dataclass(frozen=True, slots=True)
class Submission:
    """Jobs that are handed to Snakemake."""

    config: RunConfig
    """Settings of the run."""
    plan: JobPlan
    """Jobs."""
    folder: Path
    """Folder in which Snakemake works and the jobs write their logs; it does not exist yet."""

    def go(self) -> RunOutcome:
        """Run all jobs, and the group level if asked, and return the outcome."""
        self.folder.mkdir()
        self.plan.write(self.folder)
        code, reason = self._participants() if self.plan.jobs else (int(ExitCode.SUCCESS), None)
        if self.config.then_group and self._snakemake(GROUP) != 0:
            failure = f"the group level failed, see {self.folder / 'group.log'}"
            return code or int(ExitCode.UNSPECIFIED), "; ".join(filter(None, (reason, failure)))
        return code, reason

    def command(self, target: str) -> list[str]:
        """Return the command line of Snakemake for a rule and what it needs."""
        config = self.config
        command = [sys.executable, "-m", "snakemake", target, "--snakefile", str(SNAKEFILE)]
        command += ["--directory", str(self.folder), "--executor", str(config.executor)]
        if config.executor == "local":
            threads = max([job.resources.threads for job in self.plan.jobs.values()], default=1)
            command += ["--cores", str(threads * (config.job_limit or 1))]
        elif config.job_limit is not None:
            command += ["--jobs", str(config.job_limit)]
        command += ["--profile", str(config.profile)] if config.profile else ["--retries", str(RETRIES)]
        if self.plan.container is not None:
            command += ["--software-deployment-method", "apptainer", "--apptainer-args", apptainer_options(config)]
        if not config.stop_on_first_crash:
            command.append("--keep-going")
        # A folder is used once, and its jobs do not depend on each other.
        return [*command, "--nolock", "--scheduler", "greedy", "--rerun-triggers", "mtime", "--quiet", "rules", "host"]

    def _snakemake(self, target: str) -> int:
        """Run Snakemake and return its exit code; an interruption is passed on, and Snakemake cancels its jobs."""
        process = subprocess.Popen(self.command(target))
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise

    def _participants(self) -> RunOutcome:
        """Run the jobs, and return the outcome by what is in the output folder, not by what the executor says."""
        config, plan = self.config, self.plan
        logger.info("%d jobs for %d participants, logs in %s", len(plan.jobs), len(plan.sources), self.folder)
        code = self._snakemake("all")
        sources = [SourceImage(name, config.bids_dir / name) for images in plan.sources.values() for name in images]
        # With --force, what is older than the plan by the clock of the file system was not processed.
        since = (self.folder / PLAN).stat().st_mtime if config.force else 0.0
        submitted = {image for job in plan.jobs.values() for image in job.images}
        incomplete = find_incomplete(config, sources, plan.expected, since)
        failed = [source for source in incomplete if source.relative in submitted]
        if failed:
            return self._failure(failed)
        if code:
            return int(ExitCode.UNSPECIFIED), f"all images are complete, but jobs failed, see the logs in {self.folder}"
        logger.info("%d participants done", len(plan.sources))
        return int(ExitCode.SUCCESS), None

    def _failure(self, failed: Sequence[SourceImage]) -> RunOutcome:
        crashes = read_crashes(self.config.output_dir)
        codes = {crashes[s.relative].exit_code if s.relative in crashes else ExitCode.UNSPECIFIED for s in failed}
        labels = sorted({f"sub-{source.participant}" for source in failed})
        named = ", ".join(labels[:_NAMED]) + (", ..." if len(labels) > _NAMED else "")
        return (
            int(codes.pop() if len(codes) == 1 else ExitCode.UNSPECIFIED),
            f"{len(labels)} of {len(self.plan.sources)} participants failed ({named}), their logs are in {self.folder}",
        )
