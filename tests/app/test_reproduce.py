"""The manifest of a run, and runs that are repeated from their record."""

import json
from pathlib import Path

import pytest
from processes import dataset as make  # type: ignore[import-not-found]

from totalspineseg_bids.app.reproduce import reproduce
from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.files import sha256_of

STEM = "sub-01/anat/sub-01"


@pytest.fixture
def record(tmp_path, configure, factory):
    make(tmp_path / "raw", [f"{STEM}_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz"])
    assert run(configure(), ["totalspineseg-bids"], factory) == 0
    return next((tmp_path / "out/logs").glob("run-*.toml"))


def test_the_manifest_lists_the_files_of_each_image(tmp_path, record, configure, factory):
    (tmp_path / "raw/sub-03/anat").mkdir(parents=True)
    (tmp_path / "raw/sub-03/anat/sub-03_T2w.nii.gz").write_bytes(b"")
    first = json.loads(record.with_suffix(".json").read_text())
    assert [image["State"] for image in first["Images"]] == ["done", "done"]
    for image in first["Images"]:
        assert {Path(file["Path"]).suffix for file in image["Outputs"]} >= {".gz", ".tsv", ".json"}
        for file in image["Outputs"]:
            path = tmp_path / "out" / file["Path"]
            assert (path.stat().st_size, sha256_of(path)) == (file["Bytes"], file["SHA256"])
    record.with_suffix(".json").unlink()
    assert run(configure(), ["totalspineseg-bids"], factory) == 65
    (second,) = record.parent.glob("run-*.json")
    states = {image["Source"]: image["State"] for image in json.loads(second.read_text())["Images"]}
    assert sorted(states.values()) == ["complete before", "complete before", "failed"]
    assert states["bids:raw:sub-03/anat/sub-03_T2w.nii.gz"] == "failed"


def test_a_run_gives_the_same_bytes_again(tmp_path, record, factory):
    result = reproduce(record, tmp_path / "again", factory=factory)
    assert result.identical
    assert result.versions == []
    assert result.compared >= 8


def test_what_differs_is_named(tmp_path, record, factory):
    table = tmp_path / "out" / f"{STEM}_seg-totalspineseg_desc-T2w_dseg.tsv"
    table.write_text(table.read_text() + "\n")
    record.write_text(record.read_text().replace("numpy ", "numpy 0."))
    result = reproduce(record, tmp_path / "again", factory=factory)
    assert result.files == [str(table.relative_to(tmp_path / "out"))]
    assert [line.split()[0] for line in result.versions] == ["numpy"]
    assert not result.identical


@pytest.mark.parametrize("change", ["input", "model"])
def test_a_run_with_another_input_or_model_is_not_repeated(tmp_path, record, factory, change):
    if change == "input":
        (tmp_path / "raw" / f"{STEM}_T2w.nii.gz").write_bytes(b"another")
    else:
        former = factory
        factory = lambda config: LoadedSegmenter(former(config).segmenter, "bundled", "1" * 64, True)  # noqa: E731
    result = reproduce(record, tmp_path / "again", factory=factory)
    assert result.digests[0] == f"{STEM}_T2w.nii.gz: other {change} than recorded"
    assert not (tmp_path / "again").exists()


def test_a_file_that_is_no_record_is_refused(tmp_path, record, factory):
    settings = tmp_path / "settings.toml"
    settings.write_text('model = "bundled"\n')
    with pytest.raises(UsageError, match="not the record of a run"):
        reproduce(settings, tmp_path / "again", factory=factory)
    with pytest.raises(MissingInputError, match=r"no\.toml"):
        reproduce(tmp_path / "no.toml", tmp_path / "again", factory=factory)
    with pytest.raises(UsageError, match="give another folder"):
        reproduce(record, tmp_path / "out", factory=factory)
