"""The reference validator before a run: what stops the run, what is only reported and what is ignored."""

import gzip
import logging
from pathlib import Path

import pytest

from totalspineseg_bids.bids import validate as module
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.bids.validate import check_dataset
from totalspineseg_bids.errors import DatasetError


def make(root: Path, *names: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0", "License": "CC0"}')
    (root / "README").write_text("Text.\n")
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(b"not looked into"))
    return root


def images(root: Path, *labels: str) -> list[SourceImage]:
    names = (f"sub-{label}/anat/sub-{label}_T2w.nii.gz" for label in labels)
    return [SourceImage(name, root / name) for name in names]


@pytest.mark.parametrize("sidecar", ["sub-01/anat/sub-01_T2w.json", "sub-01/sub-01_T2w.json", "T2w.json"])
def test_errors_of_selected_images_and_their_sidecars_are_fatal(tmp_path, sidecar):
    root = make(tmp_path / "raw", "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz")
    (root / sidecar).write_text('{"EchoTime": "long"}')
    with pytest.raises(DatasetError, match="1 error in files of"):
        check_dataset(root, images(root, "01"))
    other = "sub-01/anat/sub-01_T1w.nii.gz"
    check_dataset(root, [SourceImage(other, root / other)])


def test_damaged_files_are_told_but_do_not_stop(tmp_path, caplog):
    root = make(tmp_path / "raw", "sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")
    (root / "sub-01/anat/sub-01_T2w.nii.gz").write_bytes(b"")
    (root / "sub-02/anat/sub-02_T2w.json").write_text("{")
    (root / "sub-02/anat/sub-02_T1w.nii.gz").symlink_to("gone")
    with caplog.at_level(logging.WARNING):
        check_dataset(root, images(root, "01", "02"), strict=True)
    assert {record.message.split()[2] for record in caplog.records} == {"EMPTY_FILE", "JSON_INVALID", "SYMLINK_BROKEN"}


def test_only_the_wanted_participants_are_looked_at(tmp_path):
    root = make(tmp_path / "raw", "sub-01/anat/sub-01_T2w.nii.gz", "sub-02/anat/sub-02_weird_T2w.nii.gz")
    check_dataset(root, images(root, "01"), whole=False, strict=True)
    with pytest.raises(DatasetError):
        check_dataset(root, images(root, "01", "02"), whole=False, strict=True)
    for content, reason in (('{"Name": ', "cannot be read"), ("[]", "not a JSON object")):
        (root / "dataset_description.json").write_text(content)
        with pytest.raises(DatasetError, match=reason):
            check_dataset(root, images(root, "01"))


def test_without_a_validator_the_run_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    root = make(tmp_path / "raw")
    monkeypatch.setattr(module, "find_validator", lambda: None)
    check_dataset(root, [])
    assert "not validated" in caplog.text
    broken = tmp_path / "validator"
    broken.write_text("#!/bin/sh\necho oops >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(module, "find_validator", lambda: str(broken))
    check_dataset(root, [])
    assert "exit code 3: oops" in caplog.text
