"""Datasets as they come: series, sessions and chunks, links of DataLad, an index that others own."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from processes import as_plain_user, config, finish  # type: ignore[import-not-found]
from tiny_spine import BoxSegmenter, loaded, make_dataset, of_image, save, tiny_image, tree  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.files import read_json
from totalspineseg_bids.report.volume import viewer_assets

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")
SIDECAR = "_seg-totalspineseg_desc-T2w_dseg.json"
FIRST = "sub-01/anat/sub-01_T2w.nii.gz"


def sidecar(out: Path, stem: str) -> dict:
    content = read_json(out / f"{stem}{SIDECAR}")
    assert content is not None
    return content


def test_a_series_is_meant_or_one_volume_taken_and_the_sidecar_says_which(tmp_path):
    raw = make_dataset(tmp_path / "raw", {FIRST: np.stack([tiny_image(spine=False), tiny_image()], axis=3)})
    stem, out = "sub-01/anat/sub-01", tmp_path / "out"
    finish(config(raw, out, volume=1))
    assert sidecar(out, stem)["InputNotes"] == ["volume:1-of-2"]
    assert sidecar(out, stem)["Status"] == "labelled"
    assert sidecar(out, stem)["Settings"]["volume"] == 1
    finish(config(raw, out, volume=0))  # another volume is another result
    assert sidecar(out, stem)["Status"] == "no-spine"
    finish(config(raw, out))
    assert sidecar(out, stem)["InputNotes"] == ["volume:mean-of-2"]
    assert as_plain_user(config(raw, tmp_path / "other", volume=2), tmp_path / "says") == 65
    last = (tmp_path / "says").read_text().splitlines()[-1]
    assert "sub-01_T2w.nii.gz: has no volume 2; its 2 volumes are numbered from 0" in last


def test_entities_that_segmentations_lack_leave_the_output_valid(tmp_path):
    stems = ("flip-1_mt-on_MTS", "echo-1_inv-1_part-mag_MP2RAGE", "dir-AP_echo-1_MESE")
    raw = make_dataset(tmp_path / "raw", {f"sub-01/anat/sub-01_{stem}.nii.gz": tiny_image() for stem in stems})
    finish(config(raw, tmp_path / "out", suffix=("MTS", "MP2RAGE", "MESE")))
    assert len(list((tmp_path / "out").glob(f"sub-01/anat/*{SIDECAR.replace('T2w', 'M*')}"))) == len(stems)
    assert validate(tmp_path / "out") == []


def test_real_images_give_a_valid_dataset_on_their_own_grids(tmp_path, data_dir):
    real, out = data_dir / "real_bids", tmp_path / "out"
    assert run(config(real, out, skip_bids_validation=False), factory=lambda _: loaded(BoxSegmenter())) == 0
    finish(config(real, out, "group"))
    sources = sorted(real.glob("sub-*/anat/*.nii.gz"))
    expected = {
        ".bidsignore",
        "README.md",
        "dataset_description.json",
        "descriptions.json",
        "descriptions.tsv",
        "seg-totalspineseg_dseg.tsv",
        "group.html",
        *viewer_assets(),
    }
    for source in sources:
        stem, suffix = source.relative_to(real).as_posix().removesuffix(".nii.gz").rsplit("_", 1)
        # Boxes have neither disc points nor a probability of the canal.
        expected |= {name for name in of_image(stem, suffix) if "seg-levels" not in name and "label-canal" not in name}
        participant, name = stem.split("/")[0], stem.rsplit("/", maxsplit=1)[-1]
        expected |= {f"{participant}.html", f"{participant}/figures/{name}_desc-{suffix}_thumbnail.png"}
        labels = nib.load(out / f"{stem}_seg-totalspineseg_desc-{suffix}_dseg.nii.gz")
        np.testing.assert_array_equal(labels.affine, nib.load(source).affine)
        np.testing.assert_array_equal(labels.get_qform(), nib.load(source).get_qform())
        assert labels.shape == nib.load(source).shape
        assert set(np.unique(labels.dataobj)) == {0, 20, 21, 200, 201, 204}
    assert len(sources) == 5
    found = set(tree(out))
    assert {name for name in found if not name.startswith("group_")} == expected
    assert {"group_images.tsv", "group_images.json", "group_volumes.tsv", "group_volumes.json"} <= found
    assert validate(out) == []


@pytest.fixture
def locked():
    def lock(folder: Path) -> None:
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)

    return lock


def test_an_index_that_cannot_be_written_is_read(tmp_path, locked):
    raw = make_dataset(tmp_path / "raw", {FIRST: tiny_image()})
    index = tmp_path / "index"
    finish(config(raw, tmp_path / "out", bids_database_dir=index))
    save(raw / "sub-02/anat/sub-02_T2w.nii.gz", tiny_image())
    locked(index)
    before = {path: path.stat().st_mtime_ns for path in index.rglob("*")}
    says = tmp_path / "says"
    assert as_plain_user(config(raw, tmp_path / "out2", bids_database_dir=index), says) == 0, says.read_text()
    # The index does not know the second participant: it was read, not made again.
    assert [path.name for path in (tmp_path / "out2").glob("sub-*") if path.is_dir()] == ["sub-01"]
    assert {path: path.stat().st_mtime_ns for path in index.rglob("*")} == before


def test_an_index_that_cannot_be_made_is_done_without(tmp_path, locked):
    raw = make_dataset(tmp_path / "raw", {FIRST: tiny_image()})
    (tmp_path / "theirs").mkdir()
    locked(tmp_path / "theirs")
    says = tmp_path / "says"
    settings = config(raw, tmp_path / "out", bids_database_dir=tmp_path / "theirs" / "index")
    assert as_plain_user(settings, says) == 0, says.read_text()
    assert "the index is kept in memory" in says.read_text()
    assert list((tmp_path / "theirs").iterdir()) == []
