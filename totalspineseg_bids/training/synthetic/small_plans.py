"""nnU-Net plans for small networks that two CPU cores can train and run.

The format is nnU-Net's own ``plans.json``, so that nnU-Net, and any tool that reads its model folders, can use what
is trained with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from totalspineseg_bids.imaging.atomic import atomic_writer, write_text
from totalspineseg_bids.inference.pixel_shuffle import STORED_NAME

#: Patch in nnU-Net's axis order (superior-inferior, posterior-anterior, left-right), voxels. It holds 26 cm of the
#: column, and with it a landmark.
PATCH: tuple[int, int, int] = (256, 128, 64)
#: mm; that of the images that the pipeline hands to a network, so that nothing is interpolated once more.
SPACING: tuple[float, float, float] = (1.0, 1.0, 1.0)
PLAIN = "dynamic_network_architectures.architectures.unet.PlainConvUNet"
#: Within the network voxels are twice as wide: edges to a millimetre for the time of voxels of two.
SUBVOXEL = STORED_NAME
#: Of a stage. The first is wide because seventeen outputs are computed from its features.
FEATURES: tuple[int, ...] = (32, 32, 64, 128, 144, 144)
#: Of a stage. Two, because an edge of bone in any contrast is a difference of neighbouring intensities, which one
#: convolution and rectifier cannot represent for both signs.
CONVOLUTIONS = 2
#: Distance of neighbouring patches as part of their size, nnU-Net's ``tile_step_size``: fewer patches of a whole
#: spine than nnU-Net's 0.5 gives, for nearly the same result (``docs/training.md``).
TILE_STEP = 0.7
#: How many times as many voxels a patch may have where fewer then cover an image; the memory grows with it.
PATCH_GROWTH = 3.0
STRIDES: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 1))

PLANS_NAME = "nnUNetPlansSmall"
CONFIGURATION = "3d_fullres"


def small_plans(
    dataset_name: str,
    channels: Iterable[str],
    *,
    patch: tuple[int, int, int] = PATCH,
    spacing: tuple[float, float, float] = SPACING,
    features: tuple[int, ...] = FEATURES,
    strides: tuple[tuple[int, int, int], ...] = STRIDES,
    convolutions: int = CONVOLUTIONS,
    kernel: tuple[int, int, int] = (3, 3, 3),
    transpose: tuple[int, int, int] = (0, 1, 2),
    network: str = PLAIN,
    inference: Mapping[str, float] = {},
) -> dict[str, Any]:
    """Fill ``plans.json`` of this folder in: plans with one ``3d_fullres`` configuration.

    Parameters
    ----------
    dataset_name : str
        nnU-Net's name, such as ``Dataset101_TotalSpineSeg_step1``.
    channels : iterable of str
        Names of the channels; ``noNorm`` channels stay as they are, others are z-scored.
    patch, spacing, features, strides
        Of the network, in the order in which it takes the axes; one entry of ``features`` and ``strides`` a stage.
        Spacing in mm.
    convolutions : int, optional
        Of every stage, on the way down and on the way up.
    kernel : tuple of 3 int, optional
        Of every convolution.
    transpose : tuple of 3 int, optional
        Order in which the network takes nnU-Net's axes (superior-inferior, posterior-anterior, left-right).
    network : str, optional
        Class of the network, `PLAIN` or `SUBVOXEL`.
    inference : mapping of str to float, optional
        Keys of the configuration that only this program's pipeline reads: ``tile_step_size`` (distance of neighbouring
        patches, as part of their size), ``use_mirroring`` (average over patches mirrored along the axes that the
        checkpoint allows), ``patch_growth`` (how many times as many voxels a patch may have where fewer then cover an
        image) and ``use_bfloat16`` (loses nothing where a processor computes in bfloat16).
    """
    plans: dict[str, Any] = json.loads(files(__package__).joinpath("plans.json").read_text("utf-8"))
    schemes = ["NoNormalization" if name == "noNorm" else "ZScoreNormalization" for name in channels]
    intensities = plans["foreground_intensity_properties_per_channel"]["0"]
    plans |= {
        "dataset_name": dataset_name,
        "original_median_spacing_after_transp": list(spacing),
        "original_median_shape_after_transp": [2 * n for n in patch],
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "foreground_intensity_properties_per_channel": {str(n): intensities for n in range(len(schemes))},
    }
    configuration = plans["configurations"][CONFIGURATION]
    configuration |= {
        "patch_size": list(patch),
        "median_image_size_in_voxels": [2 * n for n in patch],
        "spacing": list(spacing),
        "normalization_schemes": schemes,
        "use_mask_for_norm": [False] * len(schemes),
        **inference,
    }
    configuration["architecture"]["network_class_name"] = network
    configuration["architecture"]["arch_kwargs"] |= {
        "n_stages": len(features),
        "features_per_stage": list(features),
        "kernel_sizes": [list(kernel)] * len(features),
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage": [convolutions] * len(features),
        "n_conv_per_stage_decoder": [convolutions] * (len(features) - 1),
    }
    return plans


def network_class(plans: Mapping[str, Any]) -> str:
    """Return the class of the network that plans in the form of `small_plans` describe."""
    name: str = plans["configurations"][CONFIGURATION]["architecture"]["network_class_name"]
    return name


def write_model_folder(
    folder: Path,
    description: Mapping[str, Any],
    plans: Mapping[str, Any],
    **checkpoint: Any,  # noqa: ANN401
) -> None:
    """Write a model folder of nnU-Net with one fold, ``all``.

    Parameters
    ----------
    folder : Path
        Made if absent.
    description, plans
        Content of ``dataset.json`` and ``plans.json``.
    **checkpoint
        Entries of ``checkpoint_final.pth`` besides ``init_args``.
    """
    (folder / "fold_all").mkdir(parents=True, exist_ok=True)
    for name, content in (("dataset.json", description), ("plans.json", plans)):
        write_text(folder / name, json.dumps(content, indent=2) + "\n")
    with atomic_writer(folder / "fold_all" / "checkpoint_final.pth") as file:
        torch.save({**checkpoint, "init_args": {"configuration": CONFIGURATION, "fold": "all"}}, file)
