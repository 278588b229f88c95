"""Images of one session, labelled together."""

from __future__ import annotations

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.evaluation.corruption.columns import (
    SimpleColumn,
    levels_right,
    make_column,
    semantic_of,
    without_landmarks,
)
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LabellingInput, label_map, label_session
from totalspineseg_bids.segmentation.labelling.labeller import solve_image
from totalspineseg_bids.segmentation.labelling.session import DISAGREES, OUTVOTED, level_evidence
from totalspineseg_bids.segmentation.result import SpineStatus

STEP2 = ClassMap.named("r20241115-step2")
#: With a class that only C2 has.
WITH_C2 = ClassMap.named("r20240601-step2")


def _image(column: SimpleColumn, semantic: np.ndarray | None = None) -> LabellingInput:
    return LabellingInput(semantic_of(column.truth, STEP2) if semantic is None else semantic, column.affine, STEP2)


def _wrong(spine, column):
    return [level for level, right in levels_right(spine.labels, column).items() if not right]


def test_a_view_without_landmark_takes_its_levels_from_one_that_overlaps():
    chest, low = make_column(first="T6", last="T11"), make_column(first="T8", last="L4")
    alone = label_map(semantic_of(chest.truth, STEP2), chest.affine, STEP2)
    assert alone.status is SpineStatus.ABSTAINED
    pair = [_image(chest), _image(low)]
    together = label_session(pair)
    assert together[0].status is SpineStatus.LABELLED
    assert _wrong(together[0], chest) == []
    assert _wrong(together[1], low) == []
    assert all(c.reason for c in together[0].components if c.level)
    turned = label_session(pair[::-1])[::-1]
    for a, b in zip(together, turned, strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.components == b.components


def test_images_apart_are_labelled_as_if_alone():
    neck, low = make_column(last="T2"), make_column(first="L1")
    together = label_session([_image(neck), _image(low)])
    for spine, column in zip(together, (neck, low), strict=True):
        single = label_map(semantic_of(column.truth, STEP2), column.affine, STEP2)
        np.testing.assert_array_equal(spine.labels, single.labels)
        assert spine.components == single.components


def test_a_lone_false_landmark_gives_way_or_disagreement_is_flagged():
    low = make_column(first="T9", last="L3")
    long = make_column(first="T6")
    order = ["T11-T12", "T12-L1", "L1-L2"]
    damaged = without_landmarks(semantic_of(low.truth, STEP2), STEP2)
    z = low.discs[order[2]]
    box = (*(slice(int(k) - 25, int(k) + 26) for k in z[:2]), slice(int(z[2]) - 5, int(z[2]) + 6))
    part = damaged[box]
    part[part == STEP2.values_of("disc")[0]] = STEP2.labels["disc_T12_L1"][0]
    first, second = label_session([_image(low, damaged), _image(long)])
    assert _wrong(second, long) == []
    if first.status is SpineStatus.LABELLED and _wrong(first, low):
        assert DISAGREES in first.flags
        assert all(c.reason for c in first.components if c.level)


def test_a_single_landmark_gives_way_to_an_image_that_is_surer_of_other_names():
    """Both show C2 to C5; in one of them the class of disc C2-C3 is on the disc below, and that of C2 on C3."""
    neck = make_column(last="C5")
    truth = semantic_of(neck.truth, WITH_C2)
    part = neck.truth.copy()
    part[np.isin(neck.truth, [anatomy.vertebra("C1").id, anatomy.vertebra("C2").id, anatomy.disc("C2-C3").id])] = 0
    damaged = semantic_of(part, WITH_C2)
    shifted = {"C3-C4": "disc_C2_C3", "C3": "vertebrae_C2"}
    for level, name in shifted.items():
        label = anatomy.disc(level) if "-" in level else anatomy.vertebra(level)
        damaged[part == label.id] = WITH_C2.labels[name][0]
    low, whole = LabellingInput(damaged, neck.affine, WITH_C2), LabellingInput(truth, neck.affine, WITH_C2)
    (alone,) = label_session([low])
    assert alone.status is SpineStatus.LABELLED
    first, second = label_session([low, whole])
    assert _wrong(second, neck) == []
    assert first.status is SpineStatus.ABSTAINED
    assert first.reason == OUTVOTED
    assert DISAGREES in first.flags
    assert DISAGREES in second.flags


def test_no_image_and_an_empty_one():
    assert label_session([]) == []
    empty = LabellingInput(np.zeros((8, 8, 8), np.uint8), np.eye(4), STEP2)
    low = make_column(first="L2")
    spines = label_session([empty, _image(low)])
    assert spines[0].status is SpineStatus.NO_SPINE
    assert spines[1].status is SpineStatus.LABELLED


def test_an_image_without_a_landmark_has_no_say():
    for first, last, says in (("T3", "T9", False), ("T10", "S", True)):
        column = make_column(first=first, last=last)
        solved = solve_image(LabellingInput(semantic_of(column.truth, STEP2), column.affine, STEP2))
        assert bool(level_evidence(solved)) is says
