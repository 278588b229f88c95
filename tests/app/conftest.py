"""Fixtures of a run on tiny images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_spine import TinySegmenter  # type: ignore[import-not-found]

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

    def write_figures(folder: Path, stem: str, *_: Any) -> dict[str, str]:
        png = bytes.fromhex(
            "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
            "1f15c4890000000d49444154789c626001000000ffff03000006000557bfabd40000000049454e44ae426082"
        )
        (folder / f"{stem}_thumbnail.png").write_bytes(png)
        return {"thumbnail": f"{stem}_thumbnail.png"}

    monkeypatch.setattr("totalspineseg_bids.report.figures.write_figures", write_figures)


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., RunConfig]:
    """Make the configuration of a run on the dataset ``raw``."""

    def make(level: str = "participant", *, out: str = "out", **settings: Any) -> RunConfig:
        base = {"bids_dir": tmp_path / "raw", "output_dir": tmp_path / out, "level": level, "progress": False}
        return RunConfig.from_mapping({"skip_bids_validation": True, **base, **settings})

    return make
