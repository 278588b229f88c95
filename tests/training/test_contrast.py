import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalspineseg_bids import anatomy
from totalspineseg_bids.training.contrast import recontrast

from .conftest import box_spine, image_of


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31))
def test_finite_in_range_and_repeatable(seed):
    labels = box_spine()
    image = image_of(labels, 3)
    made = recontrast(image, labels, np.random.default_rng(seed))
    assert made.shape == image.shape
    assert made.dtype == np.float32
    assert np.isfinite(made).all()
    low, high = np.percentile(image, [1, 99])
    assert made.min() >= low - 0.21 * (high - low)
    assert made.max() <= high + 0.31 * (high - low)
    np.testing.assert_array_equal(made, recontrast(image, labels, np.random.default_rng(seed)))


def test_contrast_changes_structure_by_structure_and_levels_stay_alike():
    """The order of disc and bone turns over in some copies; vertebrae of one image keep one brightness."""
    labels = box_spine()
    image = np.full(labels.shape, 20, np.float32)
    vertebrae = [anatomy.vertebra(level).id for level in ("C2", "C3", "C4", "C5")]
    image[np.isin(labels, vertebrae)] = 150
    image += np.random.default_rng(0).normal(0, 2, labels.shape).astype(np.float32)
    signs = set()
    for seed in range(12):
        made = recontrast(image, labels, np.random.default_rng(seed))
        means = [made[labels == value].mean() for value in vertebrae]
        assert np.ptp(means) < 15
        signs.add(bool(made[labels == anatomy.disc("C3-C4").id].mean() > np.mean(means)))
    assert signs == {True, False}


def test_grids_must_agree():
    labels = box_spine()
    with pytest.raises(ValueError, match="one grid"):
        recontrast(np.zeros((3, 3, 3), np.float32), labels, np.random.default_rng(0))
