"""A small part of the corruption suite; ``benchmarks/labelling_suite.py`` runs the whole."""

import numpy as np
import pytest

from totalspineseg_bids import anatomy
from totalspineseg_bids.evaluation.corruption.cases import LAYOUTS, VARIANTS, plans
from totalspineseg_bids.evaluation.corruption.damage import DAMAGES, blind
from totalspineseg_bids.evaluation.corruption.score import is_anchored, rates, score
from totalspineseg_bids.evaluation.corruption.subjects import BLIND_VIEWS, make_case, make_subject
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map

SEED = 77


def test_a_clean_view_scores_as_all_right_and_a_shifted_one_as_silently_wrong():
    case = make_case(make_subject(SEED), "lumbar", ClassMap.named(LAYOUTS[1]), np.random.default_rng(0))
    assert is_anchored(case)
    spine = label_map(case.semantic, case.affine, case.layout)
    good = score(case, spine)
    assert good.all_right
    assert good.silent == 0
    assert rates([good])["sure_right"] == 1.0
    shift = np.arange(256, dtype=np.uint8)
    for upper, lower in zip(anatomy.REGULAR_DISCS[:-1], anatomy.REGULAR_DISCS[1:], strict=True):
        shift[anatomy.disc(lower).id] = anatomy.disc(upper).id
    spine.labels[...] = shift[spine.labels]
    bad = score(case, spine)
    assert bad.wrong >= 5
    assert not bad.all_right
    assert bad.silent > 0
    assert rates([good, bad])["all_right"] == rates([good, bad])["silently_wrong"] == 0.5


@pytest.mark.parametrize("kind", sorted(set(DAMAGES) - {"clean", "parity flips", "tilted", "ragged", "thick slices"}))
def test_every_damage_changes_the_map_and_leaves_the_truth(kind):
    rng = np.random.default_rng(3)
    view = "cervical" if "C2-C3" in kind else "lumbar"
    case = make_case(make_subject(SEED), view, ClassMap.named(LAYOUTS[0]), rng)
    before, truth = case.semantic.copy(), case.truth.copy()
    DAMAGES[kind](case, rng)
    if case.truth.shape == truth.shape:
        np.testing.assert_array_equal(case.truth, truth)
        assert case.support or not np.array_equal(case.semantic, before)


@pytest.mark.parametrize("layout", [*LAYOUTS, "r20240601-step1"])
@pytest.mark.parametrize(
    ("kind", "view", "flag"),
    [
        ("missing disc", "lumbar", "missing-disc"),
        ("two discs bridged", "lumbar", "split-disc"),
        ("two discs bridged", "cervical", "split-disc"),
        ("broken disc", "lumbar", "joined-disc"),
        ("broken disc", "cervical", "joined-disc"),
        ("wrong parity", "lumbar", ""),
        ("parity flips", "lumbar", ""),
        ("landmark specks", "lumbar", ""),
        ("scout shifted by one", "lumbar", ""),  # language: ok
        ("false disc above C2-C3", "cervical", "false-disc"),
    ],
)
def test_a_single_damage_costs_no_level_and_is_flagged(kind, view, flag, layout):
    rng = np.random.default_rng(1)
    case = make_case(make_subject(SEED), view, ClassMap.named(layout), rng)
    if "parit" in kind and "vertebrae_O" not in case.layout.labels:
        pytest.skip("step 1 has no parities")
    DAMAGES[kind](case, rng)
    spine = label_map(case.semantic, case.affine, case.layout, support=case.support)
    assert score(case, spine).all_right
    assert not flag or any(found.startswith(flag) for found in spine.flags)


def test_plans_repeat_and_the_splits_differ():
    first, second = plans("fit", 1, 5, 2), plans("fit", 1, 5, 2)
    assert first == second
    assert len(first) == len(DAMAGES) + len(VARIANTS) + 3 + 7
    assert [p.kind for p in plans("report", 0, 5, 0)] != [p.kind for p in plans("fit", 0, 5, 0)]


@pytest.mark.parametrize("view", BLIND_VIEWS)
def test_views_without_landmark_are_left_unnamed(view):
    rng = np.random.default_rng(2)
    case = make_case(make_subject(SEED), view, ClassMap.named(LAYOUTS[0]), rng)
    blind(case, rng)
    result = score(case, label_map(case.semantic, case.affine, case.layout))
    assert result.abstained
    assert result.wrong == 0
