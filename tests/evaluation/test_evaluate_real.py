"""``benchmarks/evaluate_real.py`` on a dataset of boxes, with predictions that are wrong in known ways."""

from pathlib import Path

import numpy as np
import pytest

from tests.images import save
from tests.training.conftest import box_spine, image_of, without
from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure


@pytest.fixture
def script(benchmark):
    return benchmark("evaluate_real")


def _dataset(folder: Path, truth: np.ndarray) -> Path:
    """Two subjects, T2w and T1w, with labels named as `datasets get` names those of SPIDER."""
    for subject, suffix in (("sub-001", "T2w"), ("sub-002", "T1w")):
        save(folder / subject / "anat" / f"{subject}_acq-lowresSag_{suffix}.nii.gz", image_of(truth, 0))
        name = f"{subject}_acq-lowresSag_seg-spider_desc-{suffix}_dseg.nii.gz"
        save(folder / "derivatives" / "labels" / subject / "anat" / name, truth)
    return folder


def _run(script, tmp_path, truth, predicted) -> None:
    """Score one prediction of the first image and a perfect one of the second."""
    bids, output = _dataset(tmp_path / "spider", truth), tmp_path / "out"
    save(output / "labels" / "spider_sub-001_acq-lowresSag_T2w.nii.gz", predicted)
    save(output / "labels" / "spider_sub-002_acq-lowresSag_T1w.nii.gz", truth)
    assert script.main([str(bids), "--output", str(output), "--reuse"]) == 0
    assert (output / "evaluation.json").is_file()


def _row(printed: str, *start: str) -> list[str]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]
    return next(row for row in rows if row[: len(start)] == list(start))


_DISC = anatomy.disc("C4-C5").id
_BOXES = box_spine()
_SPIDER = np.where(np.isin(_BOXES, anatomy.CORD_ID), anatomy.CANAL_ID, _BOXES).astype(np.uint8)
_SHIFTED = _BOXES.copy()
for _level, _other in (("C3", "C4"), ("C4", "C5"), ("C5", "C6")):
    _SHIFTED[anatomy.vertebra(_level).id == _BOXES] = anatomy.vertebra(_other).id
_SACRUM = np.where((_SPIDER == 0) & (np.arange(56) < 6), anatomy.SACRUM_ID, _SPIDER).astype(np.uint8)
_BEYOND = np.where((_SPIDER == 0) & (np.arange(56) < 6), anatomy.vertebra("C7").id, _SPIDER).astype(np.uint8)


@pytest.mark.parametrize(
    "example",
    [
        (_BOXES, _BOXES, (("discs", "cervical"), ["6", "1.000", "1.000", "6 of 6"])),
        (_BOXES, _BOXES, (("spinal cord", "all"), ["2", "1.000", "1.000", "-"])),
        (_BOXES, without(_BOXES, _DISC), (("discs", "cervical"), ["6", "0.833", "0.833", "5 of 6"])),
        (_BOXES, _SHIFTED, (("acq-lowresSag_T2w",), ["1", "0.571", "0", "0", "0", "1"])),
        (_BOXES, np.zeros_like(_BOXES), (("acq-lowresSag_T2w",), ["1", "0.000", "0", "0", "1", "0"])),
        # Without a cord in the truth, the canal includes it; a sacrum and levels beyond the truth are not asked for.
        (_SPIDER, _BOXES, (("spinal canal", "all"), ["2", "1.000", "1.000", "-"])),
        (_SPIDER, _SACRUM, (("all",), ["2", "1.000", "2", "0", "0", "0"])),
        (_SPIDER, _BEYOND, (("all",), ["2", "1.000", "2", "0", "0", "0"])),
    ],
)
def test_the_tables_say_what_is_wrong(script, tmp_path, capsys, example):
    truth, predicted, (start, cells) = example
    _run(script, tmp_path, truth, predicted)
    printed = str(capsys.readouterr().out)
    assert _row(printed, *start)[len(start) :] == cells


def test_a_name_that_lies_on_another_level_stays_an_error(script):
    kinds = {Structure.VERTEBRA, Structure.DISC, Structure.CANAL}
    for level in ("C4", "C5", "C6"):
        wrong = anatomy.vertebra(level).id
        assert np.array_equal(script.covered(_SPIDER, _SHIFTED, kinds) == wrong, wrong == _SHIFTED)


def test_a_folder_without_truth_is_refused_with_the_reason(script, tmp_path, capsys):
    save(tmp_path / "raw" / "sub-1" / "anat" / "sub-1_T2w.nii.gz", image_of(_BOXES, 0))
    assert script.main([str(tmp_path / "raw"), "--output", str(tmp_path / "out")]) != 0
    assert "derivatives/labels" in capsys.readouterr().err
