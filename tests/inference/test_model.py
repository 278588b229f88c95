import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.training.synthetic.small_plans import SUBVOXEL

from .samples import SOFTMAX, STEP1, STEP2, image

ISOTROPIC = (1.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained_model(tmp_path_factory.mktemp("model") / "Dataset101_Spine", STEP1)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "Dataset101_Spine" / original.name))


def labels_of(path: Path) -> np.ndarray:
    return (
        Predictor(load_model(path), InferenceOptions(device="cpu", engine="torch")).predict(image(), ISOTROPIC).labels
    )


def edit_plans(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    change(plans)
    (folder / "plans.json").write_text(json.dumps(plans))


def edit_checkpoint(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    change(checkpoint)
    torch.save(checkpoint, file)


def test_description(folder: Path) -> None:
    model = load_model(folder)
    assert model.labels["canal"] == (7, 8, 9)
    assert model.labels["cord"] == (9,)
    assert model.regions_class_order == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert model.channel_names == ("MRI",)
    assert model.has("disc_C2_C3")
    assert not model.has("sacrum")
    assert model.spacing == ISOTROPIC
    digest = hashlib.sha256((folder / "fold_0" / "checkpoint_final.pth").read_bytes()).hexdigest()
    assert model.digest == digest


def test_plans_may_say_how_far_apart_patches_are(folder: Path) -> None:
    assert load_model(folder).tile_step == 0.5
    edit_plans(folder, lambda plans: plans["configurations"]["3d_fullres"].update(tile_step_size=0.6))
    assert load_model(folder).tile_step == 0.6
    for wrong in (0, 1.5, "wide"):
        edit_plans(
            folder, lambda plans, value=wrong: plans["configurations"]["3d_fullres"].update(tile_step_size=value)
        )
        model = load_model(folder)
        with pytest.raises(ModelError, match="tile_step_size"):
            _ = model.tile_step


@pytest.mark.parametrize("key", ["use_mirroring", "use_bfloat16"])
def test_plans_may_ask_for_mirrored_patches_and_fewer_bits(key: str, folder: Path) -> None:
    assert getattr(load_model(folder), key) is False
    edit_plans(folder, lambda plans: plans["configurations"]["3d_fullres"].update({key: True}))
    assert getattr(load_model(folder), key) is True
    edit_plans(folder, lambda plans: plans["configurations"]["3d_fullres"].update({key: "yes"}))
    model = load_model(folder)
    with pytest.raises(ModelError, match=f"{key} in plans.json must be true or false"):
        getattr(model, key)


def test_plans_may_let_patches_grow(folder: Path) -> None:
    model = load_model(folder)
    assert model.patch_growth == 1.0
    edit_plans(folder, lambda plans: plans["configurations"]["3d_fullres"].update(patch_growth=2))
    assert load_model(folder).patch_growth == 2.0
    for wrong in (0.5, "much"):
        edit_plans(folder, lambda plans, value=wrong: plans["configurations"]["3d_fullres"].update(patch_growth=value))
        with pytest.raises(ModelError, match="patch_growth"):
            _ = load_model(folder).patch_growth


def test_what_a_patch_is_a_multiple_of_comes_from_the_strides(folder: Path) -> None:
    assert load_model(folder).patch_multiple == (4, 4, 4)
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 1]]
    for network, block in (("a.PlainConvUNet", 1), (SUBVOXEL, 2)):
        edit_plans(
            folder,
            lambda plans, name=network: plans["configurations"]["3d_fullres"].update(
                architecture={"network_class_name": name, "arch_kwargs": {"strides": strides}}
            ),
        )
        model = load_model(folder)
        assert model.voxel_block == block
        assert model.patch_multiple == (2 * block, 4 * block, 2 * block)


def test_axes_are_given_as_xyz(tmp_path: Path) -> None:
    folder = write_untrained_model(
        tmp_path, STEP1, spacing=(3.0, 1.0, 2.0), patch_size=(8, 16, 24), transpose=(2, 0, 1)
    )
    model = load_model(folder)  # the network sees (x, z, y)
    assert model.spacing == (3.0, 2.0, 1.0)
    assert model.patch_size == (8, 24, 16)
    assert model.network_patch_size == (8, 16, 24)


def test_softmax_has_no_region_order(tmp_path: Path) -> None:
    model = load_model(write_untrained_model(tmp_path, SOFTMAX))
    assert model.regions_class_order is None
    assert model.heads.names == ("background", "disc", "canal", "cord")


@pytest.mark.parametrize("above", [0, 1, 2])
def test_folders_above_the_model(folder: Path, above: int) -> None:
    path = [folder, *folder.parents][above]
    assert load_model(path).digest == load_model(folder).digest


def test_a_folder_of_several_models_is_refused(folder: Path, tmp_path: Path) -> None:
    write_untrained_model(tmp_path / "Dataset102_Spine", STEP2)
    with pytest.raises(ModelError, match="exactly one"):
        load_model(tmp_path)


def test_unknown_trainer(folder: Path) -> None:
    expected = labels_of(folder)
    edit_checkpoint(folder, lambda c: c.update(trainer_name="nnUNetTrainer_DASegOrd0_NoMirroring_Elsewhere"))
    np.testing.assert_array_equal(labels_of(folder), expected)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers(folder: Path, prefix: str) -> None:
    expected = labels_of(folder)
    edit_checkpoint(
        folder, lambda c: c.update(network_weights={prefix + k: v for k, v in c["network_weights"].items()})
    )
    np.testing.assert_array_equal(labels_of(folder), expected)


def test_half_precision_weights_are_widened(folder: Path) -> None:
    expected = labels_of(folder)
    edit_checkpoint(folder, lambda c: c.update(network_weights={k: v.half() for k, v in c["network_weights"].items()}))
    assert {tensor.dtype for tensor in load_model(folder).weights[0].values()} == {torch.float32}
    assert (labels_of(folder) != expected).mean() < 0.01


def test_unused_deep_supervision_heads(folder: Path) -> None:
    expected = labels_of(folder)

    def change(checkpoint: dict[str, Any]) -> None:
        weights = checkpoint["network_weights"]
        for part in ("weight", "bias"):
            del weights[f"decoder.seg_layers.0.{part}"]
            weights[f"decoder.seg_layers.7.{part}"] = torch.zeros(1)

    edit_checkpoint(folder, change)
    np.testing.assert_array_equal(labels_of(folder), expected)


def test_inherited_configuration(folder: Path) -> None:
    expected = labels_of(folder)
    edit_checkpoint(folder, lambda c: c["init_args"].update(configuration="3d_fullres_small_batch"))
    np.testing.assert_array_equal(labels_of(folder), expected)


def test_plans_of_the_old_form(folder: Path) -> None:
    expected = labels_of(folder)

    def change(plans: dict[str, Any]) -> None:
        configuration = plans["configurations"]["3d_fullres"]
        arguments = configuration.pop("architecture")["arch_kwargs"]
        configuration.update(
            UNet_class_name="PlainConvUNet",
            UNet_base_num_features=4,
            unet_max_num_features=8,
            conv_kernel_sizes=arguments["kernel_sizes"],
            pool_op_kernel_sizes=arguments["strides"],
            num_pool_per_axis=[2, 2, 2],
            n_conv_per_stage_encoder=arguments["n_conv_per_stage"],
            n_conv_per_stage_decoder=arguments["n_conv_per_stage_decoder"],
        )

    edit_plans(folder, change)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(folder)
    np.testing.assert_array_equal(labels_of(folder), expected)


def test_network_class_that_moved(tmp_path: Path) -> None:
    folder = write_untrained_model(tmp_path, STEP1, architecture="residual")
    expected = labels_of(folder)
    name = "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
    edit_plans(folder, lambda p: p["configurations"]["3d_fullres"]["architecture"].update(network_class_name=name))
    np.testing.assert_array_equal(labels_of(folder), expected)


def test_several_folds_have_one_digest(tmp_path: Path) -> None:
    two = load_model(write_untrained_model(tmp_path / "two", STEP1, folds=2))
    one = load_model(write_untrained_model(tmp_path / "one", STEP1, folds=1))
    assert len(two.weights) == 2
    assert len({two.digest, one.digest}) == 2


def test_best_checkpoint_and_fold_all(folder: Path) -> None:
    expected = load_model(folder).digest
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_best.pth")
    (folder / "fold_0").rename(folder / "fold_all")
    assert load_model(folder).digest == expected


def test_numpy_scalars_of_the_log_are_allowed(folder: Path) -> None:
    log = {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch": np.int64(3)}
    edit_checkpoint(folder, lambda c: c.update(logging=log, _best_ema=np.float64(0.1)))
    assert load_model(folder).has("cord")


class _Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_hostile_checkpoint_does_not_run(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    checkpoint = {"network_weights": {}, "logging": _Malicious(trace)}
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth is refused.*mkdir"):
        load_model(folder)
    assert not trace.exists()


@pytest.mark.parametrize("key", ["network_class_name", "norm_op"])
def test_plans_cannot_name_arbitrary_code(folder: Path, key: str) -> None:
    def change(plans: dict[str, Any]) -> None:
        architecture = plans["configurations"]["3d_fullres"]["architecture"]
        (architecture if key == "network_class_name" else architecture["arch_kwargs"])[key] = "os.system"

    edit_plans(folder, change)
    with pytest.raises(ModelError, match=r"os\.system"):
        load_model(folder).networks()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated checkpoint": (lambda f: _truncate(f / "fold_0" / "checkpoint_final.pth"), "checkpoint_final"),
    "empty checkpoint": (lambda f: (f / "fold_0" / "checkpoint_final.pth").write_bytes(b""), "checkpoint_final"),
    "no checkpoint": (lambda f: (f / "fold_0" / "checkpoint_final.pth").unlink(), "no nnU-Net model"),
    "no plans": (lambda f: (f / "plans.json").unlink(), "no nnU-Net model"),
    "plans not JSON": (lambda f: (f / "plans.json").write_text("{"), "plans.json"),
    "plans a list": (lambda f: (f / "plans.json").write_text("[]"), "plans.json"),
    "no labels": (lambda f: (f / "dataset.json").write_text('{"channel_names": {"0": "MRI"}}'), "labels"),
    "not a checkpoint of nnU-Net": (
        lambda f: torch.save({"state_dict": {}}, f / "fold_0" / "checkpoint_final.pth"),
        "network_weights",
    ),
    "2D": (
        lambda f: edit_plans(f, lambda p: p["configurations"]["3d_fullres"].update(patch_size=[16, 16])),
        "three-dimensional",
    ),
    "cascade": (
        lambda f: edit_plans(f, lambda p: p["configurations"]["3d_fullres"].update(previous_stage="3d_lowres")),
        "cascade",
    ),
    "unknown configuration": (
        lambda f: edit_checkpoint(f, lambda c: c["init_args"].update(configuration="3d_other")),
        "3d_other",
    ),
    "regions without order": (
        lambda f: (f / "dataset.json").write_text(json.dumps({**STEP1, "regions_class_order": [1, 2]})),
        "regions_class_order",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_models_are_named(folder: Path, what: str) -> None:
    damage, word = BROKEN[what]
    damage(folder)
    with pytest.raises(ModelError, match=word) as caught:
        load_model(folder)
    assert str(folder.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(folder: Path) -> None:
    edit_plans(
        folder,
        lambda p: p["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(
            n_conv_per_stage_decoder=[2, 2]
        ),
    )
    with pytest.raises(ModelError, match="do not fit"):
        load_model(folder).networks()


def test_missing_and_unreadable_paths(tmp_path: Path) -> None:
    (tmp_path / "text.zip").write_text("not a folder")
    for name in ("nowhere", "text.zip"):
        with pytest.raises(ModelError, match="cannot look for models"):
            load_model(tmp_path / name)
