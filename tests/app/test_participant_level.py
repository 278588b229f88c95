"""The participant level on tiny images: what is written, when it is written again, and what a failure costs."""

import errno
import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_spine import TinySegmenter, contents, make_dataset, of_image, save, tiny_image, tree  # type: ignore[import-not-found]

from totalspineseg_bids.app.run import run
from totalspineseg_bids.app.segmenter import LoadedSegmenter
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.bids.validate import validate
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.imaging.io import read_labels

STEM = "sub-01/anat/sub-01"
LABELS = f"{STEM}_seg-totalspineseg_desc-T2w_dseg"


def dataset(tmp_path: Path, *names: str, orientation: str = "RAS") -> Path:
    return make_dataset(tmp_path / "raw", {name: tiny_image(seed=i) for i, name in enumerate(names)}, orientation)


def last_error(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.usefixtures("real_figures")
def test_the_output_is_the_golden_list_and_valid(tmp_path, process, capsys):
    statuses = {
        "sub-01/anat/sub-01_T1w": "labelled",
        "sub-01/anat/sub-01_T2w": "labelled",
        "sub-02/ses-a/anat/sub-02_ses-a_acq-sag_run-1_T2w": "labelled",
        "sub-02/ses-a/anat/sub-02_ses-a_acq-sag_run-2_T2w": "labelled",
        "sub-03/anat/sub-03_T2w": "no-spine",
        "sub-04/anat/sub-04_PDw": "abstained",
    }
    images = {
        f"{name}.nii{'' if 'run-1' in name else '.gz'}": tiny_image(
            spine=status != "no-spine", undecided=status == "abstained", seed=number
        )
        for number, (name, status) in enumerate(statuses.items())
    }
    series = "sub-02/ses-a/anat/sub-02_ses-a_acq-sag_run-2_T2w.nii.gz"
    images[series] = np.stack([images[series]] * 2, axis=3)
    make_dataset(tmp_path / "raw", images)
    assert process(skip_bids_validation=False) == 0, capsys.readouterr().err
    out = tmp_path / "out"
    expected = {".bidsignore", "README.md", "descriptions.json", "descriptions.tsv", "dataset_description.json"}
    expected |= {"seg-totalspineseg_dseg.tsv", *(f"sub-0{number}.html" for number in range(1, 5))}
    for image, status in statuses.items():
        files = of_image(*image.rsplit("_", 1))
        if status == "no-spine":
            files = [name for name in files if name.endswith(("_seg-totalspineseg_desc-T2w_dseg.json", "_dseg.tsv"))]
        expected |= {name for name in files if status == "labelled" or "seg-levels" not in name}
    assert {name for name in tree(out) if "figures/" not in name} == expected
    figures = [name for name in tree(out) if "/figures/" in name]
    assert figures
    for sidecar in out.glob("sub-*/**/*_seg-totalspineseg_desc-*_dseg.json"):
        assert set(json.loads(sidecar.read_text())["Figures"].values()) <= set(figures)
    assert process("group") == 0
    assert {"group.html", "group_images.tsv", "group_volumes.tsv"} <= set(tree(out))
    assert validate(out) == []
    rows = read_table(out / "group_images.tsv")
    assert {row["image"]: row["status"] for row in rows} == {Path(name).name: s for name, s in statuses.items()}
    for page in ("group.html", "sub-01.html", "sub-03.html"):
        assert "bundled" in (out / page).read_text()


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "LSA"])
def test_labels_lie_on_the_grid_of_the_image(tmp_path, process, orientation):
    raw = dataset(tmp_path, f"{STEM}_T2w.nii.gz", orientation=orientation)
    assert process(output_resolution="both") == 0
    image = nib.load(raw / f"{STEM}_T2w.nii.gz")
    labels = nib.load(tmp_path / "out" / f"{LABELS}.nii.gz")
    np.testing.assert_array_equal(labels.affine, image.affine)
    np.testing.assert_array_equal(np.asarray(labels.dataobj) == 205, np.asarray(image.dataobj) == 160)
    np.testing.assert_array_equal(np.asarray(labels.dataobj) == 200, np.asarray(image.dataobj) == 220)
    cord = nib.load(tmp_path / "out" / f"{STEM}_label-SC_desc-T2w_probseg.nii.gz").get_fdata()
    np.testing.assert_allclose(cord, (image.get_fdata() == 220) * 0.75, atol=1e-3)
    small = read_labels(tmp_path / "out" / f"{STEM}_seg-totalspineseg_res-1mm_desc-T2w_dseg.nii.gz")
    assert nib.aff2axcodes(small.affine) == ("R", "A", "S")
    points = nib.load(tmp_path / "out" / f"{STEM}_seg-levels_desc-T2w_dseg.nii.gz").get_fdata()
    assert sorted(points[points > 0]) == [22, 23]  # L2-L3 and L3-L4
    assert (image.get_fdata()[points > 0] == 220).all()


def test_sidecar_and_table_tell_where_a_result_comes_from(tmp_path, process, configure, monkeypatch):
    dataset(tmp_path, f"{STEM}_T2w.nii.gz")
    monkeypatch.setenv("TOTALSPINESEG_BIDS_CONTAINER_TAG", "totalspineseg-bids:0.1.0")
    assert process(label_scheme="totalspineseg") == 0
    out = tmp_path / "out"
    sidecar = json.loads((out / f"{LABELS}.json").read_text())
    assert sidecar["Sources"] == [sidecar["SpatialReference"]] == [f"bids:raw:{STEM}_T2w.nii.gz"]
    assert sidecar["Status"] == "labelled"
    assert sidecar["Flags"] == ["test-flag"]
    assert sidecar["Model"] == {"Name": "bundled", "Bundled": True}
    assert sidecar["Posture"] == {"coronal-cobb-deg": 0.0, "coronal-cobb-levels": "L2-L3"}
    assert set(sidecar["Digests"]) == {"Input", "Configuration", "Model"}
    assert sidecar["Digests"]["Configuration"] == configure(label_scheme="totalspineseg").digest
    assert "torch" in sidecar["SoftwareUsed"]
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetLinks"] == {"raw": "../raw"}
    assert description["Name"] == "Spine segmentation of Tiny"
    assert description["GeneratedBy"][0]["Container"] == {"Tag": "totalspineseg-bids:0.1.0"}
    rows = {row["name"]: row for row in read_table(out / f"{LABELS}.tsv")}
    assert rows["vertebrae_L2"]["index"] == "42"
    assert rows["disc_L2_L3"]["level"] == "L2-L3"
    assert float(rows["disc_L2_L3"]["volume-mm3"]) == 300
    columns = set(rows["disc_L2_L3"]) - {"index", "name", "abbreviation", "color"}
    assert columns <= set(sidecar)
    assert all(sidecar[name]["Units"] for name in columns if name.endswith(("-mm", "-mm2", "-mm3", "-deg")))
    lookup = {row["name"]: row for row in read_table(out / "seg-totalspineseg_dseg.tsv")}
    assert lookup["vertebrae_L2"]["color"] == rows["vertebrae_L2"]["color"]


def test_what_is_complete_is_skipped_and_what_is_not_is_redone(tmp_path, process, segmenter):
    raw = dataset(tmp_path, f"{STEM}_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")
    out = tmp_path / "out"
    assert process() == 0
    first = contents(out)
    assert segmenter.calls == 2

    assert process() == 0
    assert segmenter.calls == 2
    assert contents(out) == first

    for gone in (f"{LABELS}.nii.gz", f"{LABELS}.json"):  # a lost file; a run killed before the end
        (out / gone).unlink()
        assert process() == 0
        assert segmenter.calls == 2  # the stored result is enough
        assert contents(out) == first
    (out / f"{STEM}_label-SC_desc-T2w_probseg.nii.gz").unlink()  # not in the stored result
    assert process() == 0
    assert segmenter.calls == 3
    assert process(force=True) == 0
    assert segmenter.calls == 5
    assert contents(out) == first

    save(raw / f"{STEM}_T2w.nii.gz", tiny_image(seed=9))  # another image
    assert process() == 0
    assert segmenter.calls == 6


def test_other_settings_leave_nothing_of_the_former_result(tmp_path, process, segmenter):
    raw = dataset(tmp_path, f"{STEM}_T2w.nii.gz")
    out = tmp_path / "out"
    assert process(output_resolution="both") == 0
    assert any("res-1mm" in name for name in tree(out))
    assert process() == 0
    assert segmenter.calls == 2
    assert not any("res-1mm" in name for name in tree(out))
    save(raw / f"{STEM}_T2w.nii.gz", tiny_image(spine=False))
    assert process() == 0
    assert [name for name in tree(out) if "/anat/" in name] == [f"{LABELS}.json", f"{LABELS}.tsv"]


def test_failures_of_several_kinds_cost_only_their_images(tmp_path, process, capsys):
    raw = dataset(tmp_path, "sub-good/anat/sub-good_T2w.nii.gz", "sub-empty/anat/sub-empty_T2w.nii.gz")
    (raw / "sub-empty/anat/sub-empty_T2w.nii.gz").write_bytes(b"")
    (raw / "sub-lost/anat").mkdir(parents=True)
    (raw / "sub-lost/anat/sub-lost_T2w.nii.gz").symlink_to("../../.git/annex/objects/gone")
    assert process() == 1  # kinds of failure differ
    assert last_error(capsys).startswith("totalspineseg-bids: 2 of 3 images failed")
    assert (tmp_path / "out/sub-good/anat/sub-good_seg-totalspineseg_desc-T2w_dseg.json").is_file()
    records = {label: tmp_path / "out/logs" / f"crash-sub-{label}_T2w.json" for label in ("empty", "lost")}
    assert {label: json.loads(path.read_text())["ExitCode"] for label, path in records.items()} == {
        "empty": 65,
        "lost": 66,
    }
    save(raw / "sub-empty/anat/sub-empty_T2w.nii.gz", tiny_image())
    assert process() == 66  # that of the only kind of failure left
    assert not records["empty"].exists()


def test_an_unexpected_error_costs_one_image(tmp_path, process, segmenter):
    dataset(tmp_path, f"{STEM}_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")

    class Fragile(TinySegmenter):
        def segment(self, volume, **rest):  # type: ignore[no-untyped-def]
            self.calls += 1
            if self.calls == 1:
                msg = "index out of range"
                raise IndexError(msg)
            return segmenter.segment(volume, **rest)

    fragile = Fragile()
    assert process(factory=lambda config: LoadedSegmenter(fragile, "m", "0", False)) == 1
    record = json.loads((tmp_path / "out/logs/crash-sub-01_T2w.json").read_text())
    assert "unexpected IndexError: index out of range" in record["Reason"]
    assert any("in segment" in line for line in record["Traceback"])
    assert (tmp_path / "out/sub-02/anat/sub-02_seg-totalspineseg_desc-T2w_dseg.json").is_file()


def test_stop_on_first_crash(tmp_path, process, segmenter):
    raw = dataset(tmp_path, f"{STEM}_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")
    (raw / f"{STEM}_T2w.nii.gz").write_bytes(b"")
    assert process(stop_on_first_crash=True) == 65
    assert segmenter.calls == 0


def test_what_concerns_the_run_ends_it(tmp_path, process, configure, factory, capsys):
    raw = dataset(tmp_path, f"{STEM}_T2w.nii.gz")
    assert process(participant_label=["99"]) == 18
    assert "no participant 99" in last_error(capsys)
    assert process(suffix=["PDw"]) == 18
    assert "no image matches" in last_error(capsys)

    def no_model(_: RunConfig) -> LoadedSegmenter:
        msg = "model x: no step2 model"
        raise ModelError(msg)

    assert process(factory=no_model) == 66
    assert last_error(capsys) == "totalspineseg-bids: model x: no step2 model"
    (raw / "sub-01/anat/sub-01_weird_T2w.nii.gz").write_bytes(b"x")
    assert process(skip_bids_validation=False, strict_validation=True) == 16
    assert "not a valid BIDS dataset" in last_error(capsys)
    assert process("group") == 18
    assert process("group", out="nowhere") == 66
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_text("x")
    config = configure(out="later")
    (tmp_path / "later").write_text("in the way")
    assert run(config, factory=factory) == 73
    assert "cannot be written" in last_error(capsys)


def test_a_full_disk_ends_the_run(tmp_path, process, segmenter, monkeypatch):
    dataset(tmp_path, f"{STEM}_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("totalspineseg_bids.app.image.write_labels", full)
    assert process() == 74
    assert segmenter.calls == 1


def test_a_failure_while_writing_leaves_no_half_result(tmp_path, process, monkeypatch):
    dataset(tmp_path, f"{STEM}_T2w.nii.gz")
    assert process(output_resolution="both") == 0

    def fail(*_: object, **__: object) -> None:
        msg = "no such map"
        raise ValueError(msg)

    monkeypatch.setattr("totalspineseg_bids.app.image.write_probability", fail)
    assert process() == 1
    assert [name for name in tree(tmp_path / "out") if name.startswith("sub-01/")] == []


def test_dry_run_lists_and_writes_nothing(tmp_path, process, capsys):
    raw = dataset(tmp_path, f"{STEM}_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")
    assert process(dry_run=True) == 0
    assert not (tmp_path / "out").exists()
    assert process(participant_label=["01"]) == 0
    (raw / "sub-02/anat/sub-02_T2w.nii.gz").write_bytes(b"")
    capsys.readouterr()
    assert process(dry_run=True) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"complete\t{STEM}_T2w.nii.gz",
        "would fail\tsub-02/anat/sub-02_T2w.nii.gz",
    ]


def test_reports_only_needs_nothing_but_the_output(tmp_path, process, segmenter):
    dataset(tmp_path, f"{STEM}_T2w.nii.gz", f"{STEM}_T1w.nii.gz")
    out = tmp_path / "out"
    assert process("participant", reports_only=True) == 18
    assert process() == 0
    page = (out / "sub-01.html").read_bytes()
    (out / "sub-01.html").unlink()
    assert process(reports_only=True) == 0
    assert (out / "sub-01.html").read_bytes() == page
    assert segmenter.calls == 2


def test_a_localizer_is_done_first_and_its_labels_help(tmp_path, process, segmenter):
    images = {
        "sub-01/anat/sub-01_acq-ax_T2w.nii.gz": tiny_image(undecided=True),
        "sub-01/anat/sub-01_acq-wide_T2w.nii.gz": tiny_image(seed=1),
    }
    make_dataset(tmp_path / "raw", images)
    settings = {"localizer": "acq-wide_T2w", "label_scheme": "totalspineseg"}
    assert process(**settings) == 0
    first, second = segmenter.localizers
    assert first is None
    assert set(np.unique(second.data)) == {0, 19, 20, 21, 200, 201, 204, 205}
    sidecar = json.loads((tmp_path / "out/sub-01/anat/sub-01_acq-ax_seg-totalspineseg_desc-T2w_dseg.json").read_text())
    assert sidecar["Status"] == "labelled"
    assert sidecar["Sources"][1].startswith("bids::sub-01/anat/sub-01_acq-wide_seg-totalspineseg")
    assert process(**settings) == 0
    assert segmenter.calls == 2
    assert validate(tmp_path / "out") == []


def test_every_run_leaves_a_log_and_a_record_that_can_be_run_again(tmp_path, configure, factory):
    dataset(tmp_path, f"{STEM}_T2w.nii.gz")
    config = configure()
    assert run(config, ["totalspineseg-bids", "raw", "out"], factory) == 0
    logs = tmp_path / "out" / "logs"
    (record,) = logs.glob("run-*.toml")
    (log,) = logs.glob("run-*.log")
    assert "sub-01_T2w: labelled" in log.read_text()
    from totalspineseg_bids.config import read_toml

    assert RunConfig.from_mapping(read_toml(record)) == config
    assert logging.getLogger("totalspineseg_bids").handlers == []


def test_images_of_a_session_that_overlap_are_companions(tmp_path, process, segmenter):
    far = tmp_path / "raw/sub-01/anat/sub-01_acq-far_T2w.nii.gz"
    dataset(tmp_path, f"{STEM}_T1w.nii.gz", f"{STEM}_T2w.nii.gz", "sub-02/anat/sub-02_T2w.nii.gz")
    near = nib.load(tmp_path / f"raw/{STEM}_T2w.nii.gz")
    affine = near.affine.copy()
    affine[2, 3] += 500
    nib.save(nib.Nifti1Image(np.asarray(near.dataobj), affine), far)
    assert process() == 0
    assert sorted(segmenter.companions) == [0, 0, 1, 1]
    sidecar = tmp_path / "out" / f"{STEM}_seg-totalspineseg_desc-T1w_dseg.json"
    assert json.loads(sidecar.read_text())["Settings"]["joint_with"] == [f"{STEM}_T2w.nii.gz"]
    # Nothing changed: nothing is done. A companion that changed changes both.
    segmenter.companions.clear()
    assert process() == 0
    assert segmenter.companions == []
    save(tmp_path / f"raw/{STEM}_T2w.nii.gz", tiny_image(seed=99))
    assert process() == 0
    assert segmenter.companions == [1, 1]


def test_images_can_be_labelled_each_alone(tmp_path, process, segmenter):
    dataset(tmp_path, f"{STEM}_T1w.nii.gz", f"{STEM}_T2w.nii.gz")
    assert process(joint_session=False) == 0
    assert segmenter.companions == [0, 0]


def test_a_companion_that_cannot_be_read_costs_only_itself(tmp_path, process, segmenter):
    dataset(tmp_path, f"{STEM}_T1w.nii.gz", f"{STEM}_T2w.nii.gz")
    broken = tmp_path / f"raw/{STEM}_T2w.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-200])
    assert process() != 0
    assert segmenter.companions == [0]
    assert (tmp_path / "out" / f"{STEM}_seg-totalspineseg_desc-T1w_dseg.json").is_file()
