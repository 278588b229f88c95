"""Fixtures of a run on tiny images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_spine import TinySegmenter, loaded, one_dot  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.cli.bids_app import parse_config
from totalspineseg_bids.config import RunConfig


@pytest.fixture
def segmenter():
    return TinySegmenter()


@pytest.fixture
def factory(segmenter):
    return lambda config: loaded(segmenter)


@pytest.fixture
def real_figures():
    """Draw the figures of the images; without it, there is one tiny picture an image in their place."""


@pytest.fixture(autouse=True)
def fast_figures(request, monkeypatch):
    if "real_figures" not in request.fixturenames:
        monkeypatch.setattr("totalspineseg_bids.report.figures.write_figures", one_dot)


@pytest.fixture
def configure(tmp_path):
    """Make the configuration of a run on the dataset ``raw``."""

    def make(level: str = "participant", *, out: str = "out", **settings: Any) -> RunConfig:
        base = {"bids_dir": tmp_path / "raw", "output_dir": tmp_path / out, "level": level, "progress": False}
        return RunConfig.from_mapping({"skip_bids_validation": True, **base, **settings})

    return make


@pytest.fixture
def process(configure, factory):
    """Run with these settings on the dataset ``raw``, and return the exit code."""

    def go(*level: str, factory: Callable[[RunConfig], LoadedSegmenter] = factory, **settings: Any) -> int:
        return run(configure(*level, **settings), factory=factory)

    return go


@pytest.fixture
def call(tmp_path, factory):
    """Run the app with options on the dataset ``raw``, without validation, and return the exit code."""

    def go(level: str, *options: str, raw: Path = tmp_path / "raw", out: Path = tmp_path / "out") -> int:
        arguments = [str(raw), str(out), level, "--skip-bids-validation", "--model", "bundled", *options]
        return run(parse_config(arguments), factory=factory)

    return go
