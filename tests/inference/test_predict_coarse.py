"""Probabilities on the network's own grid."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import affine_transform
from scipy.special import softmax

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.predictor import Predictor

from .samples import ISO, SOFTMAX, STEP1, TORCH, image


@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0)])
@pytest.mark.parametrize("dataset", [SOFTMAX, STEP1])
def test_coarse_probabilities_are_those_of_the_full_grid(tmp_path, dataset, transpose):
    """Their logits, brought to the image's grid by linear interpolation, give the probabilities of ``predict``."""
    model = load_model(write_untrained_model(tmp_path, dataset, spacing=(2.0, 1.5, 1.0), transpose=transpose))
    predictor = Predictor(model, replace(TORCH, precision="fp32"))
    data = image()
    full = predictor.predict(data, ISO, keep=("cord",)).probabilities["cord"]
    coarse = predictor.predict_coarse(data, ISO)
    assert coarse.probabilities.shape[0] == len(coarse.names)
    coarse_values = np.clip(coarse.probabilities.astype(np.float64), 1e-38, 1 - 1e-12)
    logits = np.log(coarse_values)
    row = coarse.names.index("cord")
    if model.heads.regions:
        logits = logits - np.log1p(-coarse_values)
    else:
        np.testing.assert_allclose(coarse.probabilities.sum(axis=0), 1.0, atol=1e-5)
    back = np.linalg.inv(coarse.to_image)
    fine = np.stack([affine_transform(v, back[:3, :3], back[:3, 3], data.shape[1:], order=1) for v in logits])
    expected = 1 / (1 + np.exp(-fine[row])) if model.heads.regions else softmax(fine, axis=0)[row]
    inside = (slice(4, -4),) * 3
    np.testing.assert_allclose(expected[inside], full[inside], atol=1e-3)
