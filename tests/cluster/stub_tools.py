"""``totalspineseg-tools run-job`` and the BIDS App with the segmenter of tiny images, and with failures on demand."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))

from tiny_spine import TinySegmenter, one_dot

from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.cli.bids_app import parse_config
from totalspineseg_bids.cluster.job import run_job
from totalspineseg_bids.report import figures


def main() -> int:
    """Run a job or the app; ``KILLED_ONCE=JOB=FOLDER`` kills the first attempt, which leaves a mark in the folder."""
    figures.write_figures = one_dot
    loaded = LoadedSegmenter(TinySegmenter(), "bundled", "0" * 64, True)
    if sys.argv[1] != "run-job":
        return run(parse_config(sys.argv[1:]), sys.argv, lambda _: loaded)
    _, folder, name, *options = sys.argv[1:]
    victim, _, marks = os.environ.get("KILLED_ONCE", "").partition("=")
    if name == victim and not (Path(marks) / name).exists():
        (Path(marks) / name).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run_job(Path(folder), name, int(options[1]) if options else None, sys.argv, lambda _: loaded)


if __name__ == "__main__":
    sys.exit(main())
