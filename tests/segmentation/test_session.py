"""Images of one session, labelled together."""

from dataclasses import replace

import numpy as np
import pytest
from nibabel.affines import from_matvec

from tests.columns import SimpleColumn, label_of, levels_right, make_column, semantic_of, without_landmarks
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.evaluation.corruption.score import GivenName, score
from totalspineseg_bids.evaluation.corruption.sessions import contradictions, make_session
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LabellingInput, label_map, label_session
from totalspineseg_bids.segmentation.labelling.labeller import solve_image
from totalspineseg_bids.segmentation.labelling.session import (
    CONTESTED_ELSEWHERE,
    DISAGREES,
    FROM_SESSION,
    OUTVOTED,
    image_evidence,
)
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
    assert chest.labelled(STEP2).status is SpineStatus.ABSTAINED
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
        single = column.labelled(STEP2)
        np.testing.assert_array_equal(spine.labels, single.labels)
        assert spine.components == single.components


def test_a_lone_false_landmark_gives_way_or_disagreement_is_flagged():
    low = make_column(first="T9", last="L3")
    long = make_column(first="T6")
    order = ["T11-T12", "T12-L1", "L1-L2"]
    damaged = without_landmarks(semantic_of(low.truth, STEP2), STEP2)
    z = low.centre(order[2])
    box = (*(slice(int(k) - 25, int(k) + 26) for k in z[:2]), slice(int(z[2]) - 5, int(z[2]) + 6))
    part = damaged[box]
    part[part == STEP2.values_of("disc")[0]] = STEP2.labels["disc_T12_L1"][0]
    first, second = label_session([_image(low, damaged), _image(long)])
    assert _wrong(second, long) == []
    if first.status is SpineStatus.LABELLED and _wrong(first, low):
        assert DISAGREES in first.flags
        assert all(c.reason for c in first.components if c.level)


def _neck(classes: dict[str, str], first: str = "C1", last: str = "C5") -> tuple[SimpleColumn, LabellingInput]:
    """Return a neck without other landmark classes than those given by level."""
    neck = make_column(first=first, last=last)
    semantic = without_landmarks(semantic_of(neck.truth, WITH_C2), WITH_C2)
    for level, name in classes.items():
        semantic[neck.truth == label_of(level).id] = WITH_C2.labels[name][0]
    return neck, LabellingInput(semantic, neck.affine, WITH_C2)


RIGHT = {"C2-C3": "disc_C2_C3", "C2": "vertebrae_C2"}
ALONE = {"C2-C3": "disc_C2_C3"}
SHIFTED = {"C3-C4": "disc_C2_C3", "C3": "vertebrae_C2"}
CONTESTED_CLASS = {"C2-C3": "disc_C2_C3", "C3-C4": "disc_C2_C3"}


@pytest.mark.parametrize(
    ("first", "second", "statuses"),
    [
        pytest.param(RIGHT, {}, "named, from session", id="a sure image names one without landmark"),
        pytest.param(RIGHT, CONTESTED_CLASS, "named, from session", id="a sure image names an undecided one"),
        pytest.param(RIGHT, ALONE, "named, named", id="a sure image confirms a lone landmark"),
        pytest.param(ALONE, {}, "doubtful, from session", id="a doubtful image names one without landmark"),
        pytest.param(ALONE, ALONE, "doubtful, doubtful", id="the same lone landmark twice is one landmark"),
        pytest.param(CONTESTED_CLASS, CONTESTED_CLASS, "abstained, abstained", id="two undecided images"),
        pytest.param(CONTESTED_CLASS, {}, "abstained, abstained", id="an undecided image and one without landmark"),
        pytest.param({}, {}, "abstained, abstained", id="two images without landmark"),
    ],
)
@pytest.mark.parametrize("shift_mm", [0.0, 4.0])
def test_images_of_a_session_are_one_body_of_evidence(first, second, statuses, shift_mm):
    column, one = _neck(first)
    other = replace(_neck(second)[1], affine=from_matvec(np.eye(3), (0, 0, shift_mm)) @ column.affine)
    pair = label_session([one, other])
    for spine, status in zip(pair, statuses.split(", "), strict=True):
        reasons = {c.reason for c in spine.components if c.level and c.structure is not Structure.SACRUM}
        if status == "abstained":
            assert spine.status is SpineStatus.ABSTAINED
            continue
        assert spine.status is SpineStatus.LABELLED
        assert _wrong(spine, column) == []
        if status == "doubtful":
            assert not reasons & {None, FROM_SESSION}
        else:
            assert reasons == {None if status == "named" else FROM_SESSION}
    if "abstained" in statuses:
        assert [spine.reason for spine in pair] == [label_session([image])[0].reason for image in (one, other)]
    for a, b in zip(pair, label_session([other, one])[::-1], strict=True):
        np.testing.assert_array_equal(a.labels, b.labels)
        assert a.components == b.components


@pytest.mark.parametrize(("first", "second"), [(ALONE, RIGHT), (RIGHT, RIGHT), (CONTESTED_CLASS, RIGHT)])
def test_images_of_one_acquisition_do_not_confirm_each_other(first, second):
    images = [replace(_neck(classes)[1], acquisition="sag_T2w") for classes in (first, second)]
    for spine, image in zip(label_session(images), images, strict=True):
        (alone,) = label_session([image])
        if alone.status is SpineStatus.LABELLED:
            assert spine.components == alone.components
        else:
            assert {c.reason for c in spine.components if c.level} == {FROM_SESSION}


def test_images_of_one_acquisition_are_one_piece_of_evidence():
    undecided, sure = _neck(CONTESTED_CLASS)[1], replace(_neck(RIGHT)[1], acquisition="sag_T2w")
    one, two = (label_session([undecided, *[sure] * count])[0].components for count in (1, 2))
    assert [c.level for c in two] == [c.level for c in one]
    np.testing.assert_allclose([c.confidence for c in two], [c.confidence for c in one])


def _below_c2(neck: SimpleColumn, classes: dict[str, str]) -> LabellingInput:
    """Remove everything above C3, so that the classes decide alone."""
    gone = np.isin(neck.truth, [label_of(level).id for level in ("C1", "C2", "C2-C3")])
    return LabellingInput(np.where(gone, 0, _neck(classes)[1].semantic), neck.affine, WITH_C2)


@pytest.mark.parametrize("classes", [{"C3-C4": "disc_C2_C3"}, SHIFTED])
def test_a_landmark_in_the_wrong_place_gives_way_to_a_sure_image(classes):
    """Without the dens in view, the classes of C2 and of the disc below it are one landmark that is not sure."""
    neck, sure = _neck(RIGHT)
    shifted = _below_c2(neck, classes)
    (alone,) = label_session([shifted])
    assert alone.status is SpineStatus.LABELLED
    assert _wrong(alone, neck)
    first, second = label_session([shifted, sure])
    assert _wrong(second, neck) == []
    named = [c for c in first.components if c.level]
    assert {c.level for c in named} <= {"C3", "C3-C4", "C4", "C4-C5", "C5", "C5-C6"}
    assert {c.reason for c in named} == {FROM_SESSION}
    assert all(DISAGREES in spine.flags for spine in (first, second))


def test_lone_landmarks_at_different_levels_leave_no_name_without_a_reason():
    neck, lone = _neck(ALONE)
    pair = label_session([_below_c2(neck, {"C3-C4": "disc_C2_C3"}), lone])
    assert all(DISAGREES in spine.flags for spine in pair)
    assert [spine.reason for spine in pair] == [OUTVOTED, None]
    assert _wrong(pair[1], neck) == []
    assert all(c.reason for c in pair[1].components if c.level)


def test_a_lone_landmark_that_another_image_shows_at_two_levels_names_nothing():
    neck, contested = _neck(CONTESTED_CLASS)
    shifted = _below_c2(neck, {"C3-C4": "disc_C2_C3"})
    assert label_session([shifted])[0].status is SpineStatus.LABELLED
    pair = label_session([shifted, contested])
    assert [spine.status for spine in pair] == [SpineStatus.ABSTAINED] * 2
    assert pair[0].reason == CONTESTED_ELSEWHERE


def test_sure_images_displaced_by_a_level_keep_their_names():
    column = make_column(last="T4")
    step = np.linalg.norm(column.centre("C4-C5") - column.centre("C5-C6"))
    displaced = replace(_image(column), affine=from_matvec(np.eye(3), (0, 0, step)) @ column.affine)
    for spine in label_session([_image(column), displaced]):
        assert _wrong(spine, column) == []
        assert DISAGREES not in spine.flags
        assert all(c.reason is None for c in spine.components if c.level)


def test_sessions_of_the_suite_repeat_and_lie_in_one_scanner_space():
    session, again = (make_session("one without landmark", 1, "fit") for _ in range(2))
    names = [label_map(c.semantic, c.affine, c.layout).status for c in session]
    assert names == [SpineStatus.ABSTAINED, SpineStatus.LABELLED]
    for case, same in zip(session, again, strict=True):
        np.testing.assert_array_equal(case.semantic, same.semantic)
    spines = label_session([case.as_input for case in session])
    scores = [score(case, spine) for case, spine in zip(session, spines, strict=True)]
    assert all(result.all_right for result in scores)
    assert contradictions(scores) == []
    other = next(n for n in scores[0].given if n in scores[1].given)
    scores[0].given[other] = GivenName("T9", warned=False)
    assert len(contradictions(scores)) == 1


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
        assert (image_evidence(solved) is not None) is says
