"""An nnU-Net model folder or export zip in memory, whatever trainer class wrote it."""

from __future__ import annotations

import importlib
import math
import re
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures import unet as known_architectures

from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference import folders
from totalspineseg_bids.inference.checkpoint import StateDict, converted, read_checkpoint
from totalspineseg_bids.inference.decode import Heads
from totalspineseg_bids.inference.local_network import LocalNetwork
from totalspineseg_bids.inference.patch_grid import STEP
from totalspineseg_bids.inference.pixel_shuffle import FACTOR, PixelShuffleUNet

_IMPORTABLE = (
    "dynamic_network_architectures.",
    "torch.nn.",
    "totalspineseg_bids.inference.pixel_shuffle.",
    "totalspineseg_bids.inference.subvoxel.",
    "totalspineseg_bids.inference.local_network.",
)
#: Networks that take 2 x 2 x 2 voxels as one.
_BLOCK_NETWORKS = (PixelShuffleUNet, LocalNetwork)
#: Divisor of the sizes of their patches. They take any even size, but each shape is compiled, which takes 0.1 s.
_BLOCK_MULTIPLE = 8
_UNUSED_HEAD = re.compile(r"decoder\.seg_layers\.\d+\.")


@dataclass(frozen=True)
class NnUNetModel:
    """A trained 3D model: how to prepare images, how to build the network, its weights and its labels."""

    name: str
    """Name of the dataset and of the model folder, such as ``Dataset101_x/nnUNetTrainer__nnUNetPlans__3d_fullres``."""
    path: Path
    """Model folder or zip that it was loaded from."""
    labels: dict[str, tuple[int, ...]]
    """Role (label name) to the integers it covers, ``background`` included."""
    heads: Heads
    """The network's outputs, in order."""
    channel_names: tuple[str, ...]
    """Names of the input channels, in order."""
    spacing: tuple[float, float, float]
    """Voxel size the network works at, (x, y, z), mm."""
    patch_size: tuple[int, int, int]
    """Patch, (x, y, z), voxels."""
    transpose: tuple[int, int, int]
    """nnU-Net's ``transpose_forward``: order in which the network takes the axes (z, y, x)."""
    configuration: dict[str, Any]
    """The configuration of the plans with inheritance resolved and the architecture in its new form."""
    intensity_properties: dict[str, Any]
    """Per channel (``"0"``, …), statistics that normalisation may need."""
    mirror_axes: tuple[int, ...]
    """Spatial axes of the network along which training mirrored."""
    digest: str
    """SHA-256 of the checkpoint; with several folds, that of their digests, one per line."""
    stored_weights: tuple[StateDict, ...] = field(repr=False)
    """One state dict per fold, as the checkpoint holds it."""

    @cached_property
    def weights(self) -> tuple[StateDict, ...]:
        """One state dict per fold, 32-bit; a network that is cached in converted form needs none."""
        return tuple(converted(weights, torch.float32) for weights in self.stored_weights)

    @property
    def regions_class_order(self) -> tuple[int, ...] | None:
        """Integer written for each output of a region-based model; ``None`` for a softmax model."""
        return self.heads.values if self.heads.regions else None

    @property
    def network_spacing(self) -> tuple[float, float, float]:
        """Voxel size in the network's order of axes, mm."""
        a, b, c = (float(v) for v in self.configuration["spacing"])
        return a, b, c

    @property
    def network_patch_size(self) -> tuple[int, int, int]:
        """Patch in the network's order of axes, voxels."""
        a, b, c = (int(v) for v in self.configuration["patch_size"])
        return a, b, c

    @property
    def tile_step(self) -> float:
        """Distance of neighbouring patches as part of their size: the plans' ``tile_step_size``, else nnU-Net's 0.5.

        Raises
        ------
        ModelError
            If the plans hold no number above 0 and up to 1 there.
        """
        step = self.configuration.get("tile_step_size", STEP)
        if not isinstance(step, int | float) or not 0 < step <= 1:
            msg = f"{self.path}: tile_step_size in plans.json must lie in (0, 1], not {step}; correct it or take it out"
            raise ModelError(msg)
        return float(step)

    @property
    def voxel_block(self) -> int:
        """Voxels along each axis that the network takes as one: 2 for the networks of this package, else 1."""
        return FACTOR if self._network_class in _BLOCK_NETWORKS else 1

    @property
    def _network_class(self) -> object:
        return _locate(str(self.configuration["architecture"]["network_class_name"]))

    @property
    def patch_growth(self) -> float:
        """Largest factor by which a patch may grow to cover an image with fewer patches: the plans', else 1.

        Raises
        ------
        ModelError
            If the plans hold no number of 1 or more there.
        """
        growth = self.configuration.get("patch_growth", 1.0)
        if not isinstance(growth, int | float) or not growth >= 1:
            msg = f"{self.path}: patch_growth in plans.json must be 1 or more, not {growth}; correct it or take it out"
            raise ModelError(msg)
        return float(growth)

    @property
    def patch_multiple(self) -> tuple[int, int, int]:
        """Divisor of the patch sizes to use, in the network's order of axes, voxels."""
        if self._network_class in _BLOCK_NETWORKS:
            return _BLOCK_MULTIPLE, _BLOCK_MULTIPLE, _BLOCK_MULTIPLE
        return self.coarsest_voxel

    @property
    def coarsest_voxel(self) -> tuple[int, int, int]:
        """Size of a voxel of the coarsest stage, in the network's order of axes, voxels of the image."""
        strides = self.configuration["architecture"]["arch_kwargs"].get("strides", [])
        a, b, c = (self.voxel_block * math.prod(_along(stride, axis) for stride in strides) for axis in range(3))
        return a, b, c

    @property
    def use_mirroring(self) -> bool:
        """True to average over mirrored patches: the plans' ``use_mirroring``, False by default.

        Raises
        ------
        ModelError
            If the plans hold anything but true or false there.
        """
        return self._flag("use_mirroring")

    @property
    def use_bfloat16(self) -> bool:
        """True to compute in bfloat16 on CPUs that support it: the plans' ``use_bfloat16``, False by default.

        Raises
        ------
        ModelError
            If the plans hold anything but true or false there.
        """
        return self._flag("use_bfloat16")

    def _flag(self, key: str) -> bool:
        """Read a boolean from the plans, False by default."""
        use = self.configuration.get(key, False)
        if not isinstance(use, bool):
            msg = f"{self.path}: {key} in plans.json must be true or false, not {use}; correct it or take it out"
            raise ModelError(msg)
        return use

    def has(self, role: str) -> bool:
        """Return True if the model has a label of this name."""
        return role in self.labels

    def networks(self) -> list[torch.nn.Module]:
        """Build one network per fold, in evaluation mode, on the CPU.

        Raises
        ------
        ModelError
            If plans and weights do not fit each other.
        """
        return [_build_network(self, weights) for weights in self.weights]


def load_model(path: Path | str) -> NnUNetModel:
    """Load an nnU-Net v2 3D model; its trainer class need not be installed.

    Parameters
    ----------
    path
        A model folder, or a folder that holds exactly one.

    Returns
    -------
    NnUNetModel
        Plans and labels resolved, weights of all folds read.

    Raises
    ------
    ModelError
        If there is no such model, a file is damaged or refused, or the model is not a plain 3D one.
    """
    path = Path(path)
    folder = folders.select_model_folder(path)
    dataset, plans = (folders.read_json(folder / name) for name in ("dataset.json", "plans.json"))
    folds = folders.fold_checkpoints(folder)
    # A network that is stored in converted form needs no weights.
    checkpoints = [read_checkpoint(file, mapped=True) for file in folds]
    configuration_name = _configuration_name(folder.name, checkpoints[0])
    configuration = _configuration(plans, configuration_name, folder)
    try:
        transpose = tuple(int(i) for i in plans.get("transpose_forward", (0, 1, 2)))
        labels = _labels(dataset)
        heads = Heads.from_dataset(labels, dataset.get("regions_class_order"))
        channels = _channel_names(dataset)
        spacing_zyx, patch_zyx = [0.0] * 3, [0] * 3
        for position, axis in enumerate(transpose):
            spacing_zyx[axis] = float(configuration["spacing"][position])
            patch_zyx[axis] = int(configuration["patch_size"][position])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        msg = f"{folder}: dataset.json or plans.json cannot be used ({_reason(error)}); copy or install the model again"
        raise ModelError(msg) from error
    intensities = plans.get("foreground_intensity_properties_per_channel")
    mirror = checkpoints[0].get("inference_allowed_mirroring_axes") or ()
    return NnUNetModel(
        name=f"{plans.get('dataset_name', dataset.get('name', 'model'))}/{folder.name}",
        path=path,
        labels=labels,
        heads=heads,
        channel_names=channels,
        spacing=(spacing_zyx[2], spacing_zyx[1], spacing_zyx[0]),
        patch_size=(patch_zyx[2], patch_zyx[1], patch_zyx[0]),
        transpose=(transpose[0], transpose[1], transpose[2]),
        configuration=configuration,
        intensity_properties=intensities or plans.get("foreground_intensity_properties_by_modality") or {},
        mirror_axes=tuple(int(axis) for axis in mirror),
        digest=folders.checkpoints_digest(folder),
        stored_weights=tuple(item["network_weights"] for item in checkpoints),
    )


def _along(stride: int | list[int], axis: int) -> int:
    """Return the stride along an axis; plans may give one number for all."""
    return int(stride) if isinstance(stride, int) else int(stride[axis])


def _reason(error: Exception) -> str:
    text = f"missing {error}" if isinstance(error, KeyError) else str(error)
    return text.strip().split("\n", maxsplit=1)[0] or type(error).__name__


def _configuration_name(folder_name: str, checkpoint: dict[str, Any]) -> str:
    arguments = checkpoint.get("init_args")
    if isinstance(arguments, dict) and isinstance(arguments.get("configuration"), str):
        return str(arguments["configuration"])
    parts = folder_name.split("__")
    return parts[2] if len(parts) == 3 else "3d_fullres"


def _configuration(plans: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    try:
        configuration: dict[str, Any] = plans["configurations"][name]
        if "inherits_from" in configuration or "architecture" not in configuration:
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: PLC0415 - takes 0.4 s

            with warnings.catch_warnings():
                # Plans of the old form are converted; the advice to plan again is not for the one who predicts.
                warnings.simplefilter("ignore")
                configuration = PlansManager(plans).get_configuration(name).configuration
    except (KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        msg = f"{folder}/plans.json: configuration {name} cannot be used ({_reason(error)})"
        raise ModelError(msg) from error
    if len(configuration.get("patch_size", ())) != 3:
        msg = f"{folder}: configuration {name} is not three-dimensional; use a 3d_fullres model"
        raise ModelError(msg)
    if configuration.get("previous_stage"):
        msg = f"{folder}: configuration {name} is the second stage of a cascade; use a 3d_fullres model"
        raise ModelError(msg)
    return configuration


def _labels(dataset: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    labels = {
        str(name): tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)
        for name, value in dataset["labels"].items()
    }
    if labels.get("background") != (0,):
        msg = "labels have no background = 0"
        raise ValueError(msg)
    return labels


def _channel_names(dataset: dict[str, Any]) -> tuple[str, ...]:
    channels: dict[str, str] = dataset.get("channel_names") or dataset["modality"]
    return tuple(str(channels[key]) for key in sorted(channels, key=int))


def _locate(name: str) -> object:
    """Return what a dotted name in plans stands for, ``None`` if it is not among what plans may name."""
    # Not `pydoc.locate`: the exceptions that it keeps hold the arrays of all callers until the next search for garbage.
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute, None) if name.startswith(_IMPORTABLE) else None
    except ImportError:
        return None


def _checked_class(architecture: dict[str, Any], model: NnUNetModel) -> str:
    # Plans name the classes to build; only networks and layers are let through, so that plans stay data.
    name = str(architecture["network_class_name"])
    last = name.rsplit(".", maxsplit=1)[-1]
    if _locate(name) is None:
        # Architectures moved between releases of their package.
        name = f"{known_architectures.__name__}.{last}"
    layers = [architecture["arch_kwargs"].get(key) for key in architecture["_kw_requires_import"]]
    for wanted in (name, *(str(layer) for layer in layers if layer is not None)):
        located = _locate(wanted)
        if not (isinstance(located, type) and issubclass(located, torch.nn.Module)):
            original = architecture["network_class_name"] if wanted == name else wanted
            msg = f"{model.path}: plans.json names {original}, which is not a network or layer known here"
            raise ModelError(msg)
    return name


def _build_network(model: NnUNetModel, weights: StateDict) -> torch.nn.Module:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans  # noqa: PLC0415 - takes 0.2 s

    architecture = model.configuration["architecture"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: torch.nn.Module = get_network_from_plans(
                _checked_class(architecture, model),
                architecture["arch_kwargs"],
                architecture["_kw_requires_import"],
                len(model.channel_names),
                len(model.heads.names),
                allow_init=False,
                deep_supervision=False,
            )
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError, ImportError) as error:
        msg = f"{model.path}: the weights do not fit the network that plans.json describes ({_reason(error)})"
        raise ModelError(msg) from error
    # Outputs of lower resolutions exist only for deep supervision; the last one is what inference uses.
    last = f"decoder.seg_layers.{len(getattr(getattr(network, 'decoder', None), 'seg_layers', ())) - 1}."
    needed = [key for key in missing if not _UNUSED_HEAD.match(key) or key.startswith(last)]
    surplus = [key for key in unexpected if not _UNUSED_HEAD.match(key)]
    if needed or surplus:
        example = (needed or surplus)[0]
        msg = (
            f"{model.path}: the weights do not fit the network that plans.json describes "
            f"({len(needed)} parameters missing, {len(surplus)} unknown, such as {example}); "
            "its trainer class may have changed the network"
        )
        raise ModelError(msg)
    return network.eval().requires_grad_(requires_grad=False)
