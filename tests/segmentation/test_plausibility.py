"""Sizes of vertebrae against their neighbours."""

import numpy as np
import pytest

from tests.columns import SimpleColumn, make_column, semantic_of
from tests.images import cropped
from totalspineseg_bids import anatomy
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.segmentation.labelling.plausibility import SLIVER, TOO_LARGE, TOO_SMALL, size_outliers, slivers

NECK = {"C1": 11e3, "C2": 16e3, "C3": 9e3, "C4": 9.2e3, "C5": 9.4e3, "C6": 9.8e3, "C7": 12e3, "T1": 13e3}


@pytest.mark.parametrize(
    ("changes", "cut", "expected"),
    [
        pytest.param({}, set(), {}, id="ordinary"),
        pytest.param({"C6": 25.48e3}, set(), {"C6": TOO_LARGE}, id="holds a neighbour"),
        pytest.param({"C4": 2.76e3}, set(), {"C4": TOO_SMALL}, id="lost a part"),
        pytest.param({"C1": 20e3, "C2": 6e3}, set(), {"C1": TOO_LARGE, "C2": TOO_SMALL}, id="C1 holds most of C2"),
        pytest.param({"T1": 1e3}, {"T1"}, {}, id="cut by the field of view"),
    ],
)
def test_sizes_out_of_line_are_told(changes, cut, expected):
    assert size_outliers({**NECK, **changes}, cut) == expected


def test_what_the_field_of_view_cuts_is_no_measure():
    assert size_outliers({"L4": 30e3, "L5": 9e3, "L3": 2e3}, {"L3"}) == {}


@pytest.mark.parametrize(
    ("volumes", "cut", "expected"),
    [
        ({**NECK, "T1": 0.9e3}, {"T1"}, ("T1",)),
        ({**NECK, "T1": 1.2e3}, {"T1"}, ()),
        ({**NECK, "T1": 0.9e3}, set(), ()),
        ({"C7": 12e3, "T1": 0.9e3}, {"C7", "T1"}, ("T1",)),
        ({"T1": 0.9e3}, {"T1"}, ()),
        ({"C7-T1": 1.4e3, "T1-T2": 1.5e3, "T2-T3": 1.6e3, "T3-T4": 120.0}, {"T3-T4"}, ("T3-T4",)),
    ],
)
def test_a_sliver_is_less_than_a_tenth_of_those_of_its_kind_beside_it(volumes, cut, expected):
    order = anatomy.DISC_LEVELS if "T3-T4" in cut else tuple(NECK)
    assert slivers(volumes, cut, order) == expected


@pytest.mark.parametrize("sides", [slice(None), slice(16, 48)], ids=["whole", "slab"])
def test_a_vertebra_of_which_most_is_missing_is_flagged(sides):
    column, layout = make_column(scale=0.9), ClassMap.named("r20240601-step2")
    wanted = anatomy.vertebra("T6").id
    index = np.argwhere(column.truth == wanted)
    lost = index[index[:, 1] < np.percentile(index[:, 1], 70)]
    damaged = column.truth.copy()
    damaged[tuple(lost.T)] = 0
    whole, spine = (label_map(semantic_of(m[sides], layout), column.affine, layout) for m in (column.truth, damaged))
    assert not [flag for flag in whole.flags if flag.startswith("odd-size")]
    assert "odd-size:T6" in spine.flags
    (reason,) = [c.reason for c in spine.components if c.label_id == wanted]
    assert reason == TOO_SMALL


def test_a_sliver_at_the_edge_comes_with_a_warning():
    column, layout = make_column(scale=0.9), ClassMap.named("r20240601-step2")
    layers = (column.truth == anatomy.vertebra("L2").id).sum((0, 1))
    in_view = np.cumsum(layers[::-1])[::-1] / layers.sum()
    first = int(np.flatnonzero((in_view > 0) & (in_view < 0.09))[0])
    spine = SimpleColumn(*cropped(column.truth, column.affine, 2, first)).labelled(layout)
    reasons = {c.level: c.reason for c in spine.components}
    assert reasons["L2"] == SLIVER
    assert reasons["L1"] is None
    assert "sliver:L2" in spine.flags
