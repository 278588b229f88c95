"""Participant level: process the selected images one after the other, independently of each other."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from totalspineseg_bids.app import image as images
from totalspineseg_bids.app.corrections import CorrectionFiles
from totalspineseg_bids.app.crash import (
    Failure,
    attempt,
    clear_crash,
    clear_mark,
    describe_failure,
    was_killed,
    write_crash,
)
from totalspineseg_bids.app.fetch import check_datalad, fetch_content, report_absent_content
from totalspineseg_bids.app.parallel import number_of_jobs, share_of_resources, worker_pool
from totalspineseg_bids.app.reports import read_images, write_participant_report
from totalspineseg_bids.app.segmenter import LoadedSegmenter, SegmenterFactory, load_segmenter
from totalspineseg_bids.app.selection import make_selection
from totalspineseg_bids.bids.description import write_citation, write_root_files
from totalspineseg_bids.bids.names import LOGS, DerivativeNames, SourceImage
from totalspineseg_bids.bids.publish import clean_root, output_files
from totalspineseg_bids.bids.query import find_images
from totalspineseg_bids.bids.sidecar import format_json
from totalspineseg_bids.bids.validate import check_dataset
from totalspineseg_bids.config import RunConfig, localizer_terms
from totalspineseg_bids.errors import (
    ExitCode,
    ImageError,
    InterruptedRunError,
    ModelError,
    NothingSelectedError,
    OutputError,
    SpineAppError,
    UsageError,
    writing,
)
from totalspineseg_bids.files import read_json, sha256_of
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.imaging.checks import is_fetched

logger = logging.getLogger(__name__)

#: Errors of the output folder that would affect all further images.
_FATAL_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


#: All images of a participant and those to process.
Group = tuple[list[SourceImage], list[SourceImage]]
_POOL_BROKE = (
    "a process was killed, often for lack of memory; what is complete is kept, run the same command again with fewer "
    "--jobs"
)


class DiskError(OutputError):
    """Error in writing that ends the run."""

    exit_code = ExitCode.IO_ERROR


@dataclass
class Tally:
    """Outcomes of the images of a run."""

    done: list[SourceImage] = field(default_factory=list)
    skipped: list[SourceImage] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    report_failures: dict[str, Exception] = field(default_factory=dict)
    """Error by participant."""

    def summary(self) -> str:
        """Summarize the run in one line."""
        return f"{len(self.done)} done, {len(self.skipped)} complete before, {len(self.failures)} failed"

    def add(self, other: Tally) -> None:
        """Add the outcomes of other images."""
        self.done += other.done
        self.skipped += other.skipped
        self.failures += other.failures
        self.report_failures |= other.report_failures

    def exit_code(self) -> int:
        """Return 0, the code that all failures share, or 1."""
        codes = {failure.exit_code for failure in self.failures}
        codes |= {int(getattr(error, "exit_code", ExitCode.UNSPECIFIED)) for error in self.report_failures.values()}
        if not codes:
            return int(ExitCode.SUCCESS)
        return codes.pop() if len(codes) == 1 else int(ExitCode.UNSPECIFIED)

    def summary_line(self) -> str | None:
        """Return the reason why the run did not fully succeed; ``None`` if it did."""
        if self.failures:
            total = len(self.done) + len(self.skipped) + len(self.failures)
            first = self.failures[0]
            return f"{len(self.failures)} of {total} images failed, the first: {first.reason}"
        if self.report_failures:
            participants, error = ", ".join(self.report_failures), next(iter(self.report_failures.values()))
            return f"the report of {participants} could not be written: {error}"
        return None


@dataclass(frozen=True, slots=True)
class Assignment:
    """Images of a run that is one job of many, as found by the process that submitted it."""

    images: frozenset[str]
    """Images to process, as paths below the dataset."""
    sources: tuple[SourceImage, ...]
    """All selected images of their participants, sorted by path."""


def select_images(config: RunConfig) -> list[SourceImage]:
    """Find the selected images and validate the dataset.

    Raises
    ------
    SpineAppError
        If the dataset is invalid or nothing is selected.
    """
    sources = find_images(config.bids_dir, make_selection(config), database=config.bids_database_dir)
    if not config.datalad_get:
        report_absent_content(sources)
    if not config.skip_bids_validation:
        whole = not config.participant_label and not config.exclude_participant_label
        check_dataset(config.bids_dir, sources, whole=whole, strict=config.strict_validation)
    logger.info("%d images of %d participants", len(sources), len({s.participant for s in sources}))
    return sources


def run_participants(
    config: RunConfig, factory: SegmenterFactory = load_segmenter, assignment: Assignment | None = None
) -> Tally:
    """Run the participant level.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    factory : SegmenterFactory
        Creates the segmenter; called once, after the query and before the first image.
    assignment : Assignment, optional
        Images to process; by default the dataset is searched for them and validated.

    Returns
    -------
    Tally
        Outcome of each image.

    Raises
    ------
    SpineAppError
        If the whole run fails: invalid dataset, nothing selected, no model, output not writable.
    """
    if config.reports_only:
        return rebuild_reports(config)
    if config.datalad_get:
        check_datalad()
    sources = list(assignment.sources) if assignment else select_images(config)
    loaded = factory(config)
    logger.info("model %s (%s)%s", loaded.model, loaded.digest[:12], ", for trying out only" if loaded.bundled else "")
    run = _Run(config, loaded, sources, assignment.images if assignment else None, factory)
    if config.dry_run:
        run.list_work()
        return run.tally
    prepare_output(config, clean=assignment is None)
    try:
        write_citation(config.output_dir / LOGS, loaded.model)
    except OSError as error:
        logger.warning("%s: the text for a methods section could not be written (%s)", config.output_dir / LOGS, error)
    run.go()
    return run.tally


def plan_jobs(config: RunConfig, loaded: LoadedSegmenter, sources: Sequence[SourceImage]) -> Iterator[images.ImageJob]:
    """Yield the job of each image in the order of a run, with its localizer and companions.

    Raises
    ------
    SpineAppError
        If an input file cannot be read.
    """
    run = _Run(config, loaded, sources)
    for participant in _by_participant(sources):
        for source, localizer in run.in_order(participant):
            yield run.plan(source, localizer, participant)


def rebuild_reports(config: RunConfig) -> Tally:
    """Write the reports again from the derivatives on disk.

    Raises
    ------
    NothingSelectedError
        If there is nothing to report on.
    MissingInputError
        If the content of a result was not fetched.
    """
    found = {image.source.participant for image in read_images(config.output_dir, config.participant_label)}
    labels = sorted(found - set(config.exclude_participant_label))
    if not labels:
        msg = (
            f"{config.output_dir}: holds no derivatives of the participants asked for; run the participant level first"
        )
        raise NothingSelectedError(msg)
    tally = Tally()
    for label in labels:
        _report(config, label, tally)
    return tally


def prepare_output(config: RunConfig, *, clean: bool = True) -> None:
    """Write the files at the root of the output, which do not depend on the run.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    clean : bool
        Whether to search for partly written files of killed runs and remove them.

    Raises
    ------
    OutputError
        If they cannot be written.
    """
    with writing(config.output_dir, "give another output folder or free its disk"):
        config.output_dir.mkdir(parents=True, exist_ok=True)
        if clean:
            clean_root(config.output_dir)
        write_root_files(config.bids_dir, config.output_dir, config.label_scheme, config.export)


def _raise_if_fatal(config: RunConfig, error: OSError) -> None:
    if error.errno in _FATAL_ERRNO:
        problem = os.strerror(error.errno or 0)
        msg = f"{config.output_dir}: cannot be written ({problem}); free disk space and run it again"
        raise DiskError(msg) from error


def _report(config: RunConfig, participant: str, tally: Tally) -> None:
    try:
        write_participant_report(config.output_dir, participant, self_contained=config.self_contained)
    except Exception as error:  # noqa: BLE001 - the derivatives are complete, and other participants follow
        if isinstance(error, OSError):
            _raise_if_fatal(config, error)
        log = logger.error if isinstance(error, SpineAppError) else logger.exception
        log("the report of sub-%s could not be written: %s", participant, error)
        tally.report_failures[f"sub-{participant}"] = error


def write_manifest(path: Path, output: Path, resolution: str | None, tally: Tally) -> None:
    """Write the images of a participant-level run with their output files as JSON.

    Files that this run wrote have their SHA-256; those that were complete before are listed without.

    Parameters
    ----------
    path : Path
        JSON file.
    output : Path
        Output folder.
    resolution : str or None
        ``res-`` entity of the label image whose sidecar marks an image as complete.
    tally : Tally
        Outcomes of the run.

    Raises
    ------
    OSError
        If the manifest cannot be written.
    """
    images = [
        *(_manifest_entry(source, "done", output, resolution, digests=True) for source in tally.done),
        *(_manifest_entry(source, "complete before", output, resolution, digests=False) for source in tally.skipped),
        *({"Source": f.source.uri, "State": "failed", "Reason": f.reason, "Outputs": []} for f in tally.failures),
    ]
    content = {"Summary": tally.summary(), "Images": sorted(images, key=lambda image: str(image["Source"]))}
    write_text(path, format_json(content))


def _manifest_entry(
    source: SourceImage, state: str, output: Path, resolution: str | None, *, digests: bool
) -> dict[str, Any]:
    main = DerivativeNames.of(source).labels(".json", resolution)
    sidecar = read_json(output / main) or {}
    files: list[dict[str, Any]] = []
    for name in (*output_files(sidecar), main):
        file = output / name
        if file.is_file():
            files.append(
                {"Path": name, "Bytes": file.stat().st_size} | ({"SHA256": sha256_of(file)} if digests else {})
            )
    return {"Source": source.uri, "State": state, "Status": sidecar.get("Status"), "Outputs": files}


#: The run of a process of the pool.
_worker: list[_Run] = []


def _start_worker(config: RunConfig, factory: SegmenterFactory, sources: Sequence[SourceImage]) -> None:
    _worker.append(_Run(config, factory(config), sources))


def _work(sources: Sequence[SourceImage], chosen: Sequence[SourceImage]) -> Tally:
    (run,) = _worker
    run.tally = Tally()
    with tqdm(disable=True) as bar:
        run.process(sources, chosen, bar)
    return run.tally


class _Run:
    """State of one run: its images and their outcomes."""

    def __init__(
        self,
        config: RunConfig,
        loaded: LoadedSegmenter,
        sources: Sequence[SourceImage],
        wanted: frozenset[str] | None = None,
        factory: SegmenterFactory = load_segmenter,
    ) -> None:
        self.config = config
        self.factory = factory
        self.corrections = CorrectionFiles.read(config.corrections) if config.corrections else None
        if self.corrections is not None:
            self.corrections.check_images(sources, config.bids_dir)
        self.loaded = loaded
        self.sources = sources
        self.wanted = frozenset(source.relative for source in sources) if wanted is None else wanted
        self.tally = Tally()
        names = Counter(_target(source) for source in sources)
        self.ambiguous = {target for target, count in names.items() if count > 1}

    def go(self) -> None:
        """Process all images, participant by participant."""
        show = self.config.progress if self.config.progress is not None else sys.stderr.isatty()
        with tqdm(total=len(self.wanted), unit="image", disable=not show, file=sys.stderr) as bar:
            groups = self._schedule() if self.config.jobs in {None, 1} else iter(self._go_parallel(bar))
            for sources, chosen in groups:
                stop = self.process(sources, chosen, bar)
                if stop:
                    break
        logger.info("%s", self.tally.summary())

    def process(self, sources: Sequence[SourceImage], chosen: Sequence[SourceImage], bar: tqdm[None]) -> bool:
        """Process some images of a participant and write the report; return whether the run must stop."""
        stop = self._participant(sources, chosen, bar)
        _report(self.config, sources[0].participant, self.tally)
        return stop

    def _go_parallel(self, bar: tqdm[None]) -> list[Group]:
        """Process participants at the same time where it is worth it, and return what is left to do in this process."""
        groups = list(self._schedule())
        # A participant comes again with the images at which a run was killed; these get all the memory.
        first = {sources[0].participant: place for place, (sources, _) in reversed(list(enumerate(groups)))}
        apart = [groups[place] for place in sorted(first.values()) if self._is_open(*groups[place])]
        jobs = number_of_jobs(self.config, [source for _, chosen in apart for source in chosen], len(apart))
        if jobs < 2:
            return groups
        logger.info("%d participants at the same time", jobs)
        state = share_of_resources(self.config, jobs), self.factory, self.sources
        with worker_pool(jobs, _start_worker, state) as pool:
            sizes = {pool.submit(_work, *group): len(group[1]) for group in apart}
            for future in sizes:
                future.add_done_callback(lambda done: bar.update(sizes[done]))
            for future in sizes:
                try:
                    self.tally.add(future.result())
                except BrokenProcessPool as error:
                    raise InterruptedRunError(_POOL_BROKE) from error
                if self.tally.failures and self.config.stop_on_first_crash:
                    logger.error("stopped at the first failure, as asked")
                    return []
        return [group for group in groups if group not in apart]

    def _is_open(self, sources: Sequence[SourceImage], chosen: Sequence[SourceImage]) -> bool:
        """Return whether some of the images of a participant are not complete."""
        pairs = [pair for pair in self.in_order(sources) if pair[0] in chosen]
        return any(self._state(source, localizer, sources) != "complete" for source, localizer in pairs)

    def _schedule(self) -> Iterator[Group]:
        """Yield all images of a participant and those to process; images at which a run was killed come last."""
        wanted = {source for source in self.sources if source.relative in self.wanted}
        killed = {source for source in wanted if was_killed(self.config.output_dir, source)}
        for last in (False, True):
            for sources in _by_participant(self.sources):
                if chosen := [source for source in sources if source in wanted and (source in killed) == last]:
                    yield sources, chosen

    def _participant(self, sources: Sequence[SourceImage], chosen: Sequence[SourceImage], bar: tqdm[None]) -> bool:
        """Process some images of a participant; return whether the run must stop."""
        if self.config.datalad_get:
            fetch_content(self.config.bids_dir, sources)
        for source, localizer in self.in_order(sources):
            if source not in chosen:
                continue
            bar.set_description_str(source.name)
            failed = self._image(source, localizer, sources, bar)
            bar.update()
            if failed and self.config.stop_on_first_crash:
                logger.error("stopped at the first failure, as asked")
                return True
        return False

    def _image(
        self, source: SourceImage, localizer: SourceImage | None, participant: Sequence[SourceImage], bar: tqdm[None]
    ) -> bool:
        def progress(stage: str, fraction: float) -> None:
            bar.set_postfix_str(f"{stage} {fraction:.0%}")

        try:
            job = self.plan(source, localizer, participant)
            if self._is_done(job):
                clear_crash(self.config.output_dir, source)
                clear_mark(self.config.output_dir, source)
                logger.info("%s: complete, skipped", source.name)
                self.tally.skipped.append(source)
                return False
            logger.info("%s: start", source.name)
            with attempt(self.config.output_dir, source):
                spine = images.process_image(job, self.config, self.loaded, progress)
        except (ModelError, UsageError):
            raise
        except OSError as error:
            _raise_if_fatal(self.config, error)
            return self._failed(source, error)
        except Exception as error:  # noqa: BLE001 - one image's failure never costs another
            return self._failed(source, error)
        logger.info("%s: %s%s", source.name, spine.status.value, f" ({spine.reason})" if spine.reason else "")
        self.tally.done.append(source)
        return False

    def _failed(self, source: SourceImage, error: Exception) -> bool:
        failure = describe_failure(source, error)
        self.tally.failures.append(failure)
        logger.error("%s", failure.reason)
        if not isinstance(error, SpineAppError):
            logger.debug("traceback", exc_info=error)
        try:
            path = write_crash(self.config.output_dir, failure, error)
            logger.info("recorded in %s", path)
        except OSError as problem:
            logger.error("the failure could not be recorded: %s", problem)  # noqa: TRY400 - without traceback
        return True

    def plan(
        self, source: SourceImage, localizer: SourceImage | None, participant: Iterable[SourceImage]
    ) -> images.ImageJob:
        """Return the job of an image among those of its participant."""
        target = _target(source)
        if target in self.ambiguous:
            twins = " and ".join(s.relative for s in self.sources if _target(s) == target)
            msg = f"{source.path}: {twins} would give the same output; remove one of them"
            raise ImageError(msg)
        session = [other for other in participant if other.session == source.session]
        return images.plan_image(source, self.config, self.loaded, localizer, session, corrections=self.corrections)

    def _is_done(self, job: images.ImageJob) -> bool:
        return not self.config.force and images.is_done(job, self.config)

    def in_order(self, sources: Sequence[SourceImage]) -> list[tuple[SourceImage, SourceImage | None]]:
        """Return the images of a participant with the localizer of each, localizers first."""
        if self.config.localizer is None:
            return [(source, None) for source in sources]
        terms = localizer_terms(self.config.localizer)
        localizers = [s for s in sources if all(s.value_of(name) == value for name, value in terms.items())]
        if not localizers:
            logger.warning("sub-%s: no image matches the localizer %s", sources[0].participant, self.config.localizer)
        others = [source for source in sources if source not in localizers]
        pairs: list[tuple[SourceImage, SourceImage | None]] = [(source, None) for source in localizers]
        return pairs + [(source, _nearest(source, localizers)) for source in others]

    def list_work(self) -> None:
        """List on standard output the images that would be processed."""
        for participant in _by_participant(self.sources):
            for source, localizer in self.in_order(participant):
                sys.stdout.write(f"{self._state(source, localizer, participant)}\t{source.relative}\n")

    def _state(self, source: SourceImage, localizer: SourceImage | None, participant: Sequence[SourceImage]) -> str:
        if self.config.datalad_get and not is_fetched(source.path):
            return "to do"
        try:
            return "complete" if self._is_done(self.plan(source, localizer, participant)) else "to do"
        except SpineAppError as error:
            logger.warning("%s", error)
            return "would fail"


def _target(source: SourceImage) -> str:
    return DerivativeNames.of(source).labels(".json")


def _by_participant(sources: Iterable[SourceImage]) -> Iterator[list[SourceImage]]:
    for _, group in itertools.groupby(sources, key=lambda source: source.participant):
        yield list(group)


def _nearest(source: SourceImage, localizers: Iterable[SourceImage]) -> SourceImage | None:
    """Return the localizer of the same session, else the first of the participant."""
    return min(localizers, key=lambda item: (item.session != source.session, item.relative), default=None)
