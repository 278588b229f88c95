"""Write an untrained model as nnU-Net's model folder, for tests.

The weights are random but fixed by a seed, and the last layer is scaled so that the output has structure: blobs of
every class rather than one constant.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from totalspineseg_bids.inference.decode import Heads
from totalspineseg_bids.training.synthetic.small_plans import PLAIN, SUBVOXEL, small_plans

Architecture = Literal["plain", "residual", "blocks"]
_UNETS = "dynamic_network_architectures.architectures.unet"
_CLASSES = {"plain": f"{_UNETS}.PlainConvUNet", "residual": f"{_UNETS}.ResidualEncoderUNet", "blocks": SUBVOXEL}


def write_untrained_model(
    folder: Path,
    dataset: Mapping[str, Any],
    *,
    folds: int = 1,
    seed: int = 0,
    trainer: str = "nnUNetTrainer",
    configuration: Mapping[str, Any] | None = None,
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
    configuration
        Entries of the plans' configuration to set.
    **plans_options
        Options of `_plans`.

    Returns
    -------
    Path
        The model folder.
    """
    target = folder / f"{trainer}__nnUNetPlans__3d_fullres"
    plans = _plans(dataset, **plans_options)
    plans["configurations"]["3d_fullres"].update(configuration or {})
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
        Plain or residual-encoder U-Net, or the plain one on blocks of voxels.
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
    plans = small_plans(
        str(dataset.get("name", "Dataset999_Untrained")),
        dataset["channel_names"].values(),
        patch=tuple(patch_size),
        spacing=tuple(spacing),
        features=tuple(features),
        strides=((1, 1, 1), *[(2, 2, 2)] * (stages - 1)),
        transpose=tuple(transpose),
        network=_CLASSES[architecture],
    )
    plans["plans_name"] = "nnUNetPlans"
    configuration = plans["configurations"]["3d_fullres"]
    for kind, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        configuration[f"resampling_fn_{kind}_kwargs"] |= {"order": order, "force_separate_z": None}
    arguments = configuration["architecture"]["arch_kwargs"]
    convolutions = arguments.pop("n_conv_per_stage")
    arguments["n_blocks_per_stage" if architecture == "residual" else "n_conv_per_stage"] = list(blocks or convolutions)
    arguments["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    plans["configurations"]["3d_fullres_small_batch"] = {"inherits_from": "3d_fullres"}
    return plans


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
        blocks = plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] == SUBVOXEL
        network = build_network(plans, channels, outputs, allow_init=False, deep_supervision=not blocks)
        with torch.no_grad():
            for layer in network.decoder.seg_layers:
                # Features share a mean (they pass a rectifier); without it no output is constant. The bias makes
                # every region appear; otherwise the last one in order would hide the others.
                layer.weight.normal_(0.0, 8.0)
                layer.weight -= layer.weight.mean(dim=1, keepdim=True)
                layer.bias.fill_(-8.0 if heads.regions else 0.0)
    weights: dict[str, torch.Tensor] = network.state_dict()
    return weights


def small_network(
    channels: int = 1, outputs: int = 3, *, features: Sequence[int] = (4, 6, 8), network: str = PLAIN, **options: Any
) -> torch.nn.Module:
    """Build an untrained network of three stages."""
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    plans = small_plans("x", ["MRI"] * channels, features=features, strides=strides, network=network, **options)
    return build_network(plans, channels, outputs).eval()


def assert_any_even_size(network: torch.nn.Module, channels: int, axis: int, surplus: int, *, same: int) -> None:
    """Assert that a patch of 72 + ``surplus`` voxels along an axis gives the first ``same`` voxels of one of 80."""
    shape = [16, 16, 16]
    shape[axis] = 80
    larger = torch.randn(1, channels, *shape)
    smaller = larger.narrow(axis + 2, 0, 72 + surplus)
    with torch.no_grad():
        one, other = network(smaller), network(larger)
    assert one.shape[2:] == smaller.shape[2:]
    torch.testing.assert_close(one.narrow(axis + 2, 0, same), other.narrow(axis + 2, 0, same))
    assert not torch.allclose(one.narrow(axis + 2, 60, 12), other.narrow(axis + 2, 60, 12))
