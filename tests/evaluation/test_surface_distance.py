import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalspineseg_bids.evaluation.surface_distance import normalised_surface_distance, surface_faces


def block(shape: tuple[int, int, int], *spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*span) for span in spans)] = True
    return mask


def test_area_of_a_box_in_millimetres():
    affine = np.diag([2.0, 0.5, 1.0, 1.0])
    _, areas = surface_faces(block((9, 9, 9), (2, 5), (3, 7), (1, 6)), affine)
    assert areas.sum() == pytest.approx(2 * (6 * 2 + 6 * 5 + 2 * 5))


def test_shift_within_and_beyond_the_tolerance():
    mask = block((24, 24, 24), (6, 16), (6, 16), (6, 16))
    assert normalised_surface_distance(mask, np.roll(mask, 1, 0), np.eye(4), 1.0) == 1.0
    # Three voxels: the two end faces (a fifth of the area) are apart, and so are rims of the other four.
    share = normalised_surface_distance(mask, np.roll(mask, 3, 0), np.eye(4), 1.0)
    assert 0.4 < share < 0.7
    assert normalised_surface_distance(mask, np.roll(mask, 3, 0), np.eye(4), 3.0) == 1.0


def test_nothing_on_one_side_or_both():
    mask = block((9, 9, 9), (2, 5), (2, 5), (2, 5))
    assert normalised_surface_distance(mask, np.zeros_like(mask), np.eye(4)) == 0.0
    assert math.isnan(normalised_surface_distance(np.zeros_like(mask), np.zeros_like(mask), np.eye(4)))


def test_border_of_the_field_of_view_is_no_surface():
    mask = block((9, 9, 9), (2, 5), (2, 5), (0, 9))
    centres, _ = surface_faces(mask, np.eye(4))
    assert len(centres) == 4 * 3 * 9


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.3, 3.0), st.integers(0, 3))
def test_symmetric_bounded_and_one_for_equal_masks(seed, size, shift):
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 7, 8)) > 0.5
    other = np.roll(mask, shift, axis=int(rng.integers(3)))
    affine = np.diag([size, 1.0, 1.3, 1.0])
    there = normalised_surface_distance(mask, other, affine, 0.8)
    assert 0.0 <= there <= 1.0
    assert there == pytest.approx(normalised_surface_distance(other, mask, affine, 0.8))
    assert normalised_surface_distance(mask, mask, affine, 0.1) == 1.0
    assert normalised_surface_distance(mask, other, affine, 2.0) >= there
