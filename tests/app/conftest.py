"""Fixtures of a run on tiny images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_spine import TinySegmenter, one_dot  # type: ignore[import-not-found]

from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.config import RunConfig


@pytest.fixture
def segmenter() -> TinySegmenter:
    return TinySegmenter()


@pytest.fixture
def factory(segmenter: TinySegmenter) -> Callable[[RunConfig], LoadedSegmenter]:
    return lambda config: LoadedSegmenter(segmenter, "bundled", "0" * 64, True)


@pytest.fixture
def fast_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tiny picture an image in place of the real ones, where a test is not about them."""
    monkeypatch.setattr("totalspineseg_bids.report.figures.write_figures", one_dot)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., RunConfig]:
    """Make the configuration of a run on the dataset ``raw``."""

    def make(level: str = "participant", *, out: str = "out", **settings: Any) -> RunConfig:
        base = {"bids_dir": tmp_path / "raw", "output_dir": tmp_path / out, "level": level, "progress": False}
        return RunConfig.from_mapping({"skip_bids_validation": True, **base, **settings})

    return make
