"""Logit margins that predictions return beside the labels."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.predictor import Predictor

from .samples import SOFTMAX, STEP2, image

BORDERS = ("disc", "vertebrae")


@pytest.mark.parametrize("spacing", [1.0, 1.5])
def test_it_is_the_least_distance_of_a_logit_from_zero(tmp_path: Path, spacing: float) -> None:
    model = load_model(write_untrained_model(tmp_path, STEP2))
    predictor = Predictor(model, InferenceOptions(engine="torch", precision="fp32"), borders=BORDERS)
    data = image(2, (20, 22, 24))
    found = predictor.predict(data, (spacing,) * 3, keep=BORDERS)
    assert found.margin is not None
    assert found.margin.dtype == np.float16
    # nnU-Net cuts off what is empty; there is nothing there, for certain.
    assert np.isinf(found.margin[0]).all()
    assert not found.labels[0].any()
    # Where a probability is 1 in 32 bits the logit cannot be recovered from it.
    near = found.margin < 5
    assert near.sum() > 100
    chances = np.stack([found.probabilities[role][near] for role in BORDERS]).clip(1e-6, 1 - 1e-6)
    np.testing.assert_allclose(found.margin[near], np.abs(logit(chances)).min(axis=0), rtol=3e-3, atol=3e-3)


def test_there_is_none_where_nothing_asks_for_it_or_classes_exclude_each_other(tmp_path: Path) -> None:
    regions = load_model(write_untrained_model(tmp_path / "a", STEP2))
    classes = load_model(write_untrained_model(tmp_path / "b", SOFTMAX))
    assert (
        Predictor(regions, InferenceOptions(engine="torch")).predict(image(2, (16, 16, 16)), (1.0,) * 3).margin is None
    )
    channels = len(classes.channel_names)
    found = Predictor(classes, InferenceOptions(engine="torch"), borders=BORDERS).predict(
        image(channels, (16, 16, 16)), (1.0,) * 3
    )
    assert found.margin is None
