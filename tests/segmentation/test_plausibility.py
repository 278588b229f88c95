"""Sizes of vertebrae against their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from totalspineseg_bids import anatomy
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.segmentation.labelling.plausibility import TOO_LARGE, TOO_SMALL, out_of_line
from totalspineseg_bids.segmentation.layout import Layout

from .columns import make_column, semantic_of

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


def test_a_vertebra_of_which_most_is_missing_is_flagged():
    column, layout = make_column(scale=0.9), Layout.named("r20240601-step2")
    wanted = anatomy.vertebra("T6").id
    index = np.argwhere(column.truth == wanted)
    lost = index[index[:, 1] < np.percentile(index[:, 1], 70)]
    damaged = column.truth.copy()
    damaged[tuple(lost.T)] = 0
    whole = label_map(semantic_of(column.truth, layout), column.affine, layout)
    spine = label_map(semantic_of(damaged, layout), column.affine, layout)
    assert not [flag for flag in whole.flags if flag.startswith("odd-size")]
    assert "odd-size:T6" in spine.flags
    (reason,) = [c.reason for c in spine.components if c.label_id == wanted]
    assert reason == TOO_SMALL
