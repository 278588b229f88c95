"""Write an untrained model as nnU-Net's model folder, for tests.

The weights are random but fixed by a seed, and the last layer is scaled so that the output has structure: blobs of
every class rather than one constant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from totalspineseg_bids.inference.decode import Heads

Architecture = Literal["plain", "residual"]
_CLASSES = {"plain": "PlainConvUNet", "residual": "ResidualEncoderUNet"}
_IMPORTS = ["conv_op", "norm_op", "dropout_op", "nonlin"]


def write_untrained_model(
    folder: Path,
    dataset: Mapping[str, Any],
    *,
    folds: int = 1,
    seed: int = 0,
    trainer: str = "nnUNetTrainer",
    **plans_options: Any,
) -> Path:
    """Write ``dataset.json``, ``plans.json`` and one checkpoint per fold.

    Parameters
    ----------
    folder
        Parent folder; ``<folder>/<trainer>__nnUNetPlans__3d_fullres`` is created.
    dataset
        ``labels``, ``channel_names`` and, for region-based models, ``regions_class_order``.
    folds
        Number of folds, with different weights.
    seed
        Random seed of the weights.
    trainer
        Name of the trainer class to record.
    **plans_options
        Options of `_plans`.

    Returns
    -------
    Path
        The model folder.
    """
    target = folder / f"{trainer}__nnUNetPlans__3d_fullres"
    plans = _plans(dataset, **plans_options)
    target.mkdir(parents=True)
    (target / "plans.json").write_text(json.dumps(plans, indent=1), encoding="utf-8")
    (target / "dataset.json").write_text(
        json.dumps({"file_ending": ".nii.gz", "numTraining": 1, **dataset}, indent=1), encoding="utf-8"
    )
    for fold in range(folds):
        (target / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": _weights(plans, dataset, seed + fold),
            "trainer_name": trainer,
            "init_args": {"configuration": "3d_fullres", "fold": fold},
            "inference_allowed_mirroring_axes": (0, 1, 2),
        }
        torch.save(checkpoint, target / f"fold_{fold}" / "checkpoint_final.pth")
    return target


def _plans(
    dataset: Mapping[str, Any],
    *,
    architecture: Architecture = "plain",
    features: Sequence[int] = (4, 8, 8),
    blocks: Sequence[int] | None = None,
    patch_size: Sequence[int] = (16, 16, 16),
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    transpose: Sequence[int] = (0, 1, 2),
) -> dict[str, Any]:
    """Return ``plans.json``.

    Parameters
    ----------
    dataset
        Content of ``dataset.json``.
    architecture
        Plain or residual-encoder U-Net.
    features
        Feature maps per stage; each stage after the first halves the resolution.
    blocks
        Convolutions or residual blocks per stage; two of each by default.
    patch_size, spacing
        In the network's order of axes, voxels and mm.
    transpose
        nnU-Net's ``transpose_forward``.
    """
    stages = len(features)
    convolutions = "n_conv_per_stage" if architecture == "plain" else "n_blocks_per_stage"
    channels = list(dataset["channel_names"].values())
    resampling = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "spacing": list(spacing),
        "normalization_schemes": ["NoNormalization" if c == "noNorm" else "ZScoreNormalization" for c in channels],
        "use_mask_for_norm": [False] * len(channels),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**resampling, "order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{_CLASSES[architecture]}",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": list(features),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * stages,
                "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
                convolutions: list(blocks or [2] * stages),
                "n_conv_per_stage_decoder": [1] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": _IMPORTS,
        },
        "batch_dice": True,
    }
    statistics = {"mean": 100.0, "std": 50.0, "percentile_00_5": 0.0, "percentile_99_5": 400.0}
    return {
        "dataset_name": str(dataset.get("name", "Dataset999_Untrained")),
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(spacing),
        "image_reader_writer": "NibabelIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [list(transpose).index(axis) for axis in range(3)],
        "configurations": {"3d_fullres": configuration, "3d_fullres_small_batch": {"inherits_from": "3d_fullres"}},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(i): statistics for i in range(len(channels))},
    }


def build_network(plans: Mapping[str, Any], channels: int, outputs: int, **options: Any) -> torch.nn.Module:
    """Build the network that plans describe."""
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        channels,
        outputs,
        **{"deep_supervision": False, **options},
    )


def _weights(plans: Mapping[str, Any], dataset: Mapping[str, Any], seed: int) -> dict[str, torch.Tensor]:
    labels = {name: tuple(v) if isinstance(v, list) else (int(v),) for name, v in dataset["labels"].items()}
    heads = Heads.from_dataset(labels, dataset.get("regions_class_order"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        channels, outputs = len(dataset["channel_names"]), len(heads.names)
        network = build_network(plans, channels, outputs, allow_init=False, deep_supervision=True)
        with torch.no_grad():
            for layer in network.decoder.seg_layers:
                # Features share a mean (they pass a rectifier); without it no output is constant. The bias makes
                # every region appear; otherwise the last one in order would hide the others.
                layer.weight.normal_(0.0, 8.0)
                layer.weight -= layer.weight.mean(dim=1, keepdim=True)
                layer.bias.fill_(-8.0 if heads.regions else 0.0)
    weights: dict[str, torch.Tensor] = network.state_dict()
    return weights
