"""Cost of rejecting a component."""

from dataclasses import replace

import numpy as np
import pytest

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling.column.parameters import WEIGHTS
from totalspineseg_bids.segmentation.labelling.column.rejection import rejection_costs
from totalspineseg_bids.segmentation.labelling.records import ClassShares, Observation


def _component(kind: Structure, *, level: str | None = None, share: float = 1.0, volume: float = 1500.0) -> Observation:
    class_shares = ClassShares({level: share} if level else {}, {}, 0.0, 0.0, 1.0, frozenset({"C2-C3", "C2"}))
    return Observation(
        kind, np.array([0.0, 15.0, 0.0]), 0.0, -3.0, 3.0, 15.0, 0.0, volume, Cut.NONE, (class_shares,), 0
    )


def _price(component: Observation, peers: int = 2) -> float:
    others = [replace(_component(component.kind), s=20.0 * n) for n in range(1, peers + 1)]
    return float(rejection_costs([component, *others])[0])


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_disc_with_a_landmark_class_is_no_cheaper_to_throw_away_than_to_contradict(share):
    contradicted = share * np.log(WEIGHTS.landmark_hit / WEIGHTS.landmark_slip[0])
    more = _price(_component(Structure.DISC, level="C2-C3", share=share)) - _price(_component(Structure.DISC))
    assert more >= contradicted - 1e-9


def test_a_landmark_vertebra_costs_more_but_less_than_a_disc():
    # Its errors go with those of the disc beside it.
    vertebra = _price(_component(Structure.VERTEBRA, level="C2")) - _price(_component(Structure.VERTEBRA))
    disc = _price(_component(Structure.DISC, level="C2-C3")) - _price(_component(Structure.DISC))
    assert 0 < vertebra < disc


def test_specks_and_what_lies_out_of_line_are_cheap():
    ordinary = _price(_component(Structure.DISC))
    assert _price(_component(Structure.DISC, volume=100.0)) < 0.5 * ordinary
    assert _price(replace(_component(Structure.DISC), lateral=30.0)) <= 0.5
    assert _price(replace(_component(Structure.DISC), anterior=1.0)) <= 0.5


def test_a_piece_at_the_edge_is_as_sure_as_a_whole_one_unless_it_is_a_sliver():
    assert _price(replace(_component(Structure.DISC, volume=300.0), cut=Cut.ALONG)) == _price(
        _component(Structure.DISC)
    )
    assert _price(replace(_component(Structure.DISC, volume=50.0), cut=Cut.ALONG)) < _price(_component(Structure.DISC))


@pytest.mark.parametrize(("scout", "dearer"), [({"S": 1.0}, True), ({"L5": 1.0}, False)])
def test_a_level_scout_makes_a_sacrum_dearer_or_cheaper(scout, dearer):
    sacrum = replace(_component(Structure.SACRUM), length_mm=60.0)
    plain, told = (float(rejection_costs([o])[0]) for o in (sacrum, replace(sacrum, level_prior=scout)))
    assert (told > plain) == dearer
