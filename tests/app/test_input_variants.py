"""Datasets as they come: series, sessions and chunks, links of DataLad, an index that others own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from processes import as_plain_user, config, finish  # type: ignore[import-not-found]
from tiny_spine import BoxSegmenter, loaded, make_dataset, save, tiny_image, tree  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.files import read_json
from totalspineseg_bids.report.volume import viewer_assets

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")
SIDECAR = "_seg-totalspineseg_desc-T2w_dseg.json"
FIRST = "sub-01/anat/sub-01_T2w.nii.gz"


def sidecar(out: Path, stem: str) -> dict:
    content = read_json(out / f"{stem}{SIDECAR}")
    assert content is not None
    return content


def test_a_series_is_meant_or_one_volume_taken_and_the_sidecar_says_which(tmp_path: Path) -> None:
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


def test_every_entity_of_the_source_is_kept(tmp_path: Path) -> None:
    stems = [
        "sub-01/ses-a/anat/sub-01_ses-a_acq-sag_run-1_chunk-1",
        "sub-01/ses-a/anat/sub-01_ses-a_acq-sag_run-1_chunk-2",
        "sub-01/ses-a/anat/sub-01_ses-a_acq-sag_run-2",
        "sub-01/ses-b/anat/sub-01_ses-b_acq-ax_rec-norm",
        "sub-01/ses-b/anat/sub-01_ses-b_part-mag",
        "sub-02/anat/sub-02_ce-gad_run-01",
    ]
    raw = make_dataset(tmp_path / "raw", {f"{stem}_T2w.nii.gz": tiny_image(seed=i) for i, stem in enumerate(stems)})
    save(raw / "sub-01/ses-b/anat/sub-01_ses-b_part-phase_T2w.nii.gz", tiny_image())
    finish(config(raw, tmp_path / "out"))
    finish(config(raw, tmp_path / "out", "group"))
    for stem in stems:
        assert sidecar(tmp_path / "out", stem)["Sources"] == [f"bids:raw:{stem}_T2w.nii.gz"]
    assert len(read_table(tmp_path / "out" / "group_images.tsv")) == len(stems)
    assert validate(tmp_path / "out") == []


def test_links_of_datalad(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", {})
    store = raw / ".git" / "annex" / "objects"
    store.mkdir(parents=True)
    for label in ("01", "02"):
        content = save(tmp_path / "made.nii.gz", tiny_image(seed=int(label))).rename(store / f"MD5E-{label}.nii.gz")
        link = raw / f"sub-{label}/anat/sub-{label}_T2w.nii.gz"
        link.parent.mkdir(parents=True)
        link.symlink_to(os.path.relpath(content, link.parent))
    (store / "MD5E-02.nii.gz").unlink()  # 'git annex drop'
    assert as_plain_user(config(raw, tmp_path / "out"), tmp_path / "says") == 66
    last = (tmp_path / "says").read_text().splitlines()[-1]
    assert "sub-02_T2w.nii.gz: content not fetched" in last
    assert "datalad get" in last
    assert sidecar(tmp_path / "out", "sub-01/anat/sub-01")["Sources"] == [f"bids:raw:{FIRST}"]


def test_real_images_give_a_valid_dataset_on_their_own_grids(tmp_path: Path, data_dir: Path) -> None:
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
        expected |= {f"{stem}_seg-totalspineseg_desc-{suffix}_dseg.{kind}" for kind in ("nii.gz", "json", "tsv")}
        expected |= {f"{stem}_label-SC_desc-{suffix}_probseg.{kind}" for kind in ("nii.gz", "json")}
        expected |= {
            f"{stem}_desc-{suffix}_uncorrected.npz",
            *(f"{stem}_desc-{suffix}_profile.{kind}" for kind in ("json", "tsv")),
            f"{stem.split('/')[0]}.html",
            f"{stem.split('/')[0]}/figures/{stem.rsplit('/')[-1]}_desc-{suffix}_thumbnail.png",
        }
        labels = nib.load(out / f"{stem}_seg-totalspineseg_desc-{suffix}_dseg.nii.gz")
        np.testing.assert_array_equal(labels.affine, nib.load(source).affine)
        assert labels.shape == nib.load(source).shape
        assert set(np.unique(labels.dataobj)) == {0, 20, 21, 200, 201, 204}
    assert len(sources) == 5
    found = set(tree(out))
    assert {name for name in found if not name.startswith("group_")} == expected
    assert {"group_images.tsv", "group_images.json", "group_volumes.tsv", "group_volumes.json"} <= found
    assert validate(out) == []


@pytest.fixture
def locked() -> Callable[[Path], None]:
    def lock(folder: Path) -> None:
        for path in [*folder.rglob("*"), folder]:
            path.chmod(0o555 if path.is_dir() else 0o444)

    return lock


def test_an_index_that_cannot_be_written_is_read(tmp_path: Path, locked: Callable[[Path], None]) -> None:
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


def test_an_index_that_cannot_be_made_is_done_without(tmp_path: Path, locked: Callable[[Path], None]) -> None:
    raw = make_dataset(tmp_path / "raw", {FIRST: tiny_image()})
    (tmp_path / "theirs").mkdir()
    locked(tmp_path / "theirs")
    says = tmp_path / "says"
    settings = config(raw, tmp_path / "out", bids_database_dir=tmp_path / "theirs" / "index")
    assert as_plain_user(settings, says) == 0, says.read_text()
    assert "the index is kept in memory" in says.read_text()
    assert list((tmp_path / "theirs").iterdir()) == []


def test_permissions_of_the_output_follow_the_umask(tmp_path: Path) -> None:
    raw = make_dataset(tmp_path / "raw", {FIRST: tiny_image()})
    former = os.umask(0o027)
    try:
        finish(config(raw, tmp_path / "out"))
        finish(config(raw, tmp_path / "out", "group"))
    finally:
        os.umask(former)
    modes = {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in (tmp_path / "out").rglob("*")}
    assert modes == {(True, "0o750"), (False, "0o640")}


def test_where_a_result_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_dataset(tmp_path / "raw", {FIRST: tiny_image()})
    monkeypatch.setenv("TOTALSPINESEG_BIDS_CONTAINER_TYPE", "docker")
    monkeypatch.setenv("TOTALSPINESEG_BIDS_CONTAINER_TAG", "totalspineseg-bids:0.1.0")
    out = raw / "derivatives" / "spine"
    settings = config(raw, out)
    finish(settings)
    description = json.loads((out / "dataset_description.json").read_text())
    (maker,) = description["GeneratedBy"]
    assert maker["Container"] == {"Type": "docker", "Tag": "totalspineseg-bids:0.1.0"}
    assert description["DatasetLinks"] == {"raw": "../.."}
    content = sidecar(out, "sub-01/anat/sub-01")
    assert content["Digests"]["Configuration"] == settings.digest
    assert content["Digests"]["Model"] == "0" * 64
    assert content["SpatialReference"] == content["Sources"][0] == f"bids:raw:{FIRST}"
    columns = (out / f"sub-01/anat/sub-01{SIDECAR}").with_suffix(".tsv").read_text().splitlines()[0].split("\t")
    measures = [column for column in columns if column.endswith(("-mm", "-mm2", "-mm3", "-deg"))]
    assert measures
    assert all(content[column]["Units"] for column in measures)
    for other in ({"label_scheme": "totalspineseg"}, {"volume": 0}, {"step1_only": True}, {"localizer": "acq-a"}):
        assert (
            RunConfig.from_mapping(
                {"bids_dir": raw, "output_dir": out, "analysis_level": "participant", **other}
            ).digest
            != settings.digest
        )
