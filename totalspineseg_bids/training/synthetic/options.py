"""Settings and file paths of the training of a bundled model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.training.class_maps import CHANNEL_NAMES, DATASET_NAMES, DatasetId, dataset_json
from totalspineseg_bids.training.synthetic.label_map_pool import PoolRecipe
from totalspineseg_bids.training.synthetic.level_prior import level_prior_dataset_json, level_prior_plans
from totalspineseg_bids.training.synthetic.small_plans import (
    CONFIGURATION,
    CONVOLUTIONS,
    FEATURES,
    PATCH_GROWTH,
    PLANS_NAME,
    SUBVOXEL,
    TILE_STEP,
    small_plans,
)

#: Adjacent levels differ by their position in the whole column, so the level prior needs many spines, which can be
#: coarse (half a CPU second and 4 MB each). Steps 1 and 2 learn local appearance from fewer (1.5 s and 35 MB each).
POOLS: dict[DatasetId, PoolRecipe] = {
    101: PoolRecipe(spines=300),
    102: PoolRecipe(spines=300),
    103: PoolRecipe(spines=600, spacing=2.0, real_share=0.3),
}


@dataclass(frozen=True, slots=True)
class SyntheticTraining:
    """Options of the training of a bundled model."""

    work_dir: Path
    """Pool of label maps, checkpoints and logs; a second call resumes from the last checkpoint."""
    dataset: DatasetId
    """101, 102 or 103."""
    minutes: float
    """Training time in all, over every resumed stretch."""
    label_maps: Path | None = None
    """Folder of tissue label maps of real anatomy, or None for parametric spines only."""
    spines: int | None = None
    """Parametric spines in the pool; None takes the recipe of the dataset."""
    seed: int = 2024
    """Of spines, patches and weights."""
    threads: int | None = None
    """CPU threads of the network; None leaves torch's choice."""
    start_from: Path | None = None
    """Checkpoint whose weights are taken where names and shapes agree (input channels that are new start at zero).
    None takes, for 102, the finished 101 of the same work folder where there is one."""
    device: str = "cpu"
    """``cpu``, ``cuda`` or ``mps``."""
    learning_rate: float = 1.5e-3
    """Peak of the schedule."""
    batch_size: int = 1
    """Images a step; 1 suits a CPU, a GPU wants more."""
    workers: int = 1
    """Processes that draw images: in numpy two of 101 and 102 a second each, on a GPU as many as it can take. 0 draws
    them on the GPU from a thread of the training itself (101 and 102 only). With another number other images are
    drawn."""
    nested_weight: float = 0.1
    """Weight of the loss of regions within others (101 and 102) beside nnU-Net's own; 0 leaves it out."""
    features: tuple[int, ...] = FEATURES
    """Of each stage (101 and 102); of those of the first the outputs are made."""
    convolutions: int = CONVOLUTIONS
    """Of every stage (101 and 102)."""

    def __post_init__(self) -> None:
        if self.dataset not in DATASET_NAMES:
            msg = f"dataset must be one of {', '.join(map(str, DATASET_NAMES))}, not {self.dataset}"
            raise UsageError(msg)
        draws_itself = self.device == "cuda" and self.dataset != 103
        if self.batch_size < 1 or self.workers < (0 if draws_itself else 1):
            msg = f"batch size and workers must be at least 1, not {self.batch_size} and {self.workers}"
            if not draws_itself:
                msg += "; 0 workers need a GPU and dataset 101 or 102"
            raise UsageError(msg)
        if self.minutes <= 0:
            msg = f"minutes of training must be above 0, not {self.minutes}"
            raise UsageError(msg)


def describe(
    dataset: DatasetId, num_training: int, *, features: tuple[int, ...], convolutions: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ``dataset.json`` and the plans of a bundled model."""
    if dataset == 103:
        return level_prior_dataset_json(num_training), level_prior_plans()
    # Step 1 only selects the region of interest; step 2 makes the label map. Without mirrored passes to average, step 1
    # gains from the overlap of more and smaller patches.
    of_step2 = {"use_mirroring": True, "patch_growth": PATCH_GROWTH} if dataset == 102 else {}
    plans = small_plans(
        DATASET_NAMES[dataset],
        CHANNEL_NAMES[dataset],
        features=features,
        convolutions=convolutions,
        network=SUBVOXEL,
        inference={"tile_step_size": TILE_STEP, **of_step2, "use_bfloat16": True},
    )
    return dataset_json(dataset, num_training), plans


def model_folder_name(dataset: DatasetId) -> str:
    """Return nnU-Net's name for the model folder, ``<trainer>__<plans>__<configuration>``."""
    trainer = "nnUNetTrainerScout" if dataset == 103 else "nnUNetTrainerSynthetic"
    return f"{trainer}__{PLANS_NAME}__{CONFIGURATION}"


def pool_folder(work_dir: Path, dataset: DatasetId) -> Path:
    """Return the folder of a training's label maps; the two steps share one pool."""
    return work_dir / ("pool-scout" if dataset == 103 else "pool-steps")


def checkpoints(work_dir: Path, dataset: DatasetId) -> Path:
    """Return the folder of a training's checkpoints."""
    return work_dir / "results" / DATASET_NAMES[dataset] / model_folder_name(dataset) / "fold_all"


def finished(work_dir: Path, dataset: DatasetId) -> Path | None:
    """Return the final checkpoint of a training, or ``None`` while there is none."""
    final = checkpoints(work_dir, dataset) / "checkpoint_final.pth"
    return final if final.exists() else None
