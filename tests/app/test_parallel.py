"""Participants processed at the same time."""

import os
import signal
from pathlib import Path

import pytest
from tiny_spine import TinySegmenter, contents, loaded, make_dataset, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.app.parallel import number_of_jobs, share_of_resources
from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.bids.query import Selection, find_images
from totalspineseg_bids.config import RunConfig

NAMES = [f"sub-{number:02}/anat/sub-{number:02}_{suffix}.nii.gz" for number in range(1, 5) for suffix in ("T1w", "T2w")]

#: The processes of the pool would not know of others.
pytestmark = pytest.mark.usefixtures("real_figures")


# Functions of a module, because the processes of the pool import them.
def tiny(_config: RunConfig) -> LoadedSegmenter:
    return loaded()


class Fatal(TinySegmenter):  # type: ignore[misc]
    def segment(self, *arguments, **options):  # type: ignore[no-untyped-def]
        if os.getpid() != int(os.environ["TEST_MAIN_PROCESS"]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().segment(*arguments, **options)


def fatal(_config: RunConfig) -> LoadedSegmenter:
    return loaded(Fatal())


@pytest.fixture
def dataset(tmp_path):
    images = {name: tiny_image(seed=seed) for seed, name in enumerate(NAMES)}
    images["sub-03/anat/sub-03_T2w.nii.gz"] = tiny_image(spine=False)
    return make_dataset(tmp_path / "raw", images)


def log_of(out: Path) -> str:
    return "\n".join(file.read_text() for file in (out / "logs").glob("*.log"))


@pytest.mark.usefixtures("dataset")
def test_processes_write_the_same_files_and_log_through_the_first(tmp_path, configure):
    assert run(configure(out="one"), factory=tiny) == 0
    assert run(configure(out="two", jobs=2), factory=tiny) == 0
    one, two = (contents(tmp_path / out) for out in ("one", "two"))
    assert one == two
    log = log_of(tmp_path / "two")
    assert "2 participants at the same time" in log
    assert all(f"{Path(name).name.removesuffix('.nii.gz')}: start" in log for name in NAMES)
    assert "8 done, 0 complete before, 0 failed" in log
    assert run(configure(out="two", jobs=2), factory=tiny) == 0
    assert "0 done, 8 complete before, 0 failed" in log_of(tmp_path / "two")


def test_one_failure_does_not_stop_the_others(dataset, tmp_path, configure):
    (dataset / NAMES[2]).write_bytes(b"no image")
    assert run(configure(jobs=2), factory=tiny) == 65
    assert "7 done, 0 complete before, 1 failed" in log_of(tmp_path / "out")


@pytest.mark.usefixtures("dataset")
def test_a_killed_process_ends_the_run_with_a_reason(configure, monkeypatch, capsys):
    monkeypatch.setenv("TEST_MAIN_PROCESS", str(os.getpid()))
    assert run(configure(jobs=2), factory=fatal) == 75
    assert "fewer --jobs" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(("settings", "jobs"), [
    ({"jobs": 3}, 3),
    ({"jobs": 9}, 4),
    ({"jobs": "auto", "n_cpus": 8}, 4),
    ({"jobs": "auto", "n_cpus": 5}, 2),
    ({"jobs": "auto", "n_cpus": 1}, 1),
    ({"jobs": "auto", "n_cpus": 8, "mem_mb": 2000}, 2),
    ({"jobs": "auto", "n_cpus": 8, "mem_mb": 500}, 1),
])  # fmt: skip
def test_jobs_fit_participants_cores_and_memory(settings, jobs, dataset, configure):
    sources = find_images(dataset, Selection())
    config = configure(device="cpu", **settings)
    assert number_of_jobs(config, sources, participants=4) == jobs
    share = share_of_resources(config, jobs)
    assert share.digest == config.digest
    assert (share.threads or 0) * jobs <= max(config.n_cpus or 99, jobs)
