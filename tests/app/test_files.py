"""Files and folders of images without BIDS: what is paired with what, and what a bad file costs."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import tiny_spine  # type: ignore[import-not-found]
from tiny_spine import INTENSITY, UNDECIDED, TinySegmenter, tiny_image  # type: ignore[import-not-found]

from tests.images import block, save
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.app.files import FileJob, FileOptions, check_results, describe, find_file_jobs, segment_files
from totalspineseg_bids.errors import ExitCode, ImageError, NothingSelectedError, SpineAppError, UsageError
from totalspineseg_bids.segmentation.result import Component, LabelledSpine, SpineStatus


class Fragile(TinySegmenter):
    """Fails at undecided images, each time in another way."""

    def segment(self, volume, **rest):
        if volume.data.max() >= UNDECIDED:
            msg = "out of memory"
            raise (RuntimeError if self.calls == 2 else ValueError)(msg)
        return super().segment(volume, **rest)


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
    kinds = {"a": {}, "c": {"spine": False}, "d": {"undecided": True}, "e": {}, "f": {"undecided": True}}
    for name, kind in kinds.items():
        tiny_spine.save(source / f"{name}.nii.gz", tiny_image(**kind), "PIR" if name == "a" else "RAS")
    (source / "b.nii.gz").write_bytes((source / "a.nii.gz").read_bytes()[:80])
    outcomes = list(segment_files(find_file_jobs(source, out), Fragile(), FileOptions(scheme="totalspineseg")))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True, False, True, False]
    assert "no-spine" in outcomes[2].line
    assert {outcome.line.split(":")[-2].strip() for outcome in outcomes[3::2]} == {"RuntimeError", "ValueError"}
    assert sorted(path.name for path in out.glob("*.nii.gz")) == ["a.nii.gz", "e.nii.gz"]
    for name in ("a", "e"):
        image, labels = (nib.load(folder / f"{name}.nii.gz") for folder in (source, out))
        np.testing.assert_array_equal(labels.affine, image.affine)
        np.testing.assert_array_equal(np.asarray(labels.dataobj) == 43, np.asarray(image.dataobj) == INTENSITY[20])
    first = json.loads((out / "e.json").read_text())["components"][0]
    assert (first["label"], first["level"], first["confidence"]) == (42, "L2", 0.9)
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
