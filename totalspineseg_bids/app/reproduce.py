"""Repeat a recorded run and compare its derivatives byte for byte."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from totalspineseg_bids.app.participant import plan_jobs, run_participants
from totalspineseg_bids.app.segmenter import LoadedSegmenter, SegmenterFactory, load_segmenter
from totalspineseg_bids.app.selection import make_selection
from totalspineseg_bids.bids.publish import output_files
from totalspineseg_bids.bids.query import find_images
from totalspineseg_bids.bids.sidecar import read_software_versions
from totalspineseg_bids.config import RunConfig, read_run_record
from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.files import read_json

logger = logging.getLogger(__name__)


@dataclass
class Reproduction:
    """Result of repeating a run."""

    versions: list[str] = field(default_factory=list)
    """Packages whose version differs from the recorded one."""
    digests: list[str] = field(default_factory=list)
    """Images whose input, settings or model differ from those of the recorded result; nothing is run then."""
    files: list[str] = field(default_factory=list)
    """Files whose bytes differ or that only one of the runs wrote."""
    compared: int = 0
    """Number of files compared."""

    @property
    def identical(self) -> bool:
        """True if files were compared and none differs."""
        return self.compared > 0 and not self.digests and not self.files

    def lines(self) -> Iterator[str]:
        """Describe the differences and the result, one line each."""
        yield from (f"version differs: {line}" for line in self.versions)
        yield from (f"cannot be reproduced: {line}" for line in self.digests)
        yield from (f"file differs: {line}" for line in self.files)
        if not self.digests:
            same = self.compared - len(self.files)
            yield f"{same} of {self.compared} files identical"


def reproduce(
    record: Path, output: Path, *, bids_dir: Path | None = None, factory: SegmenterFactory = load_segmenter
) -> Reproduction:
    """Repeat a participant-level run in another folder and compare the results.

    The run is repeated only if the digests of all its images (input, settings, model) are those of the recorded
    results; otherwise the differences are returned.

    Parameters
    ----------
    record : Path
        ``logs/run-*.toml`` in the output folder of the run.
    output : Path
        Folder of the new results.
    bids_dir : Path, optional
        The dataset, if it has moved since.
    factory : SegmenterFactory
        Creates the segmenter.

    Raises
    ------
    MissingInputError
        If the record, the dataset or the recorded results are absent.
    UsageError
        If the record is not one of a participant-level run, or the output folder is the recorded one.
    """
    settings, software = read_run_record(record)
    former = record.absolute().parent.parent
    if settings.get("analysis_level", settings.get("level")) != "participant":
        msg = f"{record}: not the record of a participant-level run; give one of a run that segmented images"
        raise UsageError(msg)
    if output.absolute() == former:
        msg = f"{output}: holds the results to compare with; give another folder"
        raise UsageError(msg)
    settings |= {"output_dir": str(former), "dry_run": False, "reports_only": False, "bids_database_dir": None}
    if bids_dir is not None:
        settings["bids_dir"] = str(bids_dir)
    config = RunConfig.from_mapping(settings)
    loaded = factory(config)
    result = Reproduction(versions=_compare_versions(software))
    mains = _compare_digests(config, loaded, result)
    if result.digests:
        return result
    repeated = dataclasses.replace(config, output_dir=output)
    run_participants(repeated, lambda _: loaded)
    for main in mains:
        sidecar = read_json(former / main) or {}
        for name in (*output_files(sidecar), main):
            result.compared += 1
            if _bytes(former / name) != _bytes(output / name):
                result.files.append(name)
    return result


def _compare_versions(recorded: dict[str, str]) -> list[str]:
    present = read_software_versions()
    names = dict.fromkeys([*recorded, *present])
    return [
        f"{name} {recorded.get(name, 'absent')} in the record, {present.get(name, 'absent')} here"
        for name in names
        if recorded.get(name) != present.get(name)
    ]


def _compare_digests(config: RunConfig, loaded: LoadedSegmenter, result: Reproduction) -> list[str]:
    """Return the sidecars of the recorded results; those that the run cannot give again go into `result`."""
    sources = find_images(config.bids_dir, make_selection(config))
    mains = []
    for job in plan_jobs(config, loaded, sources):
        main = job.names.labels(".json", config.resolutions[-1])
        sidecar = read_json(config.output_dir / main)
        if sidecar is None:
            logger.warning("%s: has no result in %s, left out of the comparison", job.source.name, config.output_dir)
            continue
        mains.append(main)
        recorded, present = sidecar.get("Digests") or {}, job.digests.as_dict()
        differing = [name.lower() for name in present if recorded.get(name) != present[name]]
        if differing:
            result.digests.append(f"{job.source.relative}: other {' and '.join(differing)} than recorded")
    if not mains:
        msg = f"{config.output_dir}: holds no results of the recorded run"
        raise MissingInputError(msg)
    return mains


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
