"""Fast work on masks agrees with numpy and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from totalspineseg_bids.imaging.masks import apply_table, close_gaps, connected_parts, indices_of

SEEDS = st.integers(0, 10_000)


def _mask(seed, density=0.5):
    rng = np.random.default_rng(seed)
    return rng.random(tuple(rng.integers(1, 14, 3))) < density


@given(SEEDS)
def test_indices_come_as_from_argwhere(seed):
    mask = _mask(seed)
    np.testing.assert_array_equal(indices_of(mask), np.argwhere(mask))
    np.testing.assert_array_equal(indices_of(mask.T), np.argwhere(mask.T))


@given(SEEDS)
def test_parts_are_those_of_scipy(seed):
    mask = _mask(seed, 0.4)
    numbered, number = connected_parts(mask)
    expected, count = ndimage.label(mask)
    assert number == count
    pairs = set(zip(numbered.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == count + bool((~mask).any())


def test_an_empty_field_of_view_has_no_part():
    numbered, number = connected_parts(np.zeros((0, 3, 3), bool))
    assert number == 0
    assert numbered.shape == (0, 3, 3)


@given(SEEDS, st.integers(1, 3))
def test_closing_is_that_of_scipy(seed, voxels):
    mask = _mask(seed, 0.1)
    room = np.pad(mask, voxels + 1)
    expected = ndimage.binary_closing(room, ndimage.generate_binary_structure(3, 1), voxels)
    inner = (slice(voxels + 1, -(voxels + 1)),) * 3
    np.testing.assert_array_equal(close_gaps(mask, voxels), expected[inner])


@pytest.mark.parametrize("transposed", [False, True])
def test_a_table_is_applied_as_by_index(transposed):
    labels = np.random.default_rng(3).integers(0, 256, (5, 6, 7), np.uint8)
    labels = labels.T if transposed else labels
    table = np.arange(256, dtype=np.uint8)[::-1] // 3
    found = apply_table(labels, table)
    np.testing.assert_array_equal(found, table[labels])
    found[0, 0, 0] = 1  # the result is the caller's own
