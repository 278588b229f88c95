from __future__ import annotations

import numpy as np
import pytest

from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.curve import SpineParameters
from totalspineseg_bids.synthesis.parametric import make_spine


@pytest.fixture(scope="session")
def spine() -> Volume:
    """A mean adult at 1 mm."""
    return make_spine(np.random.default_rng(11), parameters=SpineParameters())
