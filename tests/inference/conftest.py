import pytest
import torch

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference.model import load_model

from .samples import STEP2


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Two folds of a model of regions that takes two channels."""
    return load_model(write_untrained_model(tmp_path_factory.mktemp("model"), STEP2, folds=2))
