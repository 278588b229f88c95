import numpy as np
import pytest

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.inference.preprocess import prepare

from .samples import ISO, STEP1, STEP2, TORCH, image


def model_with(folder, **configuration):
    return load_model(write_untrained_model(folder, STEP2, configuration=configuration))


def test_image_of_zeros_is_kept_whole(tmp_path):
    prepared = prepare(np.zeros((2, 5, 6, 7), np.float32), ISO, model_with(tmp_path))
    assert prepared.data.shape == (2, 5, 6, 7)
    assert np.isfinite(prepared.data).all()


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"normalization_schemes": ["Magic", "NoNormalization"]}, "channel 0"),
        ({"resampling_fn_data": "magic"}, "resampling_fn_data"),
    ],
)
def test_unknown_names_in_the_plans(configuration, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        prepare(np.ones((2, 5, 6, 7), np.float32), (2.0, 1.0, 1.0), model_with(tmp_path, **configuration))


@pytest.mark.parametrize(("trim", "trimmed"), [(0, False), (1, False), (2, True)])
@pytest.mark.parametrize("transpose", [(0, 1, 2), (1, 2, 0)])
def test_ends_of_a_wide_image_repeat_what_lies_beside_them(trim, trimmed, transpose, tmp_path):
    """Two of its 22 voxels are empty and cut off, and patches have 16."""
    dataset = STEP1 | {"channel_names": {"0": "noNorm"}}
    model, data = load_model(write_untrained_model(tmp_path, dataset, transpose=transpose)), image(1, (22, 24, 20))
    found = Predictor(model, TORCH, trim=trim).predict(data, ISO, keep=("cord",))
    if not trimmed:
        np.testing.assert_array_equal(found.labels, Predictor(model, TORCH).predict(data, ISO).labels)
        return
    middle = Predictor(model, TORCH).predict(data[:, 4:20], ISO, keep=("cord",))
    for here, there in ((found.labels, middle.labels), (found.probabilities["cord"], middle.probabilities["cord"])):
        assert not here[:2].any()
        np.testing.assert_array_equal(here[4:20], there)
        np.testing.assert_array_equal(here[2:4], there[[0, 0]])
        np.testing.assert_array_equal(here[20:], there[[-1, -1]])
