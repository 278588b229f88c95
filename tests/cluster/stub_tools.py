"""``totalspineseg-tools run-job`` and the BIDS App with the segmenter of tiny images, and with failures on demand."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))

from tiny_spine import TinySegmenter, loaded, one_dot

from totalspineseg_bids.app.run import run
from totalspineseg_bids.cli.bids_app import parse_config
from totalspineseg_bids.cluster.job import run_job
from totalspineseg_bids.cluster.plan import JobPlan
from totalspineseg_bids.report import figures
from totalspineseg_bids.segmentation.result import LabelledSpine


def main() -> int:
    """Run a job or the app; ``KILLED_ONCE=JOB=FOLDER`` kills the first attempt of a job at its last image."""
    figures.write_figures = one_dot
    segmenter = TinySegmenter()
    factory = lambda _: loaded(segmenter)  # noqa: E731
    if sys.argv[1] != "run-job":
        return run(parse_config(sys.argv[1:]), sys.argv, factory)
    _, folder, name, *options = sys.argv[1:]
    victim, _, marks = os.environ.get("KILLED_ONCE", "").partition("=")
    if name == victim and not (Path(marks) / name).exists():
        (Path(marks) / name).touch()
        images, segment = len(JobPlan.read(Path(folder)).jobs[name].images), segmenter.segment

        def killed(*arguments: Any, **settings: Any) -> LabelledSpine:
            if segmenter.calls + 1 == images:
                os.kill(os.getpid(), signal.SIGKILL)
            return segment(*arguments, **settings)

        segmenter.segment = killed  # type: ignore[method-assign]
    return run_job(Path(folder), name, int(options[1]) if options else None, sys.argv, factory)


if __name__ == "__main__":
    sys.exit(main())
