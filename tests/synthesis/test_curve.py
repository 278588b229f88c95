import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.synthesis.curve import LocalFrame, SpinalColumn, SpineParameters, build_column

_EXACT = SpineParameters(jitter=0.0)


def _column(parameters: SpineParameters) -> SpinalColumn:
    return build_column(np.random.default_rng(0), SpineVariant(), parameters)


def _slope(frame: LocalFrame) -> float:
    """Degrees by which the front edge of an endplate is lower than its back edge."""
    front = frame.axes[:, 1]
    return float(np.rad2deg(np.arctan2(-front[2], front[1])))


@pytest.mark.parametrize(("lordosis", "kyphosis"), [(40.0, 30.0), (54.0, 40.0), (75.0, 60.0)])
def test_angles_are_those_asked_for(lordosis, kyphosis):
    column = _column(SpineParameters(jitter=0.0, lumbar_lordosis=lordosis, kyphosis=kyphosis))
    measured = _slope(column.level("S1").top) - _slope(column.level("L1").top)
    assert measured == pytest.approx(lordosis, abs=8)
    measured = _slope(column.level("T1").top) - _slope(column.level("T12").bottom)
    assert measured == pytest.approx(kyphosis, abs=9)


def test_cobb_angle_is_the_one_asked_for():
    column = _column(SpineParameters(jitter=0.0, cobb=(25.0,), apex=(0.5,), extent=(0.15,)))
    up = np.array([level.frame.axes[:, 2] for level in column.levels if level.region in "TL"])
    lean = np.rad2deg(np.arctan2(up[:, 0], up[:, 2]))
    assert np.ptp(lean) == pytest.approx(25.0, abs=3)


def test_spacing_of_levels_is_that_of_adults():
    column = _column(_EXACT)
    centers = {level.name: level.frame.origin for level in column.levels}

    # Distances of neighbouring disc centres in adults lie between 15 and 36 mm and grow downward.
    def apart(a: str, b: str) -> float:
        return float(np.linalg.norm(centers[a] - centers[b]))

    assert apart("C4", "C5") == pytest.approx(17.4, abs=1.5)
    assert apart("T6", "T7") == pytest.approx(25.8, abs=2.5)
    assert apart("L3", "L4") == pytest.approx(36.0, abs=2.5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), thoracic=st.sampled_from([11, 12, 13]), lumbar=st.sampled_from([4, 5, 6]))
def test_any_subject_is_a_column(seed, thoracic, lumbar):
    rng = np.random.default_rng(seed)
    variant = SpineVariant(thoracic, lumbar)
    parameters = SpineParameters.sample(rng)
    column = build_column(rng, variant, parameters)
    names = [level.name for level in column.levels]
    assert names[: -len(("S1", "S2", "S3", "S4", "S5", "Co1", "Co2", "Co3"))] == list(variant.vertebrae()[:-1])
    assert np.allclose(column.axes.transpose(0, 2, 1) @ column.axes, np.eye(3), atol=1e-6)
    z = [level.frame.origin[2] for level in column.levels if level.region != "S"]
    assert all(upper > lower for upper, lower in itertools.pairwise(z))
    # The cord lies inside the canal at every point.
    inside = np.linalg.norm(column.cord.points[:, None] - column.canal.points[None], axis=2).min(axis=1)
    nearest = np.linalg.norm(column.cord.points[:, None] - column.canal.points[None], axis=2).argmin(axis=1)
    assert np.all(inside + column.cord.radii.min(axis=1) < column.canal.radii[nearest].max(axis=1) + 1.0)
    assert np.all(column.cord.radii < column.canal.radii[nearest])


def test_conus_ends_at_the_first_lumbar_vertebra():
    column = _column(_EXACT)
    end = column.cord.points[-1][2]
    assert column.level("L2").frame.origin[2] < end < column.level("T11").frame.origin[2]
