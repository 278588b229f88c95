"""The group level: tidy tables made from the derivatives alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_spine import make_dataset, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.config import RunConfig

Configure = Callable[..., RunConfig]
Factory = Callable[[RunConfig], LoadedSegmenter]


@pytest.fixture
def done(tmp_path: Path, configure: Configure, factory: Factory, fast_figures: None) -> Path:
    raw = make_dataset(
        tmp_path / "raw",
        {
            "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz": tiny_image(seed=1),
            "sub-02/anat/sub-02_T2w.nii.gz": tiny_image(undecided=True),
            "sub-03/anat/sub-03_T2w.nii.gz": tiny_image(spine=False),
            "sub-04/anat/sub-04_T2w.nii.gz": tiny_image(seed=4),
        },
    )
    (raw / "sub-04/anat/sub-04_T2w.nii.gz").write_bytes(b"")
    assert run(configure(), factory=factory) == 65
    return raw


def test_tables_are_tidy_and_described(tmp_path: Path, done: Path, configure: Configure) -> None:
    out = tmp_path / "out"
    shutil.rmtree(done)  # the raw data are not needed
    assert run(configure("group")) == 0
    images = read_table(out / "group_images.tsv")
    assert [(row["participant"], row["session"], row["status"]) for row in images] == [
        ("sub-01", "ses-a", "labelled"),
        ("sub-02", "n/a", "abstained"),
        ("sub-03", "n/a", "no-spine"),
        ("sub-04", "n/a", "failed"),
    ]
    assert images[0]["levels"] == "L4, L3, L2, L3-L4, L2-L3"
    assert images[0]["flags"] == "test-flag"
    assert images[1]["reason"] == "no landmark in view"
    assert "the file is empty" in images[3]["reason"]
    volumes = read_table(out / "group_volumes.tsv")
    keys = ["participant", "session", "image", "suffix", "structure", "level"]
    assert list(volumes[0])[:6] == keys
    assert {"volume", "height", "canal-area"} <= set(volumes[0])
    first = [row for row in volumes if row["participant"] == "sub-01"]
    assert {row["level"] for row in first} == {"L2", "L3", "L4", "L2-L3", "L3-L4", "n/a"}
    assert {row["structure"] for row in first} == {"vertebra", "disc", "spinal_cord", "spinal_canal"}
    assert next(row["volume"] for row in first if row["level"] == "L2-L3") == "300.0"
    assert all(row["level"] == "n/a" for row in volumes if row["participant"] == "sub-02")
    for name, rows in (("group_images", images), ("group_volumes", volumes)):
        described = json.loads((out / f"{name}.json").read_text())
        assert list(described) == list(rows[0])
        assert all(entry["Description"] for entry in described.values())


def test_filters_choose_participants(tmp_path: Path, done: Path, configure: Configure) -> None:
    assert run(configure("group", participant_label=["sub-01", "03"])) == 0
    assert len(read_table(tmp_path / "out" / "group_images.tsv")) == 2
    assert run(configure("group", session_label=["a"])) == 0
    assert len(read_table(tmp_path / "out" / "group_images.tsv")) == 1
    assert run(configure("group", participant_label=["77"])) == 18


def test_damaged_results_are_left_out_not_fatal(
    tmp_path: Path, done: Path, configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "sub-02/anat/sub-02_seg-totalspineseg_desc-T2w_dseg.json").write_text("{")
    (out / "sub-03/anat/sub-03_seg-totalspineseg_desc-T2w_dseg.tsv").unlink()
    assert run(configure("group")) == 0
    assert [row["participant"] for row in read_table(out / "group_images.tsv")] == ["sub-01", "sub-04"]
    assert capsys.readouterr().err.count("left out") == 2
