"""Train the bundled models: nnU-Net's trainer on an endless stream of synthetic images.

The networks, losses, logging and checkpoints are nnU-Net's. What differs: batches come from ``synthetic_stream``
instead of a preprocessed folder, the optimiser is AdamW, the length is given in minutes of training time (the only
budget that means the same on a laptop and on a cluster), steps with a loss or gradient that is not finite are left
out, and the weights that are kept are a running average.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.training.synthetic import options
from totalspineseg_bids.training.synthetic.label_map_pool import build_pool
from totalspineseg_bids.training.synthetic.small_plans import CONFIGURATION


def _training_spine(rng: np.random.Generator, number: int, spacing: float) -> Volume:
    """Draw a parametric spine; every fifth has a supernumerary or missing level, and every sixth a fracture."""
    from totalspineseg_bids.synthesis.parametric import SpineParameters, make_spine  # noqa: PLC0415 - used once

    variants = ((12, 5), (12, 5), (12, 5), (12, 5), (11, 5), (12, 5), (12, 5), (12, 5), (12, 5), (13, 5),
                (12, 5), (12, 5), (12, 5), (12, 5), (12, 4), (12, 5), (12, 5), (12, 5), (12, 5), (12, 6))  # fmt: skip
    variant = SpineVariant(*variants[number % len(variants)])
    parameters = replace(
        SpineParameters.sample(rng),
        fractures=int(rng.choice([0, 1, 3], p=[0.83, 0.12, 0.05])),
        block=str(rng.choice(variant.discs())) if rng.random() < 0.04 else None,
    )
    return make_spine(rng, variant=variant, spacing=spacing, parameters=parameters)


def train_bundled(training: options.SyntheticTraining) -> Path:
    """Train one model for its minutes, resuming from an earlier checkpoint if there is one.

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
    recipe = options.POOLS[training.dataset]
    if training.spines is not None:
        recipe = replace(recipe, spines=training.spines)
    pool = build_pool(
        options.pool_folder(training.work_dir, training.dataset),
        training.label_maps,
        recipe,
        TRAINING_DOMAIN + training.seed,
        _training_spine,
    )
    torch.manual_seed(training.seed)
    if training.device == "cuda":
        torch.backends.cudnn.benchmark = True  # as nnU-Net does where it trains
    from totalspineseg_bids.training.synthetic.level_prior_trainer import nnUNetTrainerScout  # noqa: PLC0415
    from totalspineseg_bids.training.synthetic.trainer import nnUNetTrainerSynthetic  # noqa: PLC0415

    description, plans = options.describe(
        training.dataset, len(pool), features=training.features, convolutions=training.convolutions
    )
    trainer_class = nnUNetTrainerScout if training.dataset == 103 else nnUNetTrainerSynthetic
    latest = options.checkpoints(training.work_dir, training.dataset) / "checkpoint_latest.pth"
    plans["continue_training"] = latest.exists()
    trainer = trainer_class(plans, CONFIGURATION, "all", description, torch.device(training.device))
    trainer.prepare(training, pool)
    if latest.exists():
        trainer.load_checkpoint(str(latest))
    else:
        start_from = training.start_from
        if start_from is None and training.dataset == 102:
            start_from = options.finished(training.work_dir, 101)
        if start_from is not None:
            trainer.take_weights(start_from)
    trainer.run_training()
    return Path(trainer.output_folder_base)
