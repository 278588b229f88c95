import json
import math
import re
from pathlib import Path

import pytest

from tests.images import save
from tests.training.conftest import box_spine, without
from totalspineseg_bids import anatomy
from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.errors import NothingSelectedError, UsageError
from totalspineseg_bids.evaluation.compare import compare_models, parse_predictions
from totalspineseg_bids.evaluation.compare_output import comparison_table, write_comparison

from .test_evaluate import shifted


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Four images: one model is right, the other names a column wrongly, misses a disc and has no fourth image."""
    root = tmp_path_factory.mktemp("compare")
    truth = box_spine()
    hole = without(truth, anatomy.disc("C3-C4").id)
    worse = (shifted(truth), hole, truth, None)
    for number, other in enumerate(worse):
        contrast = "T1w" if number < 2 else "T2w"
        name = f"sub-{number}_seg-totalspineseg_desc-{contrast}_dseg.nii.gz"
        save(root / "truth" / f"sub-{number}_{contrast}_label-spine_dseg.nii.gz", truth)
        save(root / "good" / name, truth)
        if other is not None:
            save(root / "worse" / name, other)
    return {name: root / name for name in ("truth", "good", "worse")}


def both(folders: dict[str, Path]) -> dict[str, Path]:
    return {"two-step": folders["good"], "single": folders["worse"]}


def test_figures_and_differences(folders):
    result = compare_models(both(folders), folders["truth"])
    assert len(result.images) == 4
    assert result.without_prediction == {"two-step": 0, "single": 1}
    assert result.models["single"].figure("all_levels_right") == 0.25
    difference = result.difference("all_levels_right", "single")
    assert difference.value == -0.75
    assert difference.low <= difference.value <= difference.high <= 0
    assert difference == result.difference("all_levels_right", "single")


def test_images_without_a_prediction_can_be_left_out(folders):
    result = compare_models(both(folders), folders["truth"], drop_missing=True)
    assert [len(evaluation.images) for evaluation in result.models.values()] == [3, 3]
    assert result.left_out == (("sub-3_T2w_label-spine_dseg.nii.gz", "no prediction of single"),)
    assert "left out for every model: sub-3" in comparison_table(result)


def test_unreadable_prediction_is_left_out_for_every_model(folders, tmp_path):
    bad = tmp_path / "bad"
    for path in folders["good"].iterdir():
        content = path.read_bytes()
        (bad / path.name).parent.mkdir(exist_ok=True)
        (bad / path.name).write_bytes(content[:100] if path.name.startswith("sub-0") else content)
    result = compare_models({"a": folders["good"], "b": bad}, folders["truth"])
    assert [len(evaluation.images) for evaluation in result.models.values()] == [3, 3]
    assert result.left_out[0][0].startswith("sub-0")


def test_files(folders, tmp_path, capsys):
    arguments = [str(folders["truth"]), f"two-step={folders['good']}", f"single={folders['worse']}"]
    assert main(["compare", *arguments, "--output", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "all levels right" in text
    assert "contrast T1w (2)" in text
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    row = next(row for row in content["metrics"] if row["metric"] == "all_levels_right" and row["value"] == "T1w")
    assert (row["two-step"], row["single"], row["single_minus_two-step"]) == (1.0, 0.0, -1.0)
    for name in ("comparison", "levels", "images"):
        lines = (tmp_path / "out" / f"{name}.tsv").read_text().splitlines()
        assert len(lines) > 1
        assert len({line.count("\t") for line in lines}) == 1
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "disc C3 C4" in page
    assert not re.search(r"(src|href)=[\"'](?!data:|#)", page)
    assert "<script" not in page


def test_three_models_and_names(folders, tmp_path):
    assert parse_predictions(["a=x/y", "z/folder"]) == {"a": Path("x/y"), "folder": Path("z/folder")}
    with pytest.raises(UsageError, match="called 'a'"):
        parse_predictions(["a=x", "a=y"])
    with pytest.raises(UsageError, match="at least two"):
        compare_models({"a": folders["good"]}, folders["truth"])
    three = {"a": folders["good"], "b": folders["worse"], "c": folders["good"]}
    result = compare_models(three, folders["truth"])
    difference = result.difference("dice_levels", "c")
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    write_comparison(result, tmp_path)
    assert "c − a" in (tmp_path / "comparison.html").read_text()


def test_no_common_image(folders, tmp_path):
    only = save(tmp_path / "p" / "sub-0_desc-T1w_dseg.nii.gz", box_spine()).parent
    other = save(tmp_path / "q" / "sub-2_desc-T2w_dseg.nii.gz", box_spine()).parent
    with pytest.raises(NothingSelectedError, match="no image can be compared"):
        compare_models({"p": only, "q": other}, folders["truth"], drop_missing=True)


def test_single_image_has_no_interval(tmp_path):
    truth = save(tmp_path / "t.nii.gz", box_spine())
    result = compare_models({"a": truth, "b": truth}, truth)
    assert math.isnan(result.difference("dice_levels", "b").low)
