import gc
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.training.synthetic.small_plans import SUBVOXEL

from .samples import ISO, SOFTMAX, STEP1, STEP2, TORCH, image


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_untrained_model(tmp_path_factory.mktemp("model") / "Dataset101_Spine", STEP1)


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "Dataset101_Spine" / original.name))


def labels_of(path):
    return Predictor(load_model(path), TORCH).predict(image(), ISO).labels


def edit_plans(folder, change):
    """Change the entries of the configuration in ``plans.json``."""
    plans = json.loads((folder / "plans.json").read_text())
    change(plans["configurations"]["3d_fullres"])
    (folder / "plans.json").write_text(json.dumps(plans))


def edit_checkpoint(folder, change):
    file = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    change(checkpoint)
    torch.save(checkpoint, file)


@pytest.mark.parametrize(
    ("key", "attribute", "values", "wrong"),
    [
        ("tile_step_size", "tile_step", (0.5, 0.6), (0, 1.5, "wide")),
        ("patch_growth", "patch_growth", (1.0, 2.0), (0.5, "much")),
        ("use_mirroring", "use_mirroring", (False, True), ("yes",)),
        ("use_bfloat16", "use_bfloat16", (False, True), ("yes",)),
    ],
)
def test_plans_may_say_how_patches_are_predicted(key, attribute, values, wrong, folder):
    default, given = values
    assert getattr(load_model(folder), attribute) == default
    edit_plans(folder, lambda plans: plans.update({key: given}))
    assert getattr(load_model(folder), attribute) == given
    for value in wrong:
        edit_plans(folder, lambda plans, value=value: plans.update({key: value}))
        model = load_model(folder)
        with pytest.raises(ModelError, match=f"{key} in plans.json must"):
            getattr(model, attribute)


def test_description(folder):
    model = load_model(folder)
    assert model.labels["canal"] == (7, 8, 9)
    assert model.labels["cord"] == (9,)
    assert model.regions_class_order == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert model.channel_names == ("MRI",)
    assert model.has("disc_C2_C3")
    assert not model.has("sacrum")
    assert model.spacing == ISO
    digest = hashlib.sha256((folder / "fold_0" / "checkpoint_final.pth").read_bytes()).hexdigest()
    assert model.digest == digest


def test_what_a_patch_is_a_multiple_of_comes_from_the_strides_unless_the_network_takes_any_size(folder):
    assert load_model(folder).patch_multiple == (4, 4, 4)
    for network, block, multiple in (("a.PlainConvUNet", 1, (2, 4, 2)), (SUBVOXEL, 2, (8, 8, 8))):
        built = {"network_class_name": network, "arch_kwargs": {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 1]]}}
        edit_plans(folder, lambda plans, built=built: plans.update(architecture=built))
        model = load_model(folder)
        assert model.voxel_block == block
        assert model.coarsest_voxel == (2 * block, 4 * block, 2 * block)
        assert model.patch_multiple == multiple


def rename_weights(prefix):
    return lambda c: c.update(network_weights={prefix + name: w for name, w in c["network_weights"].items()})


def exchange_unused_heads(checkpoint):
    weights = checkpoint["network_weights"]
    for part in ("weight", "bias"):
        del weights[f"decoder.seg_layers.0.{part}"]
        weights[f"decoder.seg_layers.7.{part}"] = torch.zeros(1)


LOG = {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch": np.int64(3)}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda c: c.update(trainer_name="nnUNetTrainer_DASegOrd0_NoMirroring_Elsewhere"), id="trainer"),
        *[pytest.param(rename_weights(name), id=name) for name in ("module.", "_orig_mod.", "module._orig_mod.")],
        pytest.param(exchange_unused_heads, id="unused heads of deep supervision"),
        pytest.param(lambda c: c["init_args"].update(configuration="3d_fullres_small_batch"), id="inherited"),
        pytest.param(lambda c: c.update(logging=LOG, _best_ema=np.float64(0.1)), id="numpy scalars of the log"),
    ],
)
def test_what_other_trainers_leave_in_a_checkpoint_changes_no_label(folder, change):
    expected = labels_of(folder)
    edit_checkpoint(folder, change)
    np.testing.assert_array_equal(labels_of(folder), expected)


def test_axes_are_given_as_xyz(tmp_path):
    folder = write_untrained_model(
        tmp_path, STEP1, spacing=(3.0, 1.0, 2.0), patch_size=(8, 16, 24), transpose=(2, 0, 1)
    )
    model = load_model(folder)  # the network sees (x, z, y)
    assert model.spacing == (3.0, 2.0, 1.0)
    assert model.patch_size == (8, 24, 16)
    assert model.network_patch_size == (8, 16, 24)


def test_softmax_has_no_region_order(tmp_path):
    model = load_model(write_untrained_model(tmp_path, SOFTMAX))
    assert model.regions_class_order is None
    assert model.heads.names == ("background", "disc", "canal", "cord")


@pytest.mark.parametrize("above", [0, 1, 2])
def test_folders_above_the_model(folder, above):
    path = [folder, *folder.parents][above]
    assert load_model(path).digest == load_model(folder).digest


def test_a_folder_of_several_models_is_refused(folder, tmp_path):
    write_untrained_model(tmp_path / "Dataset102_Spine", STEP2)
    with pytest.raises(ModelError, match="exactly one"):
        load_model(tmp_path)


def test_half_precision_weights_are_widened(folder):
    expected = labels_of(folder)
    edit_checkpoint(folder, lambda c: c.update(network_weights={k: v.half() for k, v in c["network_weights"].items()}))
    assert {tensor.dtype for tensor in load_model(folder).weights[0].values()} == {torch.float32}
    assert (labels_of(folder) != expected).mean() < 0.01


def test_plans_of_the_old_form(folder):
    expected = labels_of(folder)

    def change(configuration):
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


def test_network_class_that_moved(tmp_path):
    folder = write_untrained_model(tmp_path, STEP1, architecture="residual")
    expected = labels_of(folder)
    name = "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"
    edit_plans(folder, lambda plans: plans["architecture"].update(network_class_name=name))
    np.testing.assert_array_equal(labels_of(folder), expected)


def test_several_folds_have_one_digest(tmp_path):
    two = load_model(write_untrained_model(tmp_path / "two", STEP1, folds=2))
    one = load_model(write_untrained_model(tmp_path / "one", STEP1, folds=1))
    assert len(two.weights) == 2
    assert len({two.digest, one.digest}) == 2


def test_best_checkpoint_and_fold_all(folder):
    expected = load_model(folder).digest
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_best.pth")
    (folder / "fold_0").rename(folder / "fold_all")
    assert load_model(folder).digest == expected


class _Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_a_hostile_checkpoint_does_not_run(folder, tmp_path):
    trace = tmp_path / "ran"
    checkpoint = {"network_weights": {}, "logging": _Malicious(trace)}
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth is refused.*mkdir"):
        load_model(folder)
    assert not trace.exists()


@pytest.mark.parametrize("key", ["network_class_name", "norm_op"])
def test_plans_cannot_name_arbitrary_code(folder, key):
    def change(configuration):
        architecture = configuration["architecture"]
        (architecture if key == "network_class_name" else architecture["arch_kwargs"])[key] = "os.system"

    edit_plans(folder, change)
    with pytest.raises(ModelError, match=r"os\.system"):
        load_model(folder).networks()


def write(name, content):
    return lambda folder: (folder / name).write_bytes(content)


CHECKPOINT = "fold_0/checkpoint_final.pth"


BROKEN = {
    "truncated checkpoint": (lambda f: write(CHECKPOINT, (f / CHECKPOINT).read_bytes()[:9000])(f), "checkpoint_final"),
    "empty checkpoint": (write(CHECKPOINT, b""), "checkpoint_final"),
    "no checkpoint": (lambda f: (f / CHECKPOINT).unlink(), "no nnU-Net model"),
    "no plans": (lambda f: (f / "plans.json").unlink(), "no nnU-Net model"),
    "plans not JSON": (write("plans.json", b"{"), "plans.json"),
    "plans a list": (write("plans.json", b"[]"), "plans.json"),
    "no labels": (write("dataset.json", b'{"channel_names": {"0": "MRI"}}'), "labels"),
    "not a checkpoint of nnU-Net": (lambda f: torch.save({"state_dict": {}}, f / CHECKPOINT), "network_weights"),
    "2D": (lambda f: edit_plans(f, lambda p: p.update(patch_size=[16, 16])), "three-dimensional"),
    "cascade": (lambda f: edit_plans(f, lambda p: p.update(previous_stage="3d_lowres")), "cascade"),
    "unknown configuration": (
        lambda f: edit_checkpoint(f, lambda c: c["init_args"].update(configuration="3d_other")),
        "3d_other",
    ),
    "regions without order": (
        write("dataset.json", json.dumps({**STEP1, "regions_class_order": [1, 2]}).encode()),
        "regions_class_order",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_models_are_named(folder, what):
    damage, word = BROKEN[what]
    damage(folder)
    with pytest.raises(ModelError, match=word) as caught:
        load_model(folder)
    assert str(folder.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(folder):
    edit_plans(folder, lambda p: p["architecture"]["arch_kwargs"].update(n_conv_per_stage_decoder=[2, 2]))
    with pytest.raises(ModelError, match="do not fit"):
        load_model(folder).networks()


def test_missing_and_unreadable_paths(tmp_path):
    (tmp_path / "text.zip").write_text("not a folder")
    for name in ("nowhere", "text.zip"):
        with pytest.raises(ModelError, match="cannot look for models"):
            load_model(tmp_path / name)


def test_properties_of_a_model_leave_no_garbage_that_holds_the_arrays_of_their_callers(tmp_path: Path) -> None:
    model = load_model(write_untrained_model(tmp_path, STEP2))
    gc.collect()
    assert model.patch_multiple
    assert gc.collect() == 0
