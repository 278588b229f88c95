"""Entry of the Snakefile, which is read again in every job, so that nothing heavy is imported then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from totalspineseg_bids.cluster.plan import JobPlan
from totalspineseg_bids.config import RunConfig


def open_plan(settings: Mapping[str, Any], folder: Path, *, new: bool) -> JobPlan:
    """Return the plan of a submission for the Snakefile.

    Parameters
    ----------
    settings : mapping of str to object
        Settings of a run, as given to Snakemake by ``--config``; without any, the plan is already in the folder.
    folder : Path
        Folder of the submission, in which Snakemake works.
    new : bool
        Whether to make the plan from the settings; false in the jobs, which read it.

    Raises
    ------
    SpineAppError
        If the dataset cannot be planned, or there is no plan.
    """
    if settings and new:
        from totalspineseg_bids.cluster.planning import make_plan  # noqa: PLC0415 - not needed by the jobs

        # The executor of Snakemake is not known here; this name stands for all of them.
        given = {"analysis_level": "participant", "executor": "any", "progress": False, **settings}
        make_plan(RunConfig.from_mapping(given)).write(folder)
    plan = JobPlan.read(folder)
    if new:
        # Sidecars decide what is complete, not the marks that an earlier call has left for Snakemake.
        for name in plan.jobs:
            (folder / f"{name}.done").unlink(missing_ok=True)
    return plan
