import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from tests.images import save
from tests.training.conftest import DISCS, LEVELS, box_spine, turned, without
from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import MissingInputError, NothingSelectedError
from totalspineseg_bids.evaluation.evaluate import evaluate
from totalspineseg_bids.evaluation.evaluate_output import evaluation_table, write_evaluation
from totalspineseg_bids.evaluation.metrics import ImageResult, LevelResult, Outcome, compare, cut_labels
from totalspineseg_bids.evaluation.pairing import pair_files

EYE = np.eye(4)


def row(result: ImageResult, name: str) -> LevelResult:
    return next(level for level in result.levels if level.name == name)


def shifted(labels: np.ndarray) -> np.ndarray:
    """Every level named one too low, as after a count that is off by one."""
    table = np.arange(256, dtype=np.uint8)
    for level, below in zip(LEVELS, (*LEVELS[1:], "C6"), strict=True):
        table[anatomy.vertebra(level).id] = anatomy.vertebra(below).id
    for disc, below in zip(DISCS, (*DISCS[1:], "C5-C6"), strict=True):
        table[anatomy.disc(disc).id] = anatomy.disc(below).id
    return table[labels]


def test_perfect():
    truth = box_spine()
    result = compare(truth, truth, EYE)
    assert result.outcome is Outcome.RIGHT
    assert result.landmark_in_view
    assert {level.dice for level in result.levels} == {1.0}
    assert {level.distance_mm for level in result.levels} == {0.0}
    assert {level.nsd for level in result.levels} == {1.0}
    assert row(result, "spinal_cord").identified is None


def test_dice_is_that_of_sets():
    truth = box_spine()
    predicted = np.roll(truth, 2, axis=0)
    mask, moved = truth == anatomy.vertebra("C3").id, predicted == anatomy.vertebra("C3").id
    result = row(compare(truth, predicted, EYE), "vertebrae_C3")
    assert result.dice == pytest.approx(2 * (mask & moved).sum() / (mask.sum() + moved.sum()))
    assert result.distance_mm == pytest.approx(2.0)
    affine = np.diag([2.0, 0.5, 1.0, 1.0])
    assert row(compare(truth, predicted, affine), "vertebrae_C3").distance_mm == pytest.approx(4.0)
    assert result.truth_mm3 == mask.sum()
    assert 0 < result.nsd < row(compare(truth, predicted, EYE, tolerance_mm=2.0), "vertebrae_C3").nsd == 1.0


def test_two_claims_at_one_place_identify_neither_neighbour():
    """C4 called C3 in its lower half: the prediction of C3 is no longer the nearest to both centres."""
    truth = box_spine()
    predicted = truth.copy()
    c4 = np.argwhere(truth == anatomy.vertebra("C4").id)
    predicted[truth == anatomy.vertebra("C3").id] = 0
    lower = c4[c4[:, 2] < c4[:, 2].mean()]
    predicted[tuple(lower.T)] = anatomy.vertebra("C3").id
    result = compare(truth, predicted, EYE)
    assert row(result, "vertebrae_C4").identified
    assert not row(result, "vertebrae_C3").identified
    assert row(result, "vertebrae_C3").misnamed


def test_off_by_one_is_wrong_and_never_identified():
    truth = box_spine()
    result = compare(truth, shifted(truth), EYE)
    assert result.outcome is Outcome.WRONG
    assert not any(level.identified for level in result.levels)
    assert row(result, "vertebrae_C3").misnamed
    assert row(result, "vertebrae_C6").misnamed
    assert not row(result, "vertebrae_C6").in_truth


def test_found_part_of_a_cut_vertebra_is_not_misnamed():
    truth = np.zeros((10, 60, 40), np.uint8)
    body, process = np.s_[2:8, 40:58, 36:40], np.s_[2:8, 2:20, 34:40]
    truth[body] = truth[process] = anatomy.vertebra("T4").id
    truth[2:8, 40:58, 20:34] = anatomy.vertebra("T5").id
    predicted = truth.copy()
    predicted[process] = 0
    sliver = row(compare(truth, predicted, EYE), "vertebrae_T4")
    assert not sliver.identified
    assert not sliver.misnamed
    predicted[truth == anatomy.vertebra("T5").id] = anatomy.vertebra("T4").id
    assert row(compare(truth, predicted, EYE), "vertebrae_T4").misnamed


def test_missing_level_is_incomplete():
    truth = box_spine()
    predicted = without(truth, anatomy.disc("C3-C4").id)
    result = compare(truth, predicted, EYE)
    assert result.outcome is Outcome.INCOMPLETE
    assert row(result, "disc_C3_C4").dice == 0.0
    assert math.isnan(row(result, "disc_C3_C4").distance_mm)


def test_unnamed_is_abstained_and_nothing_is_empty():
    truth = box_spine()
    unnamed = np.where((truth > 0) & (truth < 200), 101, np.where(truth > 201, 151, truth)).astype(np.uint8)
    assert compare(truth, unnamed, EYE).outcome is Outcome.ABSTAINED
    assert compare(truth, np.zeros_like(truth), EYE).outcome is Outcome.EMPTY


def test_hallucinated_level_is_wrong_but_a_crumb_is_not():
    truth = box_spine((24, 36, 120))
    truth[:, :, :60] = 0
    predicted = truth.copy()
    predicted[2:4, 2:4, 2:4] = anatomy.vertebra("L5").id
    assert compare(truth, predicted, EYE).outcome is Outcome.RIGHT
    predicted[2:12, 2:12, 2:12] = anatomy.vertebra("L5").id
    assert compare(truth, predicted, EYE).outcome is Outcome.WRONG


def test_what_the_field_of_view_cuts():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[0, 5, 5], labels[5, 0, 5], labels[5, 5, 9], labels[5, 5, 5] = 20, 21, 22, 23
    assert cut_labels(labels, EYE) == {21, 22}
    # Stored with the axes in another order, the same labels are cut.
    assert cut_labels(*turned(labels)) == {21, 22}


def test_cut_levels_do_not_count():
    truth = box_spine()[:, :, 5:]
    bottom = anatomy.vertebra("C5")
    predicted = without(truth, bottom.id)
    result = compare(truth, predicted, EYE)
    assert not row(result, bottom.name).full_view
    assert result.outcome is Outcome.RIGHT


def test_files_on_other_grids_and_schemes(tmp_path):
    truth = box_spine()
    predicted, affine = turned(anatomy.to_scheme(truth, "totalspineseg"))
    pred, ref = save(tmp_path / "p.nii.gz", predicted, affine), save(tmp_path / "t.nii.gz", truth)
    result = evaluate([(pred, ref)], label_scheme="totalspineseg", truth_scheme="seed")
    assert not result.failed
    assert result.summary()["dice_levels"] == 1.0


def bids_pair(root: Path, truth: np.ndarray, predictions: dict[str, np.ndarray]) -> tuple[Path, Path]:
    for contrast, predicted in predictions.items():
        save(root / "truth" / "sub-1" / "anat" / f"sub-1_{contrast}_label-spine_dseg.nii.gz", truth)
        name = f"sub-1_seg-totalspineseg_desc-{contrast}_dseg.nii.gz"
        save(root / "pred" / "sub-1" / "anat" / name, predicted)
        save(root / "pred" / "sub-1" / "anat" / f"sub-1_seg-levels_desc-{contrast}_dseg.nii.gz", predicted)
    return root / "pred", root / "truth"


def test_figures_and_files(tmp_path):
    truth = box_spine()
    pred, ref = bids_pair(tmp_path, truth, {"T1w": truth, "T2w": shifted(truth)})
    pairs = pair_files(pred, ref)
    assert [(p.name, t.name) for p, t in pairs] == [
        ("sub-1_seg-totalspineseg_desc-T1w_dseg.nii.gz", "sub-1_T1w_label-spine_dseg.nii.gz"),
        ("sub-1_seg-totalspineseg_desc-T2w_dseg.nii.gz", "sub-1_T2w_label-spine_dseg.nii.gz"),
    ]
    result = evaluate(pairs)
    figures = result.summary()
    assert figures["images"] == figures["images_with_landmark"] == 2
    assert figures["silently_wrong"] == 1
    assert figures["all_levels_right_with_landmark"] == 0.5
    assert figures["identification_rate"]["discs"] == 0.5
    assert [(value, part.figure("all_levels_right")) for _, value, part in result.groups()[1:]] == [
        ("T1w", 1.0),
        ("T2w", 0.0),
    ]
    write_evaluation(result, tmp_path / "out", {"model": "x"})
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert content["model"] == "x"
    assert content["by_contrast"]["T1w"]["dice_levels"] == 1.0
    assert content["summary"]["dice"]["sacrum"] is None
    assert content["levels_by_contrast"]["T1w"][0]["nsd"] == 1.0
    levels = (tmp_path / "out" / "levels.tsv").read_text()
    assert "contrast\tT2w\tdisc_C3_C4\t" in levels
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "silently wrong" in page
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)
    assert "<script" not in page
    for name in ("images", "structures", "levels"):
        lines = (tmp_path / "out" / f"{name}.tsv").read_text().splitlines()
        assert len(lines) > 1
        assert len({line.count("\t") for line in lines}) == 1
    text = evaluation_table(result)
    assert "contrast T1w" in text
    assert "disc_C3_C4" in text


def test_plain_folders_pair_by_name(tmp_path):
    truth = box_spine()
    for name in ("a", "b"):
        save(tmp_path / "truth" / f"{name}.nii.gz", truth)
    save(tmp_path / "pred" / "a.nii.gz", truth)
    pairs = pair_files(tmp_path / "pred", tmp_path / "truth")
    assert [(p and p.name, t.name) for p, t in pairs] == [("a.nii.gz", "a.nii.gz"), (None, "b.nii.gz")]
    result = evaluate(pairs)
    assert [image.outcome for image in result.images] == [Outcome.RIGHT, Outcome.EMPTY]
    assert result.summary()["all_levels_right"] == 0.5
    with pytest.raises(MissingInputError):
        pair_files(tmp_path / "pred", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NothingSelectedError):
        pair_files(tmp_path / "empty", tmp_path / "truth")


def test_same_subject_of_two_datasets_pairs_by_name(tmp_path):
    truth = box_spine()
    for dataset, predicted in (("a", truth), ("data-multi-subject", shifted(truth))):
        save(tmp_path / "truth" / f"{dataset}_sub-1_T2w.nii.gz", truth)
        save(tmp_path / "pred" / f"{dataset}_sub-1_T2w.nii.gz", predicted)
    pairs = pair_files(tmp_path / "pred", tmp_path / "truth")
    assert [(p and p.name) for p, _ in pairs] == [t.name for _, t in pairs]
    result = evaluate(pairs)
    assert [image.outcome for image in result.images] == [Outcome.RIGHT, Outcome.WRONG]
    assert [group[:2] for group in result.groups()] == [("all", "all"), ("contrast", "T2w")]


def test_plainest_name_of_several_predictions_counts(tmp_path):
    truth = save(tmp_path / "truth" / "sub-1_T2w_label-spine_dseg.nii.gz", box_spine())
    for added in ("res-1mm_seg-x_desc-T2w", "seg-x_desc-T2w"):
        save(tmp_path / "pred" / f"sub-1_{added}_dseg.nii.gz", box_spine())
    ((predicted, _),) = pair_files(tmp_path / "pred", truth.parent)
    assert predicted.name == "sub-1_seg-x_desc-T2w_dseg.nii.gz"


def test_bad_file_does_not_stop_the_others(tmp_path):
    truth = box_spine()
    good = save(tmp_path / "good.nii.gz", truth)
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(good.read_bytes()[:100])
    result = evaluate([(bad, good), (good, good)])
    assert len(result.images) == 1
    assert "bad.nii.gz" in result.failed[0][1]
    assert "not compared" in evaluation_table(result)
