"""Settings of all tests."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# Each process of pytest-xdist keeps to its share of the CPU cores. Every library (torch, OpenMP, OpenVINO) and every
# subprocess then starts as many threads as it has cores, without settings of its own.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cores = sorted(os.sched_getaffinity(0))[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) :: count]
    if cores:
        os.sched_setaffinity(0, cores)

# The same examples in every run, so that a failure is due to a change; HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("same", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data-dir", type=Path, help="folder of external data; tests that need it are skipped without it")


@pytest.fixture
def data_dir(request: pytest.FixtureRequest) -> Path:
    """Folder of external data, which is no part of the repository."""
    folder: Path | None = request.config.getoption("--data-dir")
    if folder is None:
        pytest.skip("needs --data-dir")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _networks_are_not_kept_in_the_home_folder() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOTALSPINESEG_BIDS_NETWORK_CACHE", folder)
        yield
