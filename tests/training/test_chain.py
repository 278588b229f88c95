"""BIDS -> prepare -> plan -> train -> resume -> export -> load, and through the command line to install and segment."""

import json
import math
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.images import save
from totalspineseg_bids import anatomy
from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.training.export import export_model
from totalspineseg_bids.training.nnunet_env import nnunet_environment
from totalspineseg_bids.training.plan import plan_and_preprocess
from totalspineseg_bids.training.predict_test_set import mean_dice, run_test_set
from totalspineseg_bids.training.prepare import prepare
from totalspineseg_bids.training.train import TrainOptions, train

from .conftest import box_spine, image_of, without

TOO_SMALL = {"patch": (16, 16, 16), "features": (4, 8), "batch_size": 1}
SMALL = {"patch": (32, 16, 16), "features": (4, 8, 8), "batch_size": 1}


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """A dataset as it comes from a hospital: sessions, thick sagittal slices, stored from left to right, int16.

    Labels in the public scheme on a 1 mm copy, without cord and canal, which are masks of their own.
    """
    root = tmp_path_factory.mktemp("clinic") / "clinic"
    labels = box_spine()
    spine = without(labels, anatomy.CORD_ID, anatomy.CANAL_ID)
    thick = np.array([[-3.0, 0, 0, 22], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for number in range(2):
        anat = Path(f"sub-{number}") / "ses-1" / "anat"
        slices = image_of(labels, 10 + number).reshape(8, 3, *labels.shape[1:]).mean(axis=1)[::-1]
        save(root / anat / f"sub-{number}_ses-1_acq-sag_T2w.nii.gz", np.ascontiguousarray(slices, np.int16), thick)
        stem = root / "derivatives" / "labels" / anat / f"sub-{number}_ses-1_acq-sag_T2w"
        public = anatomy.to_scheme(spine, "totalspineseg")
        save(stem.with_name(f"{stem.name}_space-resampled_label-spine_dseg.nii.gz"), public)
        for name, value in (("SC", anatomy.CORD_ID), ("canal", anatomy.CANAL_ID)):
            mask = (labels == value).astype(np.uint8)
            save(stem.with_name(f"{stem.name}_space-resampled_label-{name}_seg.nii.gz"), mask)
    return root


@pytest.fixture(scope="module")
def trained(bids, clinic, tmp_path_factory):
    """A work folder with Dataset101 and Dataset102 trained for one epoch of two steps, by the command line."""
    torch.set_num_threads(1)
    work = tmp_path_factory.mktemp("work")
    prepare = ["prepare", str(work), str(bids), str(clinic), "--datasets", "101", "102", "--test", "0.3", "--strict"]
    assert main([*prepare, "--copies", "1"]) == 0
    plan = ["--plans", "small", "--patch", "32", "16", "16", "--features", "4", "8", "8", "--batch-size", "1"]
    for dataset in ("101", "102"):
        assert main(["plan", str(work), dataset, *plan]) == 0
    train = ["train", str(work), "--plans", "small", "--epochs", "1", "--iterations", "2", "--val-iterations", "1"]
    assert main([*train, "--device", "cpu", "--no-validation"]) == 0
    return work


@pytest.fixture(scope="module")
def continued(trained):
    """Dataset102 trained for a second epoch, with validation: options, and the lines that its training reported."""
    seen: list[str] = []
    options = TrainOptions(
        trained, 102, plans="small", epochs=2, iterations=1, validation_iterations=1, device="cpu", test=False
    )
    train(options, seen.append)
    return options, seen


def model_of(work: Path, name: str = "Dataset102_TotalSpineSeg_step2") -> Path:
    return work / "nnUNet_results" / name / "nnUNetTrainer__nnUNetSmallPlans__3d_fullres" / "fold_0"


def test_training_leaves_weights_curves_and_test(trained):
    for name in ("Dataset101_TotalSpineSeg_step1", "Dataset102_TotalSpineSeg_step2"):
        fold = model_of(trained, name)
        assert (fold / "checkpoint_final.pth").exists()
        assert (fold / "progress.png").read_bytes().startswith(b"\x89PNG")
        summary = json.loads((fold / "test" / "summary.json").read_text())
        truths = {path.name for path in (trained / "nnUNet_raw" / name / "labelsTs").iterdir()}
        assert {Path(row["reference_file"]).name for row in summary["metric_per_case"]} == truths
        assert len(truths) in (2, 3, 4, 6)


def test_plans_see_both_channels_and_all_regions(trained):
    with nnunet_environment(trained):
        folder = Path(os.environ["nnUNet_preprocessed"]) / "Dataset102_TotalSpineSeg_step2"  # noqa: SIM112
    assert "nnUNet_preprocessed" not in os.environ
    configuration = json.loads((folder / "nnUNetSmallPlans.json").read_text())["configurations"]["3d_fullres"]
    assert configuration["normalization_schemes"] == ["ZScoreNormalization", "NoNormalization"]
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8, 8]
    assert configuration["spacing"] == [1.0, 1.0, 1.0]
    assert all(size <= limit for size, limit in zip(configuration["patch_size"], SMALL["patch"], strict=True))
    path = plan_and_preprocess(trained, 101, "resenc-m")
    assert path.name == "nnUNetResEncUNetMPlans.json"
    configuration = json.loads(path.read_text())["configurations"]["3d_fullres"]
    assert configuration["architecture"]["network_class_name"].endswith("ResidualEncoderUNet")
    assert configuration["spacing"] == [1.0, 1.0, 1.0]


def test_second_plan_does_nothing(trained):
    data = trained / "nnUNet_preprocessed" / "Dataset102_TotalSpineSeg_step2" / "nnUNetPlans_3d_fullres"
    before = {path: path.stat().st_mtime_ns for path in data.iterdir()}
    assert before
    plan_and_preprocess(trained, 102, "small", **SMALL)
    assert {path: path.stat().st_mtime_ns for path in data.iterdir()} == before


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # levels that no held-out case of the fold has
def test_training_goes_on_where_it_stopped(continued, trained):
    options, seen = continued
    assert len(seen) == 1
    assert re.match(r"epoch 2/2  train loss -?\d", seen[0])
    folder = model_of(trained)
    summary = folder / "validation" / "summary.json"
    held_out = {Path(row["reference_file"]).name for row in json.loads(summary.read_text())["metric_per_case"]}
    assert held_out
    assert not any("aug" in name for name in held_out)
    before = summary.stat().st_mtime_ns
    assert train(options, seen.append) == folder
    assert len(seen) == 1
    assert summary.stat().st_mtime_ns == before


def test_test_set_goes_on_where_it_stopped(trained):
    fold = model_of(trained, "Dataset101_TotalSpineSeg_step1")
    first, *others = sorted((fold / "test").glob("*.nii.gz"))
    kept = {path: path.stat().st_mtime_ns for path in others}
    first.unlink()
    (fold / "test" / "stranger.nii.gz").touch()
    summary = run_test_set(trained, 101, fold, torch.device("cpu"))
    assert summary is not None
    assert 0.0 <= mean_dice(summary) <= 1.0 or math.isnan(mean_dice(summary))
    assert first.exists()
    assert {path: path.stat().st_mtime_ns for path in others} == kept
    assert not (fold / "test" / "stranger.nii.gz").exists()


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.usefixtures("continued")  # which leaves the summary of the validation
def test_export_loads(trained, tmp_path):
    from totalspineseg_bids.inference.model import load_model

    target = export_model(trained, 102, tmp_path, plans="small", fold=(0,))
    assert target.name == "Dataset102_TotalSpineSeg_step2.zip"
    again = export_model(trained, 102, tmp_path / "again.zip", plans="small", fold=(0,))
    assert target.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        root = "Dataset102_TotalSpineSeg_step2/nnUNetTrainer__nnUNetSmallPlans__3d_fullres"
        for part in ("dataset.json", "plans.json", "fold_0/checkpoint_final.pth", "dataset.tsv", "splits_final.json"):
            assert f"{root}/{part}" in names
        for part in ("progress.png", "validation/summary.json", "test/summary.json"):
            assert f"{root}/fold_0/{part}" in names
        listed = archive.read(f"{root}/dataset.tsv").decode()
        assert {line.split("\t")[4] for line in listed.splitlines()[1:]} == {"train", "test"}
        assert "dataset" not in json.loads(archive.read(f"{root}/dataset.json"))
        assert str(trained).encode() not in b"".join(archive.read(n) for n in names if n.endswith((".json", ".tsv")))
    shutil.unpack_archive(target, tmp_path / "unpacked")
    model = load_model(tmp_path / "unpacked")
    assert model.channel_names == ("MRI", "noNorm")
    assert model.has("disc_O")


def test_exported_models_install_and_segment(trained, bids, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOTALSPINESEG_BIDS_MODELS", str(tmp_path / "models"))
    for dataset, fold in ((101, "0"), (102, "0")):
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
    # The test set of `prepare` is what models are compared on: these have learnt nothing and say nothing.
    test = trained / "test"
    names = sorted(path.name for path in (test / "images").iterdir())
    assert names == sorted(path.name for path in (test / "labels").iterdir())
    two_steps = ["segment", str(test / "images"), str(tmp_path / "two"), "--model", "own", "--device", "cpu"]
    assert main([*two_steps, "--engine", "torch", "--threads", "1"]) == 0
    (tmp_path / "two").mkdir(exist_ok=True)
    copies = shutil.copytree(test / "labels", tmp_path / "perfect")
    capsys.readouterr()
    assert main(["compare", str(test / "labels"), f"right={copies}", f"own={tmp_path / 'two'}"]) == 0
    assert f"{len(names)} images, the same for every model" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda _, empty: plan_and_preprocess(empty, 101), MissingInputError, "prepare"),
        (lambda _, empty: train(TrainOptions(empty, 101, device="cpu")), MissingInputError, "plan"),
        (lambda _, empty: export_model(empty, 101, empty), MissingInputError, "train"),
        (lambda _, empty: plan_and_preprocess(empty, 101, "huge"), UsageError, "no plans 'huge'"),
        (lambda work, _: plan_and_preprocess(work, 102, "small", **TOO_SMALL), UsageError, "at least three"),
        (lambda work, _: train(TrainOptions(work, 102, fold=7, plans="small", device="cpu")), UsageError, "no fold 7"),
    ],
    ids=["no images", "no plans", "no model", "unknown plans", "two stages", "unknown fold"],
)
def test_what_is_missing_is_said(trained, tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(trained, tmp_path)


def test_images_that_were_prepared_anew_must_be_planned_anew(trained):
    table = trained / "nnUNet_raw" / "Dataset101_TotalSpineSeg_step1" / "prepared.tsv"
    before = table.read_text()
    try:
        table.write_text(before + "another")
        with pytest.raises(UsageError, match="plan' again"):
            train(TrainOptions(trained, 101, plans="small", device="cpu"))
    finally:
        table.write_text(before)


def test_fold_all_and_planning_on_the_way(bids, tmp_path, capsys):
    assert main(["train", str(tmp_path)]) == 66
    assert "prepare" in capsys.readouterr().err
    prepare([bids], tmp_path, datasets=(103,), test_fraction=0)
    steps = ["--epochs", "1", "--iterations", "1", "--val-iterations", "1", "--device", "cpu", "--no-validation"]
    assert main(["train", str(tmp_path), "--plans", "small", "--fold", "all", *steps]) == 0
    out = capsys.readouterr().out
    assert "planned and preprocessed" in out
    assert "epoch 1/1  train loss" in out
    fold = model_of(tmp_path, "Dataset103_TotalSpineSeg_full").with_name("fold_all")
    assert (fold / "checkpoint_final.pth").exists()
    assert not (fold / "test").exists()
