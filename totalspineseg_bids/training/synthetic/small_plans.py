"""nnU-Net plans for small networks that two CPU cores can train and run.

The format is nnU-Net's own ``plans.json``, so that nnU-Net, and any tool that reads its model folders, can use what
is trained with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from totalspineseg_bids.inference.pixel_shuffle import STORED_NAME

#: Patch in nnU-Net's axis order (superior-inferior, posterior-anterior, left-right), voxels. It holds 26 cm of the
#: column, and with it a landmark.
PATCH: tuple[int, int, int] = (256, 128, 64)
#: mm; that of the images that the pipeline hands to a network, so that nothing is interpolated once more.
SPACING = 1.0
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

#: nnU-Net wants the intensities of the training images here; only CT's normalisation reads them.
_NO_FINGERPRINT = {
    "max": 1, "mean": 0, "median": 0, "min": 0, "percentile_00_5": 0, "percentile_99_5": 1, "std": 1
}  # fmt: skip

PLANS_NAME = "nnUNetPlansSmall"
CONFIGURATION = "3d_fullres"


def small_plans(
    dataset_name: str,
    channels: dict[str, str],
    *,
    patch: tuple[int, int, int] = PATCH,
    spacing: float | tuple[float, float, float] = SPACING,
    features: tuple[int, ...] = FEATURES,
    strides: tuple[tuple[int, int, int], ...] = STRIDES,
    convolutions: int = CONVOLUTIONS,
    kernel: tuple[int, int, int] = (3, 3, 3),
    transpose: tuple[int, int, int] = (0, 1, 2),
    tile_step: float | None = None,
    network: str = PLAIN,
    mirroring: bool = False,
    patch_growth: float | None = None,
    bfloat16: bool = False,
) -> dict[str, Any]:
    """Return a plans dictionary with one ``3d_fullres`` configuration.

    Parameters
    ----------
    dataset_name : str
        nnU-Net's name, such as ``Dataset101_TotalSpineSeg_step1``.
    channels : dict of str to str
        ``channel_names`` of the ``dataset.json``; ``noNorm`` channels stay as they are, others are z-scored.
    patch, spacing, features, strides
        Of the network, in the order in which it takes the axes; one entry of ``features`` and ``strides`` a stage.
        Spacing in mm, one for all axes or one each.
    convolutions : int, optional
        Of every stage, on the way down and on the way up.
    kernel : tuple of 3 int, optional
        Of every convolution.
    transpose : tuple of 3 int, optional
        Order in which the network takes nnU-Net's axes (superior-inferior, posterior-anterior, left-right).
    tile_step : float, optional
        Distance of neighbouring patches in this program's pipeline, as part of their size; None leaves nnU-Net's.
    network : str, optional
        Class of the network, `PLAIN` or `SUBVOXEL`.
    mirroring : bool, default False
        Whether this program's pipeline averages over patches mirrored along the axes that the checkpoint allows.
    patch_growth : float, optional
        How many times as many voxels a patch of this program's pipeline may have where fewer then cover an image.
    bfloat16 : bool, default False
        Whether it loses nothing in this program's pipeline where a processor computes in bfloat16.
    """
    kept = {"noNorm", "nonorm"}
    schemes = ["NoNormalization" if name in kept else "ZScoreNormalization" for name in channels.values()]
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": False}
    stages = len(features)
    steps = [spacing] * 3 if isinstance(spacing, float | int) else list(spacing)
    return {
        "dataset_name": dataset_name,
        "plans_name": PLANS_NAME,
        "original_median_spacing_after_transp": steps,
        "original_median_shape_after_transp": [2 * n for n in patch],
        "image_reader_writer": "NibabelIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [transpose.index(axis) for axis in range(3)],
        "configurations": {
            CONFIGURATION: {
                "data_identifier": f"{PLANS_NAME}_{CONFIGURATION}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 1,
                "patch_size": list(patch),
                "median_image_size_in_voxels": [2 * n for n in patch],
                "spacing": steps,
                "normalization_schemes": schemes,
                "use_mask_for_norm": [False] * len(schemes),
                "resampling_fn_data": "resample_data_or_seg_to_shape",
                "resampling_fn_seg": "resample_data_or_seg_to_shape",
                "resampling_fn_data_kwargs": dict(resampling),
                "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": dict(resampling),
                "architecture": {
                    "network_class_name": network,
                    "arch_kwargs": {
                        "n_stages": stages,
                        "features_per_stage": list(features),
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [list(kernel)] * stages,
                        "strides": [list(stride) for stride in strides],
                        "n_conv_per_stage": [convolutions] * stages,
                        "n_conv_per_stage_decoder": [convolutions] * (stages - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": False,
                **({} if tile_step is None else {"tile_step_size": tile_step}),
                **({"use_mirroring": True} if mirroring else {}),
                **({} if patch_growth is None else {"patch_growth": patch_growth}),
                **({"use_bfloat16": True} if bfloat16 else {}),
            }
        },
        "experiment_planner_used": "small_plans",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(channel): dict(_NO_FINGERPRINT) for channel in range(len(schemes))
        },
    }


def network_class(plans: Mapping[str, Any]) -> str:
    """Return the class of the network that plans in the form of `small_plans` describe."""
    name: str = plans["configurations"][CONFIGURATION]["architecture"]["network_class_name"]
    return name
