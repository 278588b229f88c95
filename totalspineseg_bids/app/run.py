"""Execute a run, from its settings to its exit code."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from totalspineseg_bids.app.interrupt import Interrupted, stop_on_signal
from totalspineseg_bids.app.runlog import FILE_ONLY, run_log
from totalspineseg_bids.app.segmenter import SegmenterFactory, load_segmenter
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import ExitCode, SpineAppError
from totalspineseg_bids.files import write_reason
from totalspineseg_bids.importing import modules_stay

logger = logging.getLogger(__name__)

PROGRAM = "totalspineseg-bids"


#: Exit code, and the reason of a failure.
RunOutcome = tuple[int, str | None]


def run(config: RunConfig, command: Sequence[str] = (), factory: SegmenterFactory = load_segmenter) -> int:
    """Run an analysis level and return the exit code; the last line on standard error describes a failure.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    command : sequence of str
        Command line, recorded in ``logs/``.
    factory : SegmenterFactory
        Creates the segmenter of the participant level.
    """
    return execute(config, command, lambda log: run_level(config, factory, log))


def execute(
    config: RunConfig, command: Sequence[str], work: Callable[[Path | None], RunOutcome], *, log_to_file: bool = True
) -> int:
    """Run a function with the log of a run, turn errors into exit codes, and report a failure on standard error.

    Parameters
    ----------
    config : RunConfig
        Settings of the run.
    command : sequence of str
        Command line, recorded in ``logs/``.
    work : callable
        Called with the log file, if there is one; returns the exit code and the reason of a failure.
    log_to_file : bool
        Whether to write log and record of the run in ``logs/``.
    """
    try:
        with stop_on_signal(), run_log(config, list(command), to_file=log_to_file) as log:
            code, reason = _log_errors(work, log)
    except (Interrupted, SpineAppError) as error:
        code, reason = int(error.exit_code), str(error)
    if reason is not None:
        write_reason(PROGRAM, reason)
    return code


def _log_errors(work: Callable[[Path | None], RunOutcome], log: Path | None) -> RunOutcome:
    try:
        return work(log)
    except (Interrupted, SpineAppError) as error:
        logger.error("%s", error, extra={FILE_ONLY: True})  # noqa: TRY400 - without traceback
        raise
    except Exception as error:
        logger.exception("unexpected error")
        where = f"; the traceback is in {log}" if log else ""
        return int(ExitCode.UNSPECIFIED), f"unexpected {type(error).__name__}: {error}{where}"


def run_level(config: RunConfig, factory: SegmenterFactory, log: Path | None = None) -> RunOutcome:
    """Run an analysis level and return its outcome; the manifest is written beside the log."""
    # The levels import pyBIDS and pandas, which take long to load.
    with modules_stay():
        from totalspineseg_bids.app.participant import run_participants, write_manifest  # noqa: PLC0415

    if config.analysis_level == "group":
        from totalspineseg_bids.app.group import run_group  # noqa: PLC0415

        run_group(config)
        return int(ExitCode.SUCCESS), None
    tally = run_participants(config, factory)
    if log is not None and not config.reports_only:
        write_manifest(log.with_suffix(".json"), config.output_dir, config.resolutions[-1], tally)
    return tally.exit_code(), tally.summary_line()
