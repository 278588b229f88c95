import numpy as np
import pytest

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.inference.preprocess import prepare

from .samples import ISO, STEP2, TORCH


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


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_a_region_is_worthwhile_if_its_patches_have_a_sixth_fewer_voxels(transpose, tmp_path):
    predictor = Predictor(load_model(write_untrained_model(tmp_path, STEP2, transpose=transpose)), TORCH)
    half = np.zeros((64, 16, 20), bool)
    half[4:24, 4:8, 4:8] = True
    assert predictor.is_worthwhile(half, 4, ISO)
    assert not predictor.is_worthwhile(half, 40, ISO)
    assert not predictor.is_worthwhile(half, 4, (2.0, 1.0, 1.0))
    assert not predictor.is_worthwhile(np.zeros_like(half), 4, ISO)
