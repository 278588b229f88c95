import numpy as np
import pytest
import torch

from totalspineseg_bids.synthesis.arrays import TorchArrays
from totalspineseg_bids.synthesis.curve import SpineParameters
from totalspineseg_bids.synthesis.parametric import make_spine


@pytest.fixture(scope="session")
def spine():
    """A mean adult at 1 mm."""
    return make_spine(np.random.default_rng(11), parameters=SpineParameters())


@pytest.fixture
def column():
    """Two bodies with a disc in front of a canal with a cord, in muscle, with fat and air in front; label map."""
    labels = np.full((40, 48, 56), 2, np.uint8)
    labels[:, :4] = 9
    labels[:, :1] = 0
    labels[12:28, 28:44, 4:24] = 20
    labels[12:28, 28:44, 24:30] = 205
    labels[12:28, 28:44, 30:50] = 21
    labels[12:28, 14:26] = 201
    labels[16:24, 17:23] = 200
    return labels


@pytest.fixture
def tensors():
    return TorchArrays(torch.device("cpu"), 1)
