"""Log of a run: a file in ``logs/``, and the main messages on standard error."""

from __future__ import annotations

import datetime
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from totalspineseg_bids import __version__
from totalspineseg_bids.bids.names import LOGS
from totalspineseg_bids.bids.sidecar import read_software_versions
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import writing
from totalspineseg_bids.imaging.atomic import host_name, write_text

#: Attribute of records that are not written to standard error, where the last line has the same content.
FILE_ONLY = "file_only"
_PACKAGE = "totalspineseg_bids"
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


class BarHandler(logging.Handler):
    """Handler that writes records to standard error without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless it is meant for the file only."""
        if getattr(record, FILE_ONLY, False):
            return
        try:
            # Names of files that the locale cannot decode are written as escapes, whatever the stream accepts.
            text = self.format(record).encode("utf-8", "backslashreplace").decode("utf-8")
            tqdm.write(text, file=sys.stderr)
        except (OSError, ValueError):
            self.handleError(record)


class LogFile(logging.FileHandler):
    """Log file that drops its lines if the disk is full; the run itself reports that error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Ignore errors of the disk; report all others."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file; buffered lines are lost if the disk is full."""
        with suppress(OSError):
            super().close()


def run_name(now: datetime.datetime) -> str:
    """Return a unique name for the files of a run, made of time, machine and process."""
    return f"run-{now:%Y%m%dT%H%M%S}-{host_name()}-{os.getpid()}"


def _file_handler(path: Path) -> logging.Handler:
    handler = LogFile(path, encoding="utf-8", errors="surrogateescape")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


@contextmanager
def run_log(config: RunConfig, command: list[str], *, to_file: bool = True) -> Iterator[Path | None]:
    """Log to standard error and a file during a run, and record its settings.

    A dry run writes no file.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    command : list of str
        Command line, which is recorded.
    to_file : bool
        Whether to write files; a job's standard error is written to a file by who starts it.

    Yields
    ------
    Path or None
        The log file.

    Raises
    ------
    OutputError
        If the log cannot be written.
    """
    root = logging.getLogger(_PACKAGE)
    former = root.level, root.propagate
    console = BarHandler(_LEVELS[max(0, min(config.verbose, 2))])
    console.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handlers: list[logging.Handler] = [console]
    path: Path | None = None
    # Levels that only read results do not create a missing output folder.
    reads_only = config.analysis_level == "group" or config.reports_only
    if to_file and not config.dry_run and (config.output_dir.is_dir() or not reads_only):
        path = _start_record(config, command)
        handlers.append(_file_handler(path))
    root.setLevel(logging.DEBUG if config.verbose > 1 else logging.INFO)
    root.propagate = False
    for handler in handlers:
        root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            # Deprecation warnings of libraries do not concern users of the program.
            warnings.simplefilter("ignore")
            yield path
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(former[0])
        root.propagate = former[1]


def _start_record(config: RunConfig, command: list[str]) -> Path:
    now = datetime.datetime.now(datetime.timezone.utc).astimezone()
    folder = config.output_dir / LOGS
    path = folder / f"{run_name(now)}.log"
    record = {
        "version": __version__,
        "started": now.isoformat(timespec="seconds"),
        "command": " ".join(command),
        "software": ", ".join(f"{name} {version}" for name, version in read_software_versions().items()),
    }
    with writing(config.output_dir, "give another output folder or free its disk"):
        write_text(path.with_suffix(".toml"), config.to_toml(record))
        path.touch()
    return path
