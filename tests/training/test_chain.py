"""BIDS -> prepare -> plan -> train -> resume -> export -> load, and through the command line to install and segment."""

from __future__ import annotations

import json
import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.training.export import export_model
from totalspineseg_bids.training.nnunet_env import nnunet_environment
from totalspineseg_bids.training.plan import plan_and_preprocess
from totalspineseg_bids.training.prepare import prepare
from totalspineseg_bids.training.train import Epoch, TrainOptions, train

SMALL = {"patch": (32, 16, 16), "features": (4, 8, 8), "batch_size": 1}


@pytest.fixture(scope="module")
def trained(bids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with Dataset101 and Dataset102 trained for one epoch of two steps."""
    torch.set_num_threads(1)
    work = tmp_path_factory.mktemp("work")
    prepare([bids], work, datasets=(101, 102), test_fraction=0.25)
    plans = plan_and_preprocess(work, 102, "small", **SMALL)
    assert plans.name == "nnUNetSmallPlans.json"
    seen: list[Epoch] = []
    options = TrainOptions(
        work, 102, plans="small", epochs=1, iterations=2, validation_iterations=1, device="cpu", validate=False
    )
    folder = train(options, seen.append)
    assert (folder / "checkpoint_final.pth").exists()
    assert [(epoch.number, epoch.total) for epoch in seen] == [(1, 1)]
    assert all(math.isfinite(epoch.train_loss) for epoch in seen)
    plan_and_preprocess(work, 101, "small", **SMALL)
    train(replace(options, dataset=101, fold="all", iterations=1))
    return work


def test_environment_is_put_back(tmp_path: Path) -> None:
    before = dict(os.environ)
    with nnunet_environment(tmp_path):
        assert os.environ["nnUNet_raw"].startswith(str(tmp_path))  # noqa: SIM112
    assert dict(os.environ) == before


def test_plans_see_both_channels_and_all_regions(trained: Path) -> None:
    folder = trained / "nnUNet_preprocessed" / "Dataset102_TotalSpineSeg_step2"
    plans = json.loads((folder / "nnUNetSmallPlans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["ZScoreNormalization", "NoNormalization"]
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8, 8]
    assert configuration["spacing"] == [1.0, 1.0, 1.0]
    assert all(size <= limit for size, limit in zip(configuration["patch_size"], SMALL["patch"], strict=True))


def test_second_plan_does_nothing(trained: Path) -> None:
    data = trained / "nnUNet_preprocessed" / "Dataset102_TotalSpineSeg_step2" / "nnUNetPlans_3d_fullres"
    before = {path: path.stat().st_mtime_ns for path in data.iterdir()}
    assert before
    plan_and_preprocess(trained, 102, "small", **SMALL)
    assert {path: path.stat().st_mtime_ns for path in data.iterdir()} == before


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # levels that no held-out case has
def test_training_goes_on_where_it_stopped(trained: Path) -> None:
    options = TrainOptions(
        trained, 102, plans="small", epochs=2, iterations=1, validation_iterations=1, device="cpu", validate=True
    )
    seen: list[Epoch] = []
    folder = train(options, seen.append)
    assert [epoch.number for epoch in seen] == [2]
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) > 0
    assert (folder / "progress.png").exists()


def test_export_loads(trained: Path, tmp_path: Path) -> None:
    from totalspineseg_bids.inference.model import load_model

    target = export_model(trained, 102, tmp_path, plans="small", fold=(0,))
    assert target.name == "Dataset102_TotalSpineSeg_step2.zip"
    again = export_model(trained, 102, tmp_path / "again.zip", plans="small", fold=(0,))
    assert target.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        root = "Dataset102_TotalSpineSeg_step2/nnUNetTrainer__nnUNetSmallPlans__3d_fullres"
        for part in ("dataset.json", "plans.json", "fold_0/checkpoint_final.pth", "training_images.tsv"):
            assert f"{root}/{part}" in names
        assert "dataset" not in json.loads(archive.read(f"{root}/dataset.json"))
        assert str(trained).encode() not in b"".join(archive.read(n) for n in names if n.endswith((".json", ".tsv")))
    model = load_model(target)
    assert model.channel_names == ("MRI", "noNorm")
    assert model.has("disc_O")


def test_exported_models_install_and_segment(
    trained: Path, bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODELS", str(tmp_path / "models"))
    for dataset, fold in ((101, "all"), (102, "0")):
        export = ["export", str(trained), str(dataset), str(tmp_path / "zips"), "--plans", "small", "--fold", fold]
        assert main(export) == 0
    for path in sorted((tmp_path / "zips").iterdir()):
        assert main(["models", "install", str(path), "--name", "own"]) == 0
    assert main(["models", "verify", "own"]) == 0
    image = bids / "sub-00" / "anat" / "sub-00_T2w.nii.gz"
    capsys.readouterr()
    segment = ["segment", str(image), str(tmp_path / "out"), "--model", "own", "--device", "cpu", "--engine", "torch"]
    assert main([*segment, "--threads", "1", "--report"]) == 0
    assert "sub-00_T2w.nii.gz: " in capsys.readouterr().out
    assert (tmp_path / "out" / "sub-00_T2w.json").exists()


def test_what_is_missing_is_said(bids: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="prepare"):
        plan_and_preprocess(tmp_path, 101)
    with pytest.raises(MissingInputError, match="plan"):
        train(TrainOptions(tmp_path, 101, device="cpu"))
    with pytest.raises(MissingInputError, match="train"):
        export_model(tmp_path, 101, tmp_path)
    with pytest.raises(UsageError, match="no plans 'huge'"):
        plan_and_preprocess(tmp_path, 101, "huge")


def test_too_small_a_network_is_refused(trained: Path) -> None:
    with pytest.raises(UsageError, match="at least three"):
        plan_and_preprocess(trained, 102, "small", patch=(16, 16, 16), features=(4, 8), batch_size=1)


def test_fold_that_does_not_exist(trained: Path) -> None:
    with pytest.raises(UsageError, match="no fold 7"):
        train(TrainOptions(trained, 102, fold=7, plans="small", device="cpu"))
