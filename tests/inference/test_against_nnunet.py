"""The same weights in nnUNetPredictor and here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.predictor import Predictor

from .samples import SOFTMAX, STEP1, STEP2, image


@contextmanager
def sums_in_32_bits() -> Iterator[None]:
    """Let nnU-Net add up patches in 32 bits instead of 16, so that nothing but the method is compared."""
    half = torch.half
    torch.half = torch.float32
    try:
        yield
    finally:
        torch.half = half


def reference(
    folder: Path, data: np.ndarray, spacing: tuple[float, float, float], *, mirror: bool = False, exact: bool
) -> tuple[np.ndarray, np.ndarray]:
    predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), None, "checkpoint_final.pth")
    arguments: tuple[Any, ...] = (data.transpose(0, 3, 2, 1), {"spacing": list(spacing[::-1])}, None, None, True)
    if exact:
        with sums_in_32_bits():
            labels, probabilities = predictor.predict_single_npy_array(*arguments)
    else:
        labels, probabilities = predictor.predict_single_npy_array(*arguments)
    return labels.transpose(2, 1, 0), probabilities.transpose(0, 3, 2, 1)


def least_dice(a: np.ndarray, b: np.ndarray) -> float:
    labels = np.union1d(np.unique(a), np.unique(b))
    return min(2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in labels)


@dataclass(frozen=True)
class Case:
    dataset: dict[str, Any]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    architecture: str = "plain"
    folds: int = 1
    model_spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    transpose: tuple[int, int, int] = (0, 1, 2)
    shape: tuple[int, int, int] = (24, 30, 36)

    def model(self, folder: Path) -> Path:
        return write_untrained_model(
            folder,
            self.dataset,
            architecture=self.architecture,
            folds=self.folds,
            spacing=self.model_spacing,
            transpose=self.transpose,
        )


CASES = {
    "regions": Case(STEP1),
    "regions-2-channels-2-folds": Case(STEP2, folds=2),
    "regions-residual-resampled": Case(STEP1, (0.8, 1.3, 1.1), "residual"),
    "regions-coarser-model": Case(STEP1, (1.0, 1.0, 1.0), model_spacing=(1.5, 1.5, 1.5)),
    "regions-anisotropic": Case(STEP1, (4.0, 1.0, 1.0), shape=(8, 30, 30)),
    "softmax-2-folds": Case(SOFTMAX, folds=2),
    "softmax-residual-resampled": Case(SOFTMAX, (1.2, 0.9, 1.0), "residual"),
    "regions-transposed": Case(STEP1, (0.9, 1.1, 1.4), model_spacing=(1.2, 1.0, 1.1), transpose=(2, 0, 1)),
    "smaller-than-a-patch": Case(STEP1, shape=(9, 30, 13)),
}


@pytest.mark.parametrize("name", CASES)
def test_torch_engine_gives_nnunets_numbers(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder = case.model(tmp_path)
    model = load_model(folder)
    data = image(len(case.dataset["channel_names"]), case.shape)
    untouched = data.copy()
    expected, probabilities = reference(folder, data, case.spacing, exact=True)
    found = Predictor(model, InferenceOptions(device="cpu", engine="torch")).predict(
        data, case.spacing, keep=model.heads.names
    )
    assert len(np.unique(expected)) > 2
    assert found.labels.dtype == np.uint8
    assert (found.labels != expected).mean() < 1e-4
    for index, role in enumerate(model.heads.names):
        np.testing.assert_allclose(found.probabilities[role], probabilities[index], atol=2e-3)
    np.testing.assert_array_equal(data, untouched)


def test_openvino_engine_gives_nnunets_numbers(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    case = CASES["regions-coarser-model"]
    folder = case.model(tmp_path)
    data = image(len(case.dataset["channel_names"]), case.shape)
    expected, _ = reference(folder, data, case.spacing, exact=True)
    found = Predictor(load_model(folder), InferenceOptions(engine="openvino", threads=1)).predict(data, case.spacing)
    assert least_dice(found.labels, expected) >= 0.999


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_agrees_with_nnunet_as_it_is(engine: str, tmp_path: Path) -> None:
    """Without a hand in nnU-Net's 16-bit sums, the difference is that of their rounding."""
    case = CASES["regions"]
    folder = case.model(tmp_path)
    data = image(1, (32, 40, 48))
    expected, _ = reference(folder, data, case.spacing, exact=False)
    found = Predictor(load_model(folder), InferenceOptions(device="cpu", engine=engine, threads=1)).predict(
        data, case.spacing
    )
    common = [value for value in np.unique(expected) if (expected == value).sum() > 1000]
    assert len(common) > 2
    assert min(least_dice(found.labels == value, expected == value) for value in common) >= 0.999


def test_mirroring(tmp_path: Path) -> None:
    folder = Case(STEP1).model(tmp_path)
    data = image(1, (16, 18, 20))
    expected, _ = reference(folder, data, (1.0, 1.0, 1.0), mirror=True, exact=True)
    found = Predictor(load_model(folder), InferenceOptions(device="cpu", engine="torch"), mirror=True).predict(
        data, (1.0, 1.0, 1.0)
    )
    assert (found.labels != expected).mean() < 1e-4
