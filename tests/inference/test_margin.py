"""Logit margins that predictions return beside the labels."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logit

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.predictor import Predictor

from .samples import ISO, SOFTMAX, TORCH, image

BORDERS = ("disc", "vertebrae")


@pytest.mark.parametrize("spacing", [1.0, 1.5])
def test_it_is_the_least_distance_of_a_logit_from_zero(model, spacing):
    predictor = Predictor(model, replace(TORCH, precision="fp32"), borders=BORDERS)
    found = predictor.predict(image(2, (20, 22, 24)), (spacing,) * 3, keep=BORDERS)
    assert found.margin.dtype == np.float16
    # nnU-Net cuts off what is empty; there is nothing there, for certain.
    assert np.isinf(found.margin[0]).all()
    assert not found.labels[0].any()
    # Where a probability is 1 in 32 bits the logit cannot be recovered from it.
    near = found.margin < 5
    assert near.sum() > 100
    chances = np.stack([found.probabilities[role][near] for role in BORDERS]).clip(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(found.margin[near], np.abs(logit(chances)).min(axis=0), rtol=3e-3, atol=3e-3)


def test_there_is_none_where_nothing_asks_for_it_or_classes_exclude_each_other(model, tmp_path):
    classes = load_model(write_untrained_model(tmp_path, SOFTMAX))
    for predictor, channels in ((Predictor(model, TORCH), 2), (Predictor(classes, TORCH, borders=BORDERS), 1)):
        assert predictor.predict(image(channels, (16, 16, 16)), ISO).margin is None
