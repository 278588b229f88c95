"""nnU-Net's own planning and preprocessing, called in process.

Plans have short names: ``default`` is nnU-Net's plain U-Net, ``resenc-m`` and ``resenc-l`` its residual encoders,
``small`` a U-Net that a CPU can train, made by changing patch and width in the default plans (its preprocessed data
are those of ``default``).
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.training.class_maps import DATASET_NAMES, DatasetId
from totalspineseg_bids.training.nnunet_env import inline_pools, nnunet_environment, quiet

logger = logging.getLogger(__name__)

CONFIGURATION = "3d_fullres"
#: Patch of the small network, (z, y, x): the column is long, narrow from side to side.
SMALL_PATCH: tuple[int, int, int] = (160, 96, 64)
SMALL_FEATURES: tuple[int, ...] = (16, 32, 64, 128, 128)
#: Deep supervision leaves out the lowest of its outputs (one less than stages); with fewer the loss would be 0/0.
_MIN_STAGES = 3
#: nnU-Net draws 1e8 intensities (1 GB) by default; only its normalisation of CT uses them.
_INTENSITY_SAMPLES = 1_000_000
#: All data are prepared at this spacing, mm.
_SPACING = (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class PlansKind:
    """Recipe of the plans of one name."""

    planner: str
    """nnU-Net's planner class."""
    identifier: str
    """Name of the plans file, which is part of the model folder's name."""
    base: str | None = None
    """Plans that these are derived from (and whose preprocessed data they use); ``None`` for nnU-Net's own."""


PLANS: dict[str, PlansKind] = {
    "default": PlansKind("ExperimentPlanner", "nnUNetPlans"),
    "resenc-m": PlansKind("nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"),
    "resenc-l": PlansKind("nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans"),
    "small": PlansKind("ExperimentPlanner", "nnUNetSmallPlans", base="default"),
}


def plans_kind(name: str) -> PlansKind:
    """Return the recipe of the plans of a short name.

    Raises
    ------
    UsageError
        If there are no plans of that name.
    """
    if name not in PLANS:
        msg = f"no plans '{name}'; choose one of {', '.join(PLANS)}"
        raise UsageError(msg)
    return PLANS[name]


def small_from_default(
    plans: dict[str, Any],
    *,
    patch: Sequence[int] = SMALL_PATCH,
    features: Sequence[int] = SMALL_FEATURES,
    batch_size: int = 2,
) -> dict[str, Any]:
    """Turn nnU-Net's default plans into those of a small network.

    Parameters
    ----------
    plans : dict of str to Any
        Content of ``nnUNetPlans.json``.
    patch : tuple of 3 int, optional
        Greatest patch, voxels in nnU-Net's axis order; smaller where the images are.
    features : tuple of int, optional
        Channels of each stage; fewer stages where the patch does not allow as many.
    batch_size : int, default 2
        Patches a step.

    Returns
    -------
    dict
        Plans with ``3d_fullres`` alone, on the data preprocessed for the default plans.

    Raises
    ------
    UsageError
        If patch and features allow fewer than three stages.
    """
    from nnunetv2.experiment_planning.experiment_planners.network_topology import (  # noqa: PLC0415
        get_pool_and_conv_props,
    )

    small: dict[str, Any] = json.loads(json.dumps(plans))
    configuration = small["configurations"][CONFIGURATION]
    median = configuration["median_image_size_in_voxels"]
    wanted = [min(size, max(8, round(float(limit)))) for size, limit in zip(patch, median, strict=True)]
    _, strides, kernels, fitted, _ = get_pool_and_conv_props(configuration["spacing"], wanted, 4, len(features) - 1)
    stages = len(strides)
    if stages < _MIN_STAGES:
        size = " x ".join(str(n) for n in fitted)
        msg = f"a patch of {size} voxels with {len(features)} features allows {stages} stages; use at least three"
        raise UsageError(msg)
    configuration["patch_size"] = [int(size) for size in fitted]
    configuration["batch_size"] = batch_size
    architecture = configuration["architecture"]["arch_kwargs"]
    architecture.update(
        n_stages=stages,
        features_per_stage=list(features[:stages]),
        strides=[[int(s) for s in stride] for stride in strides],
        kernel_sizes=[[int(k) for k in kernel] for kernel in kernels],
        n_conv_per_stage=[2] * stages,
        n_conv_per_stage_decoder=[2] * (stages - 1),
    )
    small["configurations"] = {CONFIGURATION: configuration}
    small["plans_name"] = PLANS["small"].identifier
    return small


def raw_folder(work_dir: Path, dataset: DatasetId) -> Path:
    """Return the raw folder of a dataset.

    Raises
    ------
    MissingInputError
        If it was not prepared.
    """
    folder = Path(work_dir) / "nnUNet_raw" / DATASET_NAMES[dataset]
    if not (folder / "dataset.json").exists():
        msg = f"{folder}: no dataset there; run 'totalspineseg-tools prepare' with this work folder first"
        raise MissingInputError(msg)
    return folder


def plans_file(work_dir: Path, dataset: DatasetId, plans: str) -> Path:
    """Return the path of the plans of a short name, which need not exist.

    Raises
    ------
    UsageError
        If there are no plans of that name.
    """
    folder = Path(work_dir).resolve() / "nnUNet_preprocessed" / DATASET_NAMES[dataset]
    return folder / f"{plans_kind(plans).identifier}.json"


def _mark(work_dir: Path, dataset: DatasetId, plans: str) -> Path:
    """Return the file that records what plans, or those that they are derived from, were made of."""
    return plans_file(work_dir, dataset, plans_kind(plans).base or plans).with_suffix(".done")


def _state(raw: Path) -> str:
    """Return the content of the raw dataset files that planning depends on."""
    return (raw / "dataset.json").read_text() + (raw / "prepared.tsv").read_text()


def is_stale(work_dir: Path, dataset: DatasetId, plans: str) -> bool:
    """Return whether a dataset was prepared again, with other images, after planning.

    A dataset whose raw folder was removed is not stale: the preprocessed data suffice.
    """
    raw, mark = Path(work_dir) / "nnUNet_raw" / DATASET_NAMES[dataset], _mark(work_dir, dataset, plans)
    if not (mark.exists() and (raw / "dataset.json").exists() and (raw / "prepared.tsv").exists()):
        return False
    return not mark.read_text().startswith(_state(raw))


def _plan_and_preprocess(dataset: DatasetId, kind: PlansKind, *, jobs: int, gpu_memory_gb: float | None) -> None:
    import nnunetv2  # noqa: PLC0415
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api  # noqa: PLC0415
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (  # noqa: PLC0415
        DatasetFingerprintExtractor,
    )
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class  # noqa: PLC0415

    planning = str(Path(nnunetv2.__path__[0]) / "experiment_planning")
    planner = recursive_find_python_class(planning, kind.planner, current_module="nnunetv2.experiment_planning")
    extractor = DatasetFingerprintExtractor(dataset, jobs)
    extractor.show_progress_bar = False
    extractor.num_foreground_voxels_for_intensitystats = _INTENSITY_SAMPLES
    extractor.run(overwrite_existing=True)
    api.plan_experiment_dataset(
        dataset, planner, gpu_memory_target_in_gb=gpu_memory_gb, overwrite_target_spacing=_SPACING
    )
    api.preprocess_dataset(dataset, kind.identifier, (CONFIGURATION,), num_processes=(jobs,), show_progress_bar=False)


def plan_and_preprocess(
    work_dir: Path,
    dataset: DatasetId,
    plans: str = "default",
    *,
    jobs: int = 1,
    gpu_memory_gb: float | None = None,
    patch: Sequence[int] | None = None,
    features: Sequence[int] | None = None,
    batch_size: int = 2,
    force: bool = False,
) -> Path:
    """Run nnU-Net's fingerprint, planning and preprocessing for a prepared dataset.

    A dataset whose ``dataset.json`` has not changed since it was planned and preprocessed is left as it is.

    Parameters
    ----------
    work_dir : Path
        Folder with ``nnUNet_raw``.
    dataset : DatasetId
        101, 102 or 103.
    plans : str, default 'default'
        Short name of the plans: ``default``, ``resenc-m``, ``resenc-l`` or ``small``.
    jobs : int, default 1
        Worker processes; 1 works in this process.
    gpu_memory_gb : float, optional
        Memory that nnU-Net plans for (not for ``small``); ``None`` leaves it to the planner.
    patch, features, batch_size
        Of the ``small`` network; by default `SMALL_PATCH`, `SMALL_FEATURES` and 2.
    force : bool, default False
        Repeat planning and preprocessing.

    Returns
    -------
    Path
        The plans file.

    Raises
    ------
    UsageError
        If there are no plans of that name.
    MissingInputError
        If the dataset was not prepared.
    """
    kind, raw = plans_kind(plans), raw_folder(work_dir, dataset)
    base = kind.base or plans
    base_file, mark = plans_file(work_dir, dataset, base), _mark(work_dir, dataset, plans)
    state = _state(raw) + str(gpu_memory_gb)
    pools = inline_pools() if jobs <= 1 else contextlib.nullcontext()
    # The planner gives torch as many threads as there are workers, and there must be one.
    with nnunet_environment(work_dir, workers=1), quiet(logger), pools:
        if force or not mark.exists() or mark.read_text() != state:
            base_file.parent.mkdir(parents=True, exist_ok=True)
            # The folds follow the raw dataset; nnU-Net itself refuses to go on where they have changed.
            shutil.copyfile(raw / "splits_final.json", base_file.with_name("splits_final.json"))
            _plan_and_preprocess(dataset, PLANS[base], jobs=jobs, gpu_memory_gb=gpu_memory_gb)
            write_text(mark, state)
    if base == plans:
        return base_file
    small = small_from_default(
        json.loads(base_file.read_text()),
        patch=patch or SMALL_PATCH,
        features=features or SMALL_FEATURES,
        batch_size=batch_size,
    )
    path = plans_file(work_dir, dataset, plans)
    write_text(path, json.dumps(small, indent=1) + "\n")
    return path
