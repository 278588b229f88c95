"""Train the bundled models: nnU-Net's trainer on an endless stream of synthetic images.

The networks, losses, logging and checkpoints are nnU-Net's. What differs: batches come from ``synthetic_stream``
instead of a preprocessed folder, the optimiser is AdamW, the length is given in minutes of training time (the only
budget that means the same on a laptop and on a cluster), steps with a loss or gradient that is not finite are left
out, and the weights that are kept are a running average.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.training.layouts import DATASET_NAMES, DatasetId, dataset_json
from totalspineseg_bids.training.pool import PoolRecipe, build_pool
from totalspineseg_bids.training.scout import scout_dataset_json, scout_plans
from totalspineseg_bids.training.small_plans import (
    CONFIGURATION,
    CONVOLUTIONS,
    FEATURES,
    PATCH_GROWTH,
    PLANS_NAME,
    SUBVOXEL,
    TILE_STEP,
    small_plans,
)

logger = logging.getLogger(__name__)

#: What tells a level from its neighbour is how the whole column is built, so the scout needs many spines, and may have
#: them coarse: half a CPU second and 4 MB each. What a disc looks like, steps 1 and 2 learn from fewer, of 1.5 s and
#: 35 MB.
POOLS: dict[DatasetId, PoolRecipe] = {
    101: PoolRecipe(spines=300),
    102: PoolRecipe(spines=300),
    103: PoolRecipe(spines=600, spacing=2.0, real_share=0.3),
}
_WARM_UP_STEPS = 100
_EMA_DECAY = 0.998
#: The running average starts to matter after about this many steps.
_EMA_DELAY = 10


@dataclass(frozen=True, slots=True)
class SyntheticTraining:
    """What one training of a bundled model is made with.

    Attributes
    ----------
    work_dir
        Pool of label maps, checkpoints and logs; a second call goes on from the last checkpoint.
    dataset
        101, 102 or 103.
    minutes
        Training time in all, over every resumed stretch.
    label_maps
        Folder of tissue label maps of real anatomy, or None for parametric spines only.
    spines
        Parametric spines in the pool; None takes the recipe of the dataset.
    seed
        Of spines, patches and weights.
    threads
        CPU threads of the network; None leaves torch's choice.
    start_from
        Checkpoint whose weights are taken where names and shapes agree (input channels that are new start at zero).
        None takes, for 102, the finished 101 of the same work folder where there is one.
    device
        ``cpu``, ``cuda`` or ``mps``.
    learning_rate
        Peak of the schedule.
    batch_size
        Images a step; 1 suits a CPU, a GPU wants more.
    workers
        Processes that draw images: in numpy two of 101 and 102 a second each, on a GPU as many as it can take. 0 draws
        them on the GPU from a thread of the training itself (101 and 102 only). With another number other images are
        drawn.
    nested_weight
        Weight of the loss of regions within others (101 and 102) beside nnU-Net's own; 0 leaves it out.
    features
        Of each stage (101 and 102); of those of the first the outputs are made.
    convolutions
        Of every stage (101 and 102).
    """

    work_dir: Path
    dataset: DatasetId
    minutes: float
    label_maps: Path | None = None
    spines: int | None = None
    seed: int = 2024
    threads: int | None = None
    start_from: Path | None = None
    device: str = "cpu"
    learning_rate: float = 1.5e-3
    batch_size: int = 1
    workers: int = 1
    nested_weight: float = 0.1
    features: tuple[int, ...] = FEATURES
    convolutions: int = CONVOLUTIONS

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


def _training_spine(rng: np.random.Generator, number: int, spacing: float) -> Volume:
    """Draw a parametric spine; every fifth has a supernumerary or missing level."""
    from totalspineseg_bids.synthesis.parametric import make_spine  # noqa: PLC0415 - scipy-heavy, used once

    variants = ((12, 5), (12, 5), (12, 5), (12, 5), (11, 5), (12, 5), (12, 5), (12, 5), (12, 5), (13, 5),
                (12, 5), (12, 5), (12, 5), (12, 5), (12, 4), (12, 5), (12, 5), (12, 5), (12, 5), (12, 6))  # fmt: skip
    return make_spine(rng, variant=SpineVariant(*variants[number % len(variants)]), spacing=spacing)


def train_bundled(training: SyntheticTraining) -> Path:
    """Train one model until its minutes are spent, going on from an earlier stretch where there is one.

    Returns
    -------
    Path
        nnU-Net model folder (``dataset.json``, ``plans.json``, ``fold_all/checkpoint_final.pth``).

    Raises
    ------
    MissingInputError
        If the folder of label maps holds none.
    """
    from totalspineseg_bids.synthesis.dataset import TRAINING_DOMAIN  # noqa: PLC0415

    results = training.work_dir / "results"
    results.mkdir(parents=True, exist_ok=True)
    # nnU-Net reads its folders from the environment when it is imported, so this comes first.
    os.environ["nnUNet_results"] = str(results)  # noqa: SIM112 - nnU-Net's spelling
    os.environ.setdefault("nnUNet_raw", str(training.work_dir / "raw"))
    os.environ.setdefault("nnUNet_preprocessed", str(training.work_dir / "preprocessed"))
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    recipe = POOLS[training.dataset]
    if training.spines is not None:
        recipe = replace(recipe, spines=training.spines)
    pool = build_pool(
        pool_folder(training.work_dir, training.dataset),
        training.label_maps,
        recipe,
        TRAINING_DOMAIN + training.seed,
        _training_spine,
    )
    torch.manual_seed(training.seed)
    if training.device == "cuda":
        torch.backends.cudnn.benchmark = True  # as nnU-Net does where it trains
    from totalspineseg_bids.training.nnunet_scout import nnUNetTrainerScout  # noqa: PLC0415
    from totalspineseg_bids.training.nnunet_synthetic import nnUNetTrainerSynthetic  # noqa: PLC0415

    description, plans = describe(
        training.dataset, len(pool), features=training.features, convolutions=training.convolutions
    )
    trainer_class = nnUNetTrainerScout if training.dataset == 103 else nnUNetTrainerSynthetic
    latest = _checkpoints(training.work_dir, training.dataset) / "checkpoint_latest.pth"
    plans["continue_training"] = latest.exists()
    trainer = trainer_class(plans, CONFIGURATION, "all", description, torch.device(training.device))
    trainer.prepare(training, pool)
    if latest.exists():
        trainer.load_checkpoint(str(latest))
    else:
        start_from = training.start_from
        if start_from is None and training.dataset == 102:
            start_from = finished(training.work_dir, 101)
        if start_from is not None:
            trainer.take_weights(start_from)
    trainer.run_training()
    return Path(trainer.output_folder_base)


def describe(
    dataset: DatasetId, num_training: int, *, features: tuple[int, ...], convolutions: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ``dataset.json`` and the plans of a bundled model."""
    if dataset == 103:
        return scout_dataset_json(num_training), scout_plans()
    description = dataset_json(dataset, num_training)
    plans = small_plans(
        DATASET_NAMES[dataset],
        description["channel_names"],
        features=features,
        convolutions=convolutions,
        tile_step=TILE_STEP,
        network=SUBVOXEL,
        # Step 1 finds what step 2 is to look at; what is painted is step 2's. Step 1, with no mirrored pass to average
        # with, is better for the overlap of more and smaller patches.
        mirroring=dataset == 102,
        patch_growth=PATCH_GROWTH if dataset == 102 else None,
        bfloat16=True,
    )
    return description, plans


def model_folder_name(dataset: DatasetId) -> str:
    """Return nnU-Net's name for the model folder, ``<trainer>__<plans>__<configuration>``."""
    trainer = "nnUNetTrainerScout" if dataset == 103 else "nnUNetTrainerSynthetic"
    return f"{trainer}__{PLANS_NAME}__{CONFIGURATION}"


def pool_folder(work_dir: Path, dataset: DatasetId) -> Path:
    """Return where the label maps lie that a training draws from; those of the two steps share one pool."""
    return work_dir / ("pool-scout" if dataset == 103 else "pool-steps")


def _checkpoints(work_dir: Path, dataset: DatasetId) -> Path:
    return work_dir / "results" / DATASET_NAMES[dataset] / model_folder_name(dataset) / "fold_all"


def finished(work_dir: Path, dataset: DatasetId) -> Path | None:
    """Return the final checkpoint of a training, or ``None`` while there is none."""
    final = _checkpoints(work_dir, dataset) / "checkpoint_final.pth"
    return final if final.exists() else None


class Clock:
    """Training time so far, over every stretch, in seconds."""

    def __init__(self) -> None:
        self.before = 0.0
        self.started = time.monotonic()

    def resume(self, before: float) -> None:
        """Go on from a stretch that had come this far."""
        self.before, self.started = before, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training in all."""
        return self.before + time.monotonic() - self.started


def learning_rate_factor(progress: float, step: int) -> float:
    """Linear warm-up over the first steps, then polynomial decay over the training time (0 to 1)."""
    return float(min(1.0, (step + 1) / _WARM_UP_STEPS) * max(0.0, 1.0 - progress) ** 0.9)


class RunningAverage:
    """Exponential moving average of a network's weights."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.steps = 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        """Take the network's weights into the average."""
        self.steps += 1
        decay = min(_EMA_DECAY, (1 + self.steps) / (_EMA_DELAY + self.steps))
        current = network.state_dict()
        floating = [name for name, value in current.items() if value.is_floating_point()]
        # All at once: a GPU would wait for hundreds of small calls.
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        update([self.weights[name] for name in floating], [current[name] for name in floating], 0)
        for name in current.keys() - set(floating):
            self.weights[name].copy_(current[name])
