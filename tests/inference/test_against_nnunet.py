"""The same weights in nnUNetPredictor and here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from tests.columns import dice
from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.predictor import Predictor

from .samples import ISO, OPENVINO, SOFTMAX, STEP1, STEP2, TORCH, image


def reference(folder, data, spacing=ISO, *, mirror=False, exact=True):
    """Return labels and probabilities of nnU-Net, which adds up patches in 16 bits, or in 32 to compare the method."""
    predictor = nnUNetPredictor(use_mirroring=mirror, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), None, "checkpoint_final.pth")
    with pytest.MonkeyPatch.context() as patch:
        if exact:
            patch.setattr(torch, "half", torch.float32)
        labels, probabilities = predictor.predict_single_npy_array(
            data.transpose(0, 3, 2, 1), {"spacing": list(spacing[::-1])}, None, None, True
        )
    return labels.transpose(2, 1, 0), probabilities.transpose(0, 3, 2, 1)


@dataclass(frozen=True)
class Case:
    """A model, and spacing and shape of an image."""

    dataset: dict[str, Any]
    spacing: tuple[float, float, float] = ISO
    shape: tuple[int, int, int] = (24, 30, 36)
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, folder: Path) -> tuple[Path, np.ndarray]:
        model = write_untrained_model(folder, self.dataset, **self.options)
        return model, image(len(self.dataset["channel_names"]), self.shape)


TORCH_RESAMPLING = {"is_seg": False, "force_separate_z": False}


def configured(spacing: tuple[float, float, float] = ISO, **configuration: Any) -> Case:
    return Case(STEP2, spacing, (16, 12, 20), {"configuration": configuration})


CASES = {
    "regions": Case(STEP1),
    "regions-2-channels-2-folds": Case(STEP2, options={"folds": 2}),
    "regions-residual-resampled": Case(STEP1, (0.8, 1.3, 1.1), options={"architecture": "residual"}),
    "regions-coarser-model": Case(STEP1, options={"spacing": (1.5, 1.5, 1.5)}),
    "regions-anisotropic": Case(STEP1, (4.0, 1.0, 1.0), (8, 30, 30)),
    "softmax-2-folds": Case(SOFTMAX, options={"folds": 2}),
    "softmax-residual-resampled": Case(SOFTMAX, (1.2, 0.9, 1.0), options={"architecture": "residual"}),
    "regions-transposed": Case(STEP1, (0.9, 1.1, 1.4), options={"spacing": (1.2, 1.0, 1.1), "transpose": (2, 0, 1)}),
    "smaller-than-a-patch": Case(STEP1, shape=(9, 30, 13)),
    "masked": configured(use_mask_for_norm=[True, False]),
    "CT": configured((0.7, 1.0, 1.2), normalization_schemes=["CTNormalization", "NoNormalization"]),
    "rescale": configured(normalization_schemes=["RescaleTo01Normalization"] * 2),
    "resampled by torch": configured(
        (0.8, 1.0, 1.2),
        **{f"resampling_fn_{kind}": "resample_torch_fornnunet" for kind in ("data", "probabilities")},
        **{f"resampling_fn_{kind}_kwargs": TORCH_RESAMPLING for kind in ("data", "probabilities")},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_torch_engine_gives_nnunets_numbers(name, tmp_path):
    case = CASES[name]
    folder, data = case.make(tmp_path)
    model, untouched = load_model(folder), data.copy()
    expected, probabilities = reference(folder, data, case.spacing)
    found = Predictor(model, TORCH).predict(data, case.spacing, keep=model.heads.names)
    assert len(np.unique(expected)) > 2
    assert found.labels.dtype == np.uint8
    assert (found.labels != expected).mean() < 1e-4
    for index, role in enumerate(model.heads.names):
        np.testing.assert_allclose(found.probabilities[role], probabilities[index], atol=2e-3)
    np.testing.assert_array_equal(data, untouched)


@pytest.mark.parametrize(
    ("case", "options", "exact"),
    [
        pytest.param(Case(STEP1, shape=(32, 40, 48)), TORCH, False, id="torch"),
        pytest.param(Case(STEP1, shape=(32, 40, 48)), OPENVINO, False, id="openvino"),
        pytest.param(CASES["regions-coarser-model"], OPENVINO, True, id="openvino with a coarser model"),
    ],
)
def test_either_engine_agrees_with_nnunet_as_it_is(case, options, exact, tmp_path):
    """Without a hand in nnU-Net's 16-bit sums, the difference is that of their rounding."""
    folder, data = case.make(tmp_path)
    expected, _ = reference(folder, data, exact=exact)
    found = Predictor(load_model(folder), options).predict(data, ISO).labels
    common = [value for value in np.unique(expected) if exact or (expected == value).sum() > 1000]
    assert len(common) > 2
    assert min(dice(found == value, expected == value) for value in common) >= 0.999


def test_mirroring(tmp_path):
    folder, data = Case(STEP1, shape=(16, 18, 20)).make(tmp_path)
    expected, _ = reference(folder, data, mirror=True)
    found = Predictor(load_model(folder), TORCH, mirror=True).predict(data, ISO)
    assert (found.labels != expected).mean() < 1e-4
