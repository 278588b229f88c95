"""Work of one job of a submission."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from totalspineseg_bids.app.run import RunOutcome, execute, run_level
from totalspineseg_bids.app.segmenter import SegmenterFactory, load_segmenter
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.cluster.plan import GROUP, JobPlan
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import UsageError


def run_job(
    folder: Path,
    name: str,
    n_cpus: int | None = None,
    command: Sequence[str] = (),
    factory: SegmenterFactory = load_segmenter,
) -> int:
    """Process the images of a job and return the exit code of the run.

    The images come from the plan: neither the dataset nor the output folder is searched.

    Parameters
    ----------
    folder : Path
        Folder of the submission.
    name : str
        Name of the job, or ``group``.
    n_cpus : int, optional
        Number of CPU cores; by default that of the plan.
    command : sequence of str
        Command line, for the record of the group level.
    factory : SegmenterFactory
        Creates the segmenter.

    Raises
    ------
    SpineAppError
        If there is no such plan or job.
    """
    plan = JobPlan.read(folder)
    if name != GROUP and name not in plan.jobs:
        msg = f"{folder}: the plan has no job {name}"
        raise UsageError(msg)
    config = plan.config()
    resources = plan.group if name == GROUP else plan.jobs[name].resources
    config = dataclasses.replace(config, n_cpus=n_cpus or resources.threads)
    if name == GROUP:
        config = dataclasses.replace(config, analysis_level="group")
        return execute(config, command, lambda _: run_level(config, factory))
    return execute(config, command, lambda _: _process(plan, name, config, factory), log_to_file=False)


def _process(plan: JobPlan, name: str, config: RunConfig, factory: SegmenterFactory) -> RunOutcome:
    from totalspineseg_bids.app.participant import Assignment, run_participants  # noqa: PLC0415 - loads pyBIDS

    images = plan.jobs[name].images
    labels = {SourceImage(image, Path()).participant for image in images}
    sources = sorted(SourceImage(image, config.bids_dir / image) for label in labels for image in plan.sources[label])
    tally = run_participants(config, factory, Assignment(frozenset(images), tuple(sources)))
    return tally.exit_code(), tally.summary_line()
