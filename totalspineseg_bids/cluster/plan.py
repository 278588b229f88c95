"""Plan of a submission: its jobs and their resources, in a file that the Snakefile and the jobs read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.imaging.atomic import write_text

#: File of the plan in the folder of a submission.
PLAN = "plan.json"
#: Name of the job that runs the group level.
GROUP = "group"


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of a job.

    Examples
    --------
    >>> Resources(mem_mb=4000, minutes=20, threads=4).of_attempt(2)
    Resources(mem_mb=8000, minutes=40, threads=4, gpus=0, fixed=())
    """

    mem_mb: int
    """Memory, MB."""
    minutes: int
    """Time limit."""
    threads: int
    """CPU cores."""
    gpus: int = 0
    """GPUs."""
    fixed: tuple[str, ...] = ()
    """Names of those that the user has set, which stay the same in all attempts."""

    def of_attempt(self, attempt: int) -> Resources:
        """Return the resources of an attempt, counted from 1: memory and time are doubled from one to the next."""
        factor = 2 ** (attempt - 1)
        more = {name: getattr(self, name) * factor for name in ("mem_mb", "minutes") if name not in self.fixed}
        return dataclasses.replace(self, **more)


@dataclass(frozen=True, slots=True)
class Job:
    """One job: images that are processed one after the other by one process."""

    images: tuple[str, ...]
    """Images, as paths below the dataset."""
    resources: Resources
    """Resources of the first attempt."""


@dataclass(frozen=True, slots=True)
class JobPlan:
    """All jobs of a submission."""

    settings: Mapping[str, Any]
    """Settings of the jobs, as :class:`~totalspineseg_bids.config.RunConfig` reads them."""
    program: str
    """Command that runs ``totalspineseg-tools`` in a job, quoted for the shell."""
    container: str | None
    """Image in which Snakemake runs the jobs."""
    jobs: Mapping[str, Job]
    """Jobs by name."""
    sources: Mapping[str, tuple[str, ...]]
    """All selected images of the participants of the jobs, by label: the levels of a session are found together."""
    group: Resources
    """Resources of the group level."""
    expected: Mapping[str, Any]
    """Entries of the sidecar of an image that is complete."""

    def config(self) -> RunConfig:
        """Return the settings of the jobs."""
        return RunConfig.from_mapping(self.settings)

    def write(self, folder: Path) -> None:
        """Write the plan into the folder of its submission."""
        write_text(folder / PLAN, json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> JobPlan:
        """Read the plan in the folder of a submission.

        Raises
        ------
        MissingInputError
            If there is none.
        """
        try:
            content = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            msg = f"{folder / PLAN}: cannot be read ({error}); give the folder of a submission"
            raise MissingInputError(msg) from error
        jobs = {
            name: Job(tuple(job["images"]), _resources(job["resources"])) for name, job in content.pop("jobs").items()
        }
        sources = {label: tuple(images) for label, images in content.pop("sources").items()}
        return cls(jobs=jobs, sources=sources, group=_resources(content.pop("group")), **content)


def _resources(content: dict[str, Any]) -> Resources:
    return Resources(**{**content, "fixed": tuple(content["fixed"])})
