"""Cost of rejecting a component."""

import numpy as np
import pytest

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling.column.parameters import WEIGHTS
from totalspineseg_bids.segmentation.labelling.column.rejection import rejection_costs

from .observations import make_observation


def _price(kind=Structure.DISC, volume=1500.0, **properties):
    """Return the cost of rejecting a component among two ordinary ones of its kind."""
    others = [make_observation(kind, s, volume=1500.0) for s in (20.0, 40.0)]
    return rejection_costs([make_observation(kind, volume=volume, **properties), *others])[0]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_disc_with_a_landmark_class_is_no_cheaper_to_throw_away_than_to_contradict(share):
    contradicted = share * np.log(WEIGHTS.landmark_hit / WEIGHTS.landmark_slip[0])
    assert _price(level="C2-C3", share=share) - _price() >= contradicted - 1e-9


def test_specks_and_what_lies_out_of_line_are_cheap():
    assert _price(volume=100.0) < 0.5 * _price()
    assert _price(lateral=30.0) <= 0.5
    assert _price(anterior=1.0) <= 0.5


def test_a_piece_at_the_edge_is_as_sure_as_a_whole_one_unless_it_is_a_sliver():
    assert _price(volume=30.0, cut=Cut.ALONG) < 0.6 * _price()
    assert _price(volume=300.0, cut=Cut.ALONG) == _price()
    assert _price(volume=300.0) < _price()
