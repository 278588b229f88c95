"""Make the plan of a submission: the images whose results are not complete, in jobs."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from totalspineseg_bids.app.corrections import CorrectionFiles
from totalspineseg_bids.app.participant import select_images
from totalspineseg_bids.app.segmenter import SegmenterFactory, load_segmenter
from totalspineseg_bids.bids.names import DerivativeNames, SourceImage
from totalspineseg_bids.bids.publish import looks_complete
from totalspineseg_bids.cluster import resources
from totalspineseg_bids.cluster.containers import program_in, uses_apptainer
from totalspineseg_bids.cluster.plan import Job, JobPlan
from totalspineseg_bids.config import SETTINGS, RunConfig, SettingGroup
from totalspineseg_bids.imaging.memory import MemoryNeed
from totalspineseg_bids.inference.resources import available_cpus


def make_plan(config: RunConfig, factory: SegmenterFactory = load_segmenter) -> JobPlan:
    """Plan the jobs of a dataset.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    factory : SegmenterFactory
        Reports the digest of the model; the networks are not loaded.

    Raises
    ------
    SpineAppError
        If the dataset is invalid, nothing is selected, or the model is missing.
    """
    sources = select_images(config)
    expected = _expected_entries(config, factory)
    left = sources if config.force else find_incomplete(config, sources, expected)
    shares: dict[str, list[SourceImage]] = defaultdict(list)
    for source in left:
        shares[share_name(source, config.per)].append(source)
    labels = {source.participant for source in left}
    return JobPlan(
        settings=_job_settings(config),
        program=program_in(config),
        container=config.container if uses_apptainer(config) else None,
        jobs=dict(_jobs(shares, sources, config)),
        sources={label: images for label, images in _by_participant(sources).items() if label in labels},
        group=resources.GROUP_RESOURCES,
        expected=expected,
    )


def _expected_entries(config: RunConfig, factory: SegmenterFactory) -> dict[str, Any]:
    """Return the entries of the sidecar of an image that was made with these settings and this model."""
    if config.container is not None:
        # The weights are in the image; the jobs compare their digest.
        return {"Digests": {"Configuration": config.digest}, "Model": {"Name": config.model}}
    return {"Digests": {"Configuration": config.digest, "Model": factory(config).digest}}


def find_incomplete(
    config: RunConfig, sources: Sequence[SourceImage], expected: Mapping[str, Any], since: float = 0.0
) -> list[SourceImage]:
    """Return the images whose results are not complete, or are older than the images of their session.

    Images are not read. A job compares the digests and does nothing if only the time of an image has changed.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    sources : sequence of SourceImage
        Images, with all selected ones of their sessions.
    expected : mapping of str to object
        Entries of the sidecar of a complete image, from the plan.
    since : float
        Results must not be older than this, in seconds since the epoch.

    Raises
    ------
    SpineAppError
        If the corrections are invalid.
    """
    corrections = CorrectionFiles.read(config.corrections) if config.corrections else None
    if corrections is not None:
        corrections.check_images(sources, config.bids_dir)

    def expected_of(source: SourceImage) -> dict[str, Any]:
        digests = {**expected.get("Digests", {}), "Exports": " ".join(config.export) or None}
        if corrections is not None:  # otherwise former ones are kept
            digests["Corrections"] = corrections.of(source.name).digest or None
        return {**expected, "Digests": digests}

    changed: dict[tuple[str, str], float] = defaultdict(lambda: since)
    for source in sources:
        session = (source.participant, source.session)
        changed[session] = max(changed[session], _last_change(source.path))
    return [
        source
        for source in sources
        if not looks_complete(
            config.output_dir,
            DerivativeNames.of(source),
            config.resolutions[-1],
            expected_of(source),
            changed[source.participant, source.session],
        )
    ]


def _last_change(path: Path) -> float:
    with suppress(OSError):
        status = path.stat()
        # The change of the inode too: a file that replaces another one often keeps its old time of modification.
        return max(status.st_mtime, status.st_ctime)
    return 0.0


def share_name(source: SourceImage, per: str) -> str:
    """Return the name of the part of the dataset that an image belongs to.

    Examples
    --------
    >>> image = SourceImage("sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz", Path())
    >>> [share_name(image, per) for per in ("participant", "session", "image")]
    ['sub-01', 'sub-01_ses-a', 'sub-01_ses-a_T2w']
    """
    if per == "image":
        return source.name
    session = f"_ses-{source.session}" if per == "session" and source.session else ""
    return f"sub-{source.participant}{session}"


def _by_participant(sources: Iterable[SourceImage]) -> dict[str, tuple[str, ...]]:
    images: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        images[source.participant].append(source.relative)
    return {label: tuple(names) for label, names in images.items()}


def _jobs(
    shares: Mapping[str, Sequence[SourceImage]], sources: Sequence[SourceImage], config: RunConfig
) -> Iterator[tuple[str, Job]]:
    """Yield the jobs by name: one part of the dataset, or several one after the other."""
    weights = resources.weights_mb(config)
    cores = max(1, available_cpus() // (config.job_limit or 1)) if config.executor == "local" else None
    sessions: dict[tuple[str, str], list[SourceImage]] = defaultdict(list)
    for source in sources:
        sessions[source.participant, source.session].append(source)
    # A batch ends where its estimate passes the time limit.
    limit, untimed = config.time or resources.BATCH_MINUTES, dataclasses.replace(config, time=None)
    most = _largest_batch(len(shares), config)
    names: list[str] = []
    needs: list[MemoryNeed] = []

    def job() -> tuple[str, Job]:
        name = names[0] if len(names) == 1 else f"{names[0]}_and-{len(names) - 1}-more"
        images = tuple(source.relative for share in names for source in shares[share])
        return name, Job(images, resources.estimate(needs, weights, config, cores))

    for share, images in shares.items():
        # The networks also run on the images of the session that are labelled together with these.
        read = dict.fromkeys(s for image in images for s in sessions[image.participant, image.session])
        new = [resources.memory_need(source.path) for source in (read if config.joint_session else images)]
        minutes = resources.estimate([*needs, *new], weights, untimed, cores).minutes
        if len(names) >= most or (names and config.batch_size is None and minutes > limit):
            yield job()
            names, needs = [], []
        names.append(share)
        needs += new
    if names:
        yield job()


def _largest_batch(shares: int, config: RunConfig) -> int:
    """Return the most parts of a job: start-up is shared, but jobs that could run at the same time are not merged."""
    if config.batch_size is not None:
        return config.batch_size
    if config.gpus or config.device.startswith("cuda"):
        return shares
    at_a_time = config.job_limit or (1 if config.executor == "local" else shares)
    return max(1, shares // (resources.JOBS_IN_TURN * at_a_time))


def _job_settings(config: RunConfig) -> dict[str, Any]:
    """Return the settings of the jobs: those of the run, without those of the submission."""
    chosen: dict[str, Any] = {"progress": False}
    for name, setting in SETTINGS.items():
        value = getattr(config, name)
        # A job processes its images one after the other; `jobs` is the number of jobs.
        if name == "jobs" or setting.group is SettingGroup.CLUSTER or value in (None, setting.default):
            continue
        chosen[name] = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    if os.sep in config.model or Path(config.model).exists():
        # Jobs run in another folder.
        chosen["model"] = str(Path(config.model).expanduser().absolute())
    return chosen
