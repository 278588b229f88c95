"""Headers that turn the body: names counted from the wrong end are not given."""

import numpy as np
import pytest

from tests.columns import SimpleColumn, make_column, semantic_of
from tests.images import stored_along
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LabellingInput, label_session
from totalspineseg_bids.segmentation.labelling.column.cross_check import FRONT_AND_BACK, HEAD_AND_FEET
from totalspineseg_bids.segmentation.result import SpineStatus

STEP2 = ClassMap.named("r20241115-step2")
RIGHT = (1, 1, 1)
UPSIDE_DOWN, BACK_TO_FRONT, LYING_ON_THE_FACE = (1, 1, -1), (1, -1, 1), (1, -1, -1)


@pytest.mark.parametrize(("first", "last"), [("C1", "T4"), ("C5", "L2"), ("T10", "S"), ("C1", "S")])
@pytest.mark.parametrize(
    ("signs", "reason"),
    [
        (RIGHT, None),
        ((-1, 1, 1), None),
        (UPSIDE_DOWN, HEAD_AND_FEET),
        (BACK_TO_FRONT, FRONT_AND_BACK),
        (LYING_ON_THE_FACE, FRONT_AND_BACK),
    ],
)
def test_anatomy_against_the_header_is_not_named(first, last, signs, reason):
    column = make_column(first=first, last=last)
    spine = SimpleColumn(column.truth, np.diag([*signs, 1.0]) @ column.affine).labelled(STEP2)
    assert (spine.status, spine.reason) == (SpineStatus.ABSTAINED if reason else SpineStatus.LABELLED, reason)


def test_a_stored_order_of_axes_is_no_contradiction():
    column = make_column(first="T10", last="S")
    flipped = SimpleColumn(*stored_along(column.truth, column.affine, [[0, 1], [1, 1], [2, -1]]))
    assert flipped.labelled(STEP2).status is SpineStatus.LABELLED


def test_an_upside_down_image_is_no_evidence_for_others_of_the_session():
    column = make_column(first="T10", last="S")
    semantic = semantic_of(column.truth, STEP2)
    shape = np.array(column.truth.shape)
    over = np.diag([1.0, 1.0, -1.0, 1.0]) @ column.affine
    over[2, 3] += 2 * (column.affine @ [*((shape - 1) / 2), 1])[2]  # the same place in the scanner
    good, bad = label_session([LabellingInput(semantic, a, STEP2) for a in (column.affine, over)])
    assert (good.status, bad.status) == (SpineStatus.LABELLED, SpineStatus.ABSTAINED)
    np.testing.assert_array_equal(good.labels, column.labelled(STEP2).labels)
