"""Region in which the first network runs."""

import numpy as np
import pytest

from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import LevelPrior
from totalspineseg_bids.segmentation.spine_roi import is_cut, locate_spine

FULL = ClassMap.named("r20240601-full")
NAMES = ("background", "vertebrae_L3")
GRID = Geometry((60, 80, 120), np.array([[1.0, 0, 0, -30], [0, 1, 0, 10], [0, 0, 1, 5], [0, 0, 0, 1]]))
COARSE = GRID.affine @ np.array([[5.0, 0, 0, 4], [0, 4, 0, 1.5], [0, 0, 4, 1.5], [0, 0, 0, 1]])


def prior_of(spine: np.ndarray) -> LevelPrior:
    return LevelPrior.from_classes(np.stack([1 - spine, spine]).astype(np.float32), NAMES, FULL, COARSE)


def column(probability: float = 0.9) -> np.ndarray:
    spine = np.zeros((11, 20, 30))
    spine[4:8, 8:14, :20] = probability
    return spine


def test_the_region_is_where_the_prior_sees_a_spine_on_the_grid_of_the_image():
    region = locate_spine(prior_of(column()), GRID)
    assert region.shape == GRID.shape
    # Voxels of the coarse grid are 5 x 4 x 4 mm and begin 1.5 mm, or 0, from the first voxel of the image.
    np.testing.assert_array_equal(np.argwhere(region).min(axis=0), (22, 32, 0))
    np.testing.assert_array_equal(np.argwhere(region).max(axis=0), (41, 55, 79))


def test_a_less_certain_spine_limits_the_region_from_front_to_back_only():
    spine = column(0.2)
    spine[4:8, 8:14, :6] = 0.9
    region = locate_spine(prior_of(spine), GRID)
    from_front_to_back = region.any(axis=(0, 2))
    np.testing.assert_array_equal(np.flatnonzero(from_front_to_back)[[0, -1]], (32, 55))
    # The coarse grid ends 2 mm before that of the image.
    assert region[2:56, from_front_to_back, :].all()


def with_far_noise(spine):
    spine[0, 0, 28] = 0.3
    return spine


def test_possible_spine_far_from_a_certain_one_is_left_out():
    found, expected = (locate_spine(prior_of(spine), GRID) for spine in (with_far_noise(column()), column()))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("spine", [np.zeros((11, 20, 30)), column(0.3), with_far_noise(np.zeros((11, 20, 30)))])
def test_without_a_certain_spine_there_is_no_region(spine):
    assert locate_spine(prior_of(spine), GRID) is None


@pytest.mark.parametrize(("start", "stop", "cut"), [(20, 40, False), (11, 40, True), (20, 49, True), (0, 0, True)])
def test_a_map_that_reaches_the_end_of_the_region_is_cut_and_the_end_of_the_image_cuts_nothing(start, stop, cut):
    region, found = (np.zeros((60, 60, 60), bool) for _ in range(2))
    region[20:40, 20:40] = True
    found[start:stop, 25:30] = True
    assert is_cut(found.astype(np.uint8), region, margin=10) is cut
    assert not is_cut(region.astype(np.uint8), region, margin=10)
    assert not is_cut(np.ones((20, 20, 20), np.uint8), np.ones((20, 20, 20), bool), margin=10)
