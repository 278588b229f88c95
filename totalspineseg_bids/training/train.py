"""nnU-Net's training, called in process, with resume, several GPUs and progress callbacks."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.inference.engines import resolve_device
from totalspineseg_bids.training.class_maps import DATASET_NAMES, DatasetId
from totalspineseg_bids.training.nnunet_env import inline_pools, nnunet_environment, quiet
from totalspineseg_bids.training.plan import CONFIGURATION, is_stale, plans_file, plans_kind
from totalspineseg_bids.training.predict_test_set import run_test_set

logger = logging.getLogger(__name__)

Fold = int | Literal["all"]


def model_folder(work_dir: Path, dataset: DatasetId, plans: str = "default", trainer: str = "nnUNetTrainer") -> Path:
    """Return the folder that nnU-Net writes a model to (folds below it)."""
    name = f"{trainer}__{plans_kind(plans).identifier}__{CONFIGURATION}"
    return Path(work_dir).resolve() / "nnUNet_results" / DATASET_NAMES[dataset] / name


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """One training."""

    work_dir: Path
    """Folder with ``nnUNet_preprocessed``; ``nnUNet_results`` is written beside it."""
    dataset: DatasetId
    """101, 102 or 103."""
    fold: Fold = 0
    """Fold that is held out, or ``"all"`` to train on every case."""
    plans: str = "default"
    """Short name of the plans."""
    trainer: str = "nnUNetTrainer"
    """Class of nnU-Net (or of a folder in ``nnUNet_extTrainer``)."""
    epochs: int | None = None
    """Length; ``None`` is nnU-Net's 1000."""
    iterations: int | None = None
    validation_iterations: int | None = None
    """`iterations`, `validation_iterations`: steps an epoch; ``None`` is nnU-Net's 250 and 50."""
    device: str = "auto"
    """``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``."""
    gpus: int = 1
    """More than one trains with data parallelism."""
    workers: int | None = None
    """Augmentation processes; ``None`` chooses none on a CPU and four to twelve a GPU."""
    resume: bool = True
    """Go on from the last checkpoint, if there is one."""
    validate: bool = True
    """Predict the held-out cases of the fold at the end, as nnU-Net does."""
    test: bool = True
    """Predict the test cases at the end and summarise them in ``test/summary.json``."""

    @property
    def folder(self) -> Path:
        """Folder of the fold."""
        return model_folder(self.work_dir, self.dataset, self.plans, self.trainer) / f"fold_{self.fold}"


def _workers(options: TrainOptions, device_type: str) -> int:
    if options.workers is not None:
        return options.workers
    return 0 if device_type != "cuda" else min(12, max(4, (os.cpu_count() or 4) // max(1, options.gpus) - 1))


def _check_fold(options: TrainOptions, preprocessed: Path) -> None:
    if options.fold == "all":
        return
    splits = json.loads((preprocessed / "splits_final.json").read_text())
    if not 0 <= options.fold < len(splits):
        msg = f"there is no fold {options.fold}; the dataset has folds 0 to {len(splits) - 1}, or use 'all'"
        raise UsageError(msg)


def _build(options: TrainOptions, device: Any) -> Any:  # noqa: ANN401 - nnU-Net is not typed
    """Make nnU-Net's trainer, set its length and load the last checkpoint where asked."""
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint  # noqa: PLC0415

    resume = options.resume and any(options.folder.glob("checkpoint_*.pth"))
    identifier = plans_kind(options.plans).identifier
    trainer = get_trainer_from_args(
        str(options.dataset),
        CONFIGURATION,
        options.fold,
        options.trainer,
        identifier,
        continue_training=resume,
        device=device,
    )
    trainer.num_epochs = options.epochs or trainer.num_epochs
    trainer.num_iterations_per_epoch = options.iterations or trainer.num_iterations_per_epoch
    trainer.num_val_iterations_per_epoch = options.validation_iterations or trainer.num_val_iterations_per_epoch
    # An epoch on a CPU may take long enough that losing fifty of them would hurt.
    trainer.save_every = 10 if device.type == "cuda" else 1
    # A PDF of the architecture needs hiddenlayer, is not used, and is drawn with a forward pass.
    trainer.plot_network_architecture = lambda: None
    maybe_load_checkpoint(trainer, resume, validation_only=False)
    if resume:
        logger.info("resumed at epoch %d of %d", trainer.current_epoch, trainer.num_epochs)
    return trainer


def _report_epochs(trainer: Any, report: Callable[[str], object]) -> None:  # noqa: ANN401
    """Report each epoch of a trainer in one line."""
    original = trainer.on_epoch_end

    def on_epoch_end() -> None:
        original()
        report(_describe_epoch(trainer))

    trainer.on_epoch_end = on_epoch_end


def _describe_epoch(trainer: Any) -> str:  # noqa: ANN401
    log = trainer.logger.get_value
    dice = log("mean_fg_dice", -1)
    return (
        f"epoch {trainer.current_epoch}/{trainer.num_epochs}  train loss {log('train_losses', -1):.4f}  "
        f"val loss {log('val_losses', -1):.4f}  pseudo Dice {'n/a' if math.isnan(dice) else f'{dice:.4f}'}  "
        f"{log('epoch_end_timestamps', -1) - log('epoch_start_timestamps', -1):.0f} s\n"
    )


def _run(options: TrainOptions, device: Any, report: Callable[[str], object]) -> None:  # noqa: ANN401
    trainer = _build(options, device)
    _report_epochs(trainer, report)
    if trainer.current_epoch < trainer.num_epochs:
        trainer.run_training()
    summary, weights = (
        Path(trainer.output_folder) / name for name in ("validation/summary.json", "checkpoint_final.pth")
    )
    fresh = summary.exists() and weights.exists() and summary.stat().st_mtime > weights.stat().st_mtime
    if options.validate and not fresh:
        trainer.perform_actual_validation()


def _run_on_gpu(rank: int, options: TrainOptions) -> None:
    """Train as one of several processes, one per GPU."""
    import torch  # noqa: PLC0415
    from nnunetv2.run.run_training import cleanup_ddp, setup_ddp  # noqa: PLC0415

    workers = _workers(options, "cuda")
    with nnunet_environment(options.work_dir, workers=workers):
        setup_ddp(rank, options.gpus)
        torch.cuda.set_device(rank)
        try:
            _run(options, torch.device("cuda", rank), sys.stderr.write if rank == 0 else logger.debug)
        finally:
            cleanup_ddp()


def _run_on_gpus(options: TrainOptions) -> None:
    import torch  # noqa: PLC0415
    from nnunetv2.run.run_training import find_free_network_port  # noqa: PLC0415
    from torch.multiprocessing.spawn import spawn  # noqa: PLC0415

    if torch.cuda.device_count() < options.gpus:
        msg = f"{options.gpus} GPUs asked for, {torch.cuda.device_count()} found"
        raise UsageError(msg)
    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", str(find_free_network_port()))
    spawn(_run_on_gpu, args=(options,), nprocs=options.gpus, join=True)  # type: ignore[no-untyped-call]


def train(options: TrainOptions, report: Callable[[str], object] | None = None) -> Path:
    """Train a network with nnU-Net on a planned and preprocessed dataset.

    Parameters
    ----------
    options : TrainOptions
        What to train and how long.
    report : callable, optional
        Called with one line after each epoch. By default, and with several GPUs, lines go to standard error.

    Returns
    -------
    Path
        The fold's folder, with ``checkpoint_final.pth``, the curves in ``progress.png``, nnU-Net's log,
        ``validation/summary.json`` and ``test/summary.json``.

    Raises
    ------
    UsageError
        If the device, the plans or the fold do not exist, or the images were prepared again after planning.
    MissingInputError
        If the dataset was not planned.
    """
    plans = plans_file(options.work_dir, options.dataset, options.plans)
    preprocessed = plans.parent
    if not plans.exists():
        msg = f"{preprocessed}: no {plans.name}; run 'totalspineseg-tools plan' for these plans first"
        raise MissingInputError(msg)
    if is_stale(options.work_dir, options.dataset, options.plans):
        msg = f"{preprocessed}: the prepared images have changed since; run 'totalspineseg-tools plan' again"
        raise UsageError(msg)
    _check_fold(options, preprocessed)
    device = resolve_device(options.device)
    if options.gpus > 1 and device.type != "cuda":
        msg = f"{options.gpus} GPUs need --device cuda, not {device.type}"
        raise UsageError(msg)
    if options.gpus > 1:
        _run_on_gpus(options)
    else:
        pools = contextlib.nullcontext() if device.type == "cuda" else inline_pools()
        workers = _workers(options, device.type)
        with nnunet_environment(options.work_dir, workers=workers), pools, quiet(logger):
            _run(options, device, report or sys.stderr.write)
    if options.test:
        run_test_set(options.work_dir, options.dataset, options.folder, device)
    return options.folder
