"""The test set of a trained model: its prediction by nnU-Net, and nnU-Net's summary of it.

``imagesTs`` holds persons that no fold has seen. The prediction runs in this process, one image after the other.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from totalspineseg_bids.training.class_maps import CHANNEL_NAMES, DATASET_NAMES, DatasetId
from totalspineseg_bids.training.nnunet_env import inline_pools, nnunet_environment, quiet

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
_WEIGHTS = "checkpoint_final.pth"


def _cases(raw: Path, channels: int) -> dict[str, list[str]]:
    """Return the test cases with labels, each with its channels' files."""
    cases: dict[str, list[str]] = {}
    for path in sorted((raw / "labelsTs").glob("*.nii.gz")):
        name = path.name.removesuffix(".nii.gz")
        images = [raw / "imagesTs" / f"{name}_{channel:04d}.nii.gz" for channel in range(channels)]
        if all(image.exists() for image in images):
            cases[name] = [str(image) for image in images]
    return cases


def run_test_set(
    work_dir: Path,
    dataset: DatasetId,
    fold_folder: Path,
    device: Any,  # noqa: ANN401 - torch is imported late
) -> Path | None:
    """Predict the test cases with one fold and summarise them as nnU-Net does.

    A case whose prediction is newer than the checkpoint is kept, so that an interrupted test can be resumed.

    Parameters
    ----------
    work_dir : Path
        Folder of ``nnUNet_raw``.
    dataset : DatasetId
        101, 102 or 103.
    fold_folder : Path
        ``fold_X`` of the trained model; gets ``test/`` with predictions and ``summary.json``.
    device : Any
        torch device.

    Returns
    -------
    Path or None
        The summary; ``None`` where there is no test case.
    """
    trained = (fold_folder / _WEIGHTS).stat().st_mtime
    raw = Path(work_dir).resolve() / "nnUNet_raw" / DATASET_NAMES[dataset]
    cases = _cases(raw, len(CHANNEL_NAMES[dataset]))
    if not cases:
        return None
    target = fold_folder / "test"
    target.mkdir(exist_ok=True)
    for path in target.glob("*.nii.gz"):
        if path.name.removesuffix(".nii.gz") not in cases or path.stat().st_mtime < trained:
            path.unlink()
    waiting = {name: images for name, images in cases.items() if not (target / f"{name}.nii.gz").exists()}
    with nnunet_environment(work_dir), inline_pools(), quiet(logger):
        if waiting:
            _predict(fold_folder, device, list(waiting.values()), [str(target / name) for name in waiting])
        _summarise(fold_folder.parent, raw / "labelsTs", target)
    return target / SUMMARY


def _predict(fold_folder: Path, device: Any, images: list[list[str]], outputs: list[str]) -> None:  # noqa: ANN401
    import torch  # noqa: PLC0415
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415

    fold = fold_folder.name.removeprefix("fold_")
    predictor = nnUNetPredictor(
        device=device, perform_everything_on_device=device.type == "cuda", use_mirroring=False, allow_tqdm=False
    )
    threads = torch.get_num_threads()
    try:
        predictor.initialize_from_trained_model_folder(
            str(fold_folder.parent), use_folds=(fold if fold == "all" else int(fold),), checkpoint_name=_WEIGHTS
        )
        predictor.predict_from_files_sequential(images, outputs)
    finally:
        torch.set_num_threads(threads)


def _summarise(model: Path, references: Path, predictions: Path) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2  # noqa: PLC0415

    with warnings.catch_warnings():
        # Levels that no test image has: their mean is over nothing, which nnU-Net notes as NaN.
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        compute_metrics_on_folder2(
            str(references),
            str(predictions),
            str(model / "dataset.json"),
            str(model / "plans.json"),
            str(predictions / SUMMARY),
            num_processes=1,
        )


def mean_dice(summary: Path) -> float:
    """Return the mean Dice of the regions in a summary of nnU-Net, those that no test image has left out."""
    means = [row["Dice"] for row in json.loads(summary.read_text())["mean"].values()]
    known = [value for value in means if value is not None and not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
