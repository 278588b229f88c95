"""Sizes of vertebrae against their neighbours."""

from __future__ import annotations

import pytest

from totalspineseg_bids.segmentation.labelling.plausibility import TOO_LARGE, TOO_SMALL, out_of_line

NECK = {"C1": 11e3, "C2": 16e3, "C3": 9e3, "C4": 9.2e3, "C5": 9.4e3, "C6": 9.8e3, "C7": 12e3, "T1": 13e3}


def test_an_ordinary_neck_is_in_line():
    assert out_of_line(NECK, set()) == {}


@pytest.mark.parametrize(("level", "factor", "reason"), [("C6", 2.6, TOO_LARGE), ("C4", 0.3, TOO_SMALL)])
def test_what_holds_a_neighbour_or_lost_a_part_is_told(level, factor, reason):
    assert out_of_line({**NECK, level: NECK[level] * factor}, set()) == {level: reason}


def test_c1_that_holds_most_of_c2_is_told():
    assert out_of_line({**NECK, "C1": 20e3, "C2": 6e3}, set()) == {"C1": TOO_LARGE, "C2": TOO_SMALL}


def test_what_the_field_of_view_cuts_is_neither_judged_nor_a_measure():
    assert out_of_line({**NECK, "T1": 1e3}, {"T1"}) == {}
    assert out_of_line({"L4": 30e3, "L5": 9e3, "L3": 2e3}, {"L3"}) == {}
