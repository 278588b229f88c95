"""Files and folders of images without BIDS: what is paired with what, and what a bad file costs."""

from __future__ import annotations

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from tests.images import block, data, save
from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.app.files import FileJob, FileOptions, check_results, describe, find_file_jobs, segment_files
from totalspineseg_bids.app.segmenter import StageProgress
from totalspineseg_bids.errors import ExitCode, ImageError, NothingSelectedError, SpineAppError, UsageError
from totalspineseg_bids.imaging.grid import to_working_grid
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.result import Component, LabelledSpine, SpineStatus

TURNED = np.array([[0, 0, -1, 23], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)


class Threshold:
    """A segmenter that calls bright voxels L3 and dark ones nothing."""

    def segment(
        self, volume: Volume, *, localizer: Volume | None = None, progress: StageProgress | None = None
    ) -> LabelledSpine:
        working = to_working_grid(volume)
        label = anatomy.vertebra("L3").id
        labels = np.where(working.data > 50, label, 0).astype(np.uint8)
        if working.data.max() > 1000:
            msg = "out of memory"
            raise (ValueError if working.data.max() > 6000 else RuntimeError)(msg)
        if not labels.any():
            return LabelledSpine(labels, working.affine, (), SpineStatus.NO_SPINE, "neither canal nor disc in view")
        component = Component(label, Structure.VERTEBRA, "L3", 0.9, "L2", None, False, float(labels.sum()), (0, 0, 0))
        return LabelledSpine(labels, working.affine, (component,), SpineStatus.LABELLED)


def test_jobs_of_files_and_folders(tmp_path):
    image = save(tmp_path / "in" / "a.nii.gz", block())
    deeper = save(tmp_path / "in" / "x" / "b.nii", block())
    save(tmp_path / "in" / "derivatives" / "c.nii.gz", block())
    out = tmp_path / "out"
    assert find_file_jobs(image, out / "z.nii.gz") == [FileJob(image, out / "z.nii.gz")]
    assert find_file_jobs(image, out) == [FileJob(image, out / "a.nii.gz")]
    assert find_file_jobs(tmp_path / "in", out) == [
        FileJob(image, out / "a.nii.gz"),
        FileJob(deeper, out / "x" / "b.nii"),
    ]
    nested = save(tmp_path / "bids" / "sub-1" / "ses-2" / "anat" / "sub-1_ses-2_T2w.nii.gz", block())
    save(tmp_path / "bids" / "sub-1" / "ses-2" / "func" / "sub-1_ses-2_bold.nii.gz", block())
    jobs = find_file_jobs(tmp_path / "bids", tmp_path / "bids" / "out")
    assert jobs == [FileJob(nested, tmp_path / "bids" / "out" / "sub-1" / "ses-2" / "anat" / nested.name)]
    for target in (image, tmp_path / "in"):
        with pytest.raises(UsageError, match="replace the input"):
            find_file_jobs(image, target)
    with pytest.raises(UsageError, match="replace the input"):
        find_file_jobs(tmp_path / "in", tmp_path / "in")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingSelectedError):
        find_file_jobs(tmp_path / "empty", out)
    for hidden in ("in/._a.nii.gz", "in/.cache/b.nii.gz", "bids/sub-1/ses-2/anat/._sub-1_ses-2_T2w.nii.gz"):
        save(tmp_path / hidden, block())
    assert [job.source for job in find_file_jobs(tmp_path / "in", out)] == [image, deeper]
    assert [job.source for job in find_file_jobs(tmp_path / "bids", out)] == [nested]
    save(tmp_path / "in" / "a.nii", block())
    with pytest.raises(UsageError, match=r"in: a\.nii and a\.nii\.gz would give the same output"):
        find_file_jobs(tmp_path / "in", out)


def test_one_bad_file_does_not_cost_the_others(tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    image = block()
    save(source / "a.nii.gz", np.ascontiguousarray(image[::-1].transpose(1, 2, 0)), TURNED)
    (source / "b.nii.gz").write_bytes((source / "a.nii.gz").read_bytes()[:80])
    save(source / "c.nii.gz", block(20.0))
    save(source / "d.nii.gz", block(5000.0))
    save(source / "d2.nii.gz", block(9000.0))
    save(source / "e.nii.gz", image)
    outcomes = list(segment_files(find_file_jobs(source, out), Threshold(), FileOptions(scheme="totalspineseg")))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False, False, True]
    assert "no-spine" in outcomes[2].line
    assert {outcome.line.split(":")[-2].strip() for outcome in outcomes[3:5]} == {"RuntimeError", "ValueError"}
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a.nii.gz", "e.nii.gz"]
    np.testing.assert_array_equal(data(out / "e.nii.gz"), np.where(image > 50, 43, 0))
    turned = nib.load(out / "a.nii.gz")
    np.testing.assert_array_equal(turned.affine, TURNED)
    np.testing.assert_array_equal(
        np.asanyarray(turned.dataobj)[:, :, ::-1].transpose(2, 0, 1), np.where(image > 50, 43, 0)
    )
    report = json.loads((out / "e.json").read_text())
    assert report["components"][0] == report["components"][0] | {"label": 43, "level": "L3", "runner_up": "L2"}
    assert json.loads((out / "c.json").read_text())["status"] == "no-spine"
    with pytest.raises(SpineAppError, match=r"3 of 6 images failed; the first: .*b\.nii\.gz") as caught:
        check_results(outcomes)
    assert caught.value.exit_code is ExitCode.BAD_DATA
    with pytest.raises(ImageError):
        check_results(outcomes[1:2])
    assert check_results([outcomes[0], outcomes[2]]) == 0


def test_doubtful_names_are_in_the_line_of_the_image():
    sure = Component(1, Structure.VERTEBRA, "L3", 0.9, "L2", None, False, 1.0, (0, 0, 0))
    doubted = replace(sure, level="L4", reason="a shift by one level cannot be ruled out")
    spine = LabelledSpine(np.zeros((1, 1, 1), np.uint8), np.eye(4), (sure, doubted), SpineStatus.LABELLED)
    flags = ("doubtful-levels", "L6")
    assert describe("a", replace(spine, flags=flags)) == "a: labelled; 2 levels; doubtful: L4; look at: L6"
