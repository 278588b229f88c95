"""Levels of artificial components by dynamic programming."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling.column.evidence import emissions
from totalspineseg_bids.segmentation.labelling.column.hypotheses import build_hypotheses
from totalspineseg_bids.segmentation.labelling.column.levels import solve_levels
from totalspineseg_bids.segmentation.labelling.column.naming import CONTESTED, name_components
from totalspineseg_bids.segmentation.labelling.column.parameters import AXIS_PLACE, chain_of
from totalspineseg_bids.segmentation.labelling.records import CanalExtent, ClassShares
from totalspineseg_bids.segmentation.result import SpineStatus

from .observations import STEP1, STEP2, USUAL, canal_extent, column_of, make_observation


def _solve(observations, room=15.0):
    return solve_levels(observations, canal_extent(observations, room))


@pytest.mark.parametrize("view", [("C1", "S"), ("C2", "T3"), ("C5", "T12"), ("T11", "S"), ("T5", "L3")])
@pytest.mark.parametrize("layout", [STEP1, STEP2], ids=["step1", "step2"])
def test_clean_columns(view, layout):
    names, observations = column_of(*view, layout=layout)
    solution = _solve(observations)
    assert list(solution.levels) == names
    assert solution.anchored
    assert min(solution.confidence) > 0.7
    assert name_components(observations, solution).status is SpineStatus.LABELLED


def test_a_piece_at_the_side_of_a_gap_is_no_disc():
    """Seen in a synthetic column, which got a sixth lumbar vertebra."""
    names, observations = column_of("T4", "S", layout=STEP1)
    above = names.index("L2-L3")
    piece = make_observation(Structure.DISC, observations[above].s + 14.0, volume=2800.0, layout=STEP1, cut=Cut.ALONG)
    piece = replace(piece, center=piece.center - np.array([18.0, 0.0, 0.0]), lateral=-18.0)
    solution = _solve([*observations[: above + 1], piece, *observations[above + 1 :]])
    assert solution.levels[above + 1] is None
    assert solution.confidence[above + 1] > 0.9
    assert [level for level in solution.levels if level] == names


@pytest.mark.parametrize(
    "variant", [SpineVariant(13, 5), SpineVariant(11, 5), SpineVariant(12, 6), SpineVariant(12, 4)], ids=str
)
def test_variants_with_landmarks_on_both_sides(variant):
    names, observations = column_of(variant=variant)
    solution = _solve(observations)
    assert list(solution.levels) == names
    assert solution.variant == variant
    assert solution.variant_confidence > 0.6


@pytest.mark.parametrize(
    ("variant", "first", "prior", "doubtful"),
    [
        pytest.param(USUAL, "C1", False, (), id="usual"),
        pytest.param(SpineVariant(12, 6), "C1", False, ("T12", "L1", "L6", "L1-L2", "L5-L6"), id="seen from above"),
        pytest.param(SpineVariant(12, 6), "T11", False, ("T11", "L1", "L6", "T11-T12", "L5-L6"), id="seen from below"),
        pytest.param(SpineVariant(13, 5), "C1", True, (), id="all evidence agrees"),
    ],
)
def test_names_that_depend_on_a_rare_number_of_vertebrae_carry_a_reason(variant, first, prior, doubtful):
    names, observations = column_of(first, variant=variant)
    solution = _solve(observations)
    assert list(solution.levels) == names
    if prior:
        observations = [
            replace(o, level_prior={name: 1.0}, localizer_levels={name: 1.0})
            for o, name in zip(observations, names, strict=True)
        ]
    reasons = dict(zip(names, name_components(observations, solution).reasons, strict=True))
    assert all(reasons[name] for name in doubtful)
    rare = {name for name, reason in reasons.items() if reason and "which is rare" in reason}
    assert not rare & {"S", "L5-S"}
    if first == "C1":
        assert not rare & {"C2", "C7-T1", "T10", "T11"}
        assert bool(rare) == bool(doubtful)


def test_a_landmark_one_level_off_is_outvoted_or_doubted():
    names, observations = column_of("C2", "S")
    volume = observations[names.index("T12-L1")].volume_mm3
    for name, level in (("T12-L1", None), ("L1-L2", "T12-L1")):
        n = names.index(name)
        observations[n] = make_observation(Structure.DISC, observations[n].s, level=level, volume=volume)
    solution = _solve(observations)
    reasons = name_components(observations, solution).reasons
    assert all(level == name or reason for name, level, reason in zip(names, solution.levels, reasons, strict=True))


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([("C1", "S"), ("C2", "T3"), ("T11", "S")]))
def test_noise_and_loss_never_name_two_alike_or_out_of_order(seed, view):
    rng = np.random.default_rng(seed)
    _, observations = column_of(*view, scale=float(rng.uniform(0.75, 1.15)))
    kept = [o for o in observations if rng.random() > 0.15]
    noisy = [
        make_observation(o.kind, o.s + rng.normal(0, 1.5), level=next(iter(o.class_shares[0].levels), None))
        for o in kept
    ]
    noisy.sort(key=lambda o: o.s)
    solution = _solve(noisy)
    order = [*chain_of(solution.variant).vertebrae, *chain_of(solution.variant).discs]
    for kinds in ({Structure.DISC}, {Structure.VERTEBRA, Structure.SACRUM}):
        ranks = [
            order.index(level)
            for level, o in zip(solution.levels, noisy, strict=True)
            if level is not None and o.kind in kinds
        ]
        assert ranks == sorted(set(ranks))
    assert all(0.0 <= c <= 1.0 for c in solution.confidence)


@pytest.mark.parametrize("first", ["T11", "T12", "L1"])
def test_classes_that_a_model_has_not_learned_do_not_make_a_sixth_lumbar_vertebra(first):
    names, observations = column_of(first, landmarks={"L5-S"})
    second = [replace(o, class_shares=(*o.class_shares, replace(o.class_shares[0], weight=0.6))) for o in observations]
    solution = _solve(second)
    assert list(solution.levels) == names


def test_no_component_no_level():
    solution = solve_levels([], CanalExtent(0.0, 0.0))
    assert solution.levels == ()
    assert not solution.anchored


def test_a_heap_of_pieces_that_no_order_explains_does_not_stop_the_labelling():
    """Dozens of pieces beside the column, of which more follow each other than may be left out together."""
    _names, observations = column_of("T10", "S")
    heap = [
        replace(make_observation(Structure.DISC, observations[4].s + 0.05 * n, volume=6000.0), part=100 + n)
        for n in range(60)
    ]
    mixed = sorted([*observations, *heap], key=lambda o: o.s)
    solution = _solve(mixed)
    assert len(solution.levels) == len(solution.confidence) == len(solution.tables) == len(mixed)
    naming = name_components(mixed, solution)
    assert len(naming.ids) == len(mixed)
    assert naming.status is SpineStatus.ABSTAINED


def test_c2_is_twice_as_large_as_the_vertebrae_below():
    """A fragment of its dens is more likely another vertebra; a C2 that the field of view cuts is no evidence."""
    below = [make_observation(Structure.VERTEBRA, 20.0 * n, volume=4e3) for n in (1, 2, 3)]

    def at_c2(volume, cut=Cut.NONE):
        first = make_observation(Structure.VERTEBRA, 0.0, volume=volume, cut=cut)
        table = emissions([first, *below], build_hypotheses(), CanalExtent(-20.0, 80.0))
        return table[0, :, AXIS_PLACE] - table[0, :, AXIS_PLACE + 2]

    whole, piece, cut = at_c2(8e3), at_c2(1.7e3), at_c2(1.7e3, cut=Cut.ALONG)
    assert (whole - piece > 1.0).all()
    np.testing.assert_allclose(cut, whole)


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ((1.0, 0.9), (0.36, 0.33), SpineStatus.ABSTAINED),
        ((0.7, 0.9), (0.9, 0.2), SpineStatus.ABSTAINED),
        ((0.0, 0.0), (0.9, 0.9), SpineStatus.ABSTAINED),
        ((1.0, 0.3), (0.36, 0.33), SpineStatus.LABELLED),  # the better map is clear
        ((1.0, 0.0), (0.36, 0.1), SpineStatus.LABELLED),
    ],
)
def test_a_lone_landmark_that_the_maps_see_at_two_levels_names_nothing(first, second, status):
    names, observations = column_of("T9", "L3", landmarks=())
    for n, name in enumerate(names):
        place = {"T12-L1": 0, "T11-T12": 1}.get(name)
        shares = [
            ClassShares({} if place is None else {"T12-L1": seen[place]}, {}, 0.0, 0.0, weight, STEP1.level_names)
            for seen, weight in ((first, 1.0), (second, 0.5))
        ]
        observations[n] = replace(observations[n], class_shares=tuple(shares))
    naming = name_components(observations, _solve(observations))
    assert naming.status is status
    assert naming.reason == (CONTESTED if status is SpineStatus.ABSTAINED else None)


@pytest.mark.parametrize(
    ("first", "last", "landmarks", "dens", "enough"),
    [
        ("C2", "T3", {"C2", "C2-C3"}, True, True),
        ("C2", "T3", {"C2", "C2-C3"}, False, False),  # any vertebra that is cut at the top resembles C2
        ("C2", "T3", {"C2", "C2-C3", "C7-T1"}, True, True),
        ("C2", "T3", {"C2", "C2-C3", "C7-T1"}, False, False),  # and C7-T1 is then found to match
        ("C2", "L2", {"C2", "C2-C3", "C7-T1", "T12-L1"}, False, True),
        ("C4", "T5", {"C7-T1", "T1"}, False, False),  # one place that two classes mark
    ],
)
def test_levels_that_rest_on_one_place_are_doubtful(first, last, landmarks, dens, enough):
    """On crops of a real neck, such names were one level off."""
    names, observations = column_of(first, last, landmarks=landmarks)
    if dens:
        n = names.index("C2")
        observations[n] = replace(observations[n], s_low=observations[n].s_low - 20.0)
    naming = name_components(observations, _solve(observations))
    assert naming.status is SpineStatus.LABELLED
    assert (naming.doubt is None) is enough
