"""Positions of patches in an image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalspineseg_bids.inference.patch_grid import PatchGrid, RegionOfInterest, fitting_grid


def test_patches_one_voxel_thick_visit_each_voxel_once():
    assert PatchGrid.over((7, 8, 8), (1, 8, 8)).count == 7


@pytest.mark.parametrize(
    ("shape", "growth", "expected"),
    [
        # One patch a little wider instead of two.
        ((200, 100, 70), 2.5, (256, 128, 96)),
        ((700, 190, 90), 2.5, (256, 192, 96)),
        # Without growth it is the patch of the training.
        ((700, 190, 90), 1.0, (256, 128, 64)),
        # An image that one patch covers needs no larger one.
        ((256, 128, 64), 2.5, (256, 128, 64)),
        ((30, 20, 10), 2.5, (256, 128, 64)),
    ],
)
def test_the_patch_that_fits_an_image(shape, growth, expected):
    assert fitting_grid(shape, (256, 128, 64), 0.7, (64, 64, 32), growth).patch == expected


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 400)] * 3), growth=st.sampled_from([1.0, 1.5, 2.5, 4.0]))
def test_a_fitting_patch_costs_no_more_than_the_trained_one(shape, growth):
    patch, multiple = (64, 32, 32), (16, 8, 32)
    grid = fitting_grid(shape, patch, 0.7, multiple, growth)
    found = grid.patch
    assert np.prod(found) <= growth * np.prod(patch)
    assert all(a >= b and a % m == 0 for a, b, m in zip(found, patch, multiple, strict=True))
    assert grid.voxels <= PatchGrid.over(shape, patch, 0.7).voxels


def test_a_slanted_column_takes_fewer_voxels_than_its_box():
    shape, trained = (400, 200, 64), (128, 64, 64)
    mask = np.zeros(shape, bool)
    for z in range(400):
        mask[z, z // 4 + 20 : z // 4 + 60, 16:48] = True
    roi = RegionOfInterest(mask, 8)

    def voxels(**within: RegionOfInterest) -> int:
        return fitting_grid(shape, trained, 0.85, (16, 16, 16), 4.0, **within).voxels

    assert voxels(roi=roi) < 0.7 * voxels()


@pytest.mark.parametrize(("margin_left", "patches"), [(6, 1), (4, 1), (3, 2)])
def test_a_margin_shrinks_by_a_third_where_that_saves_a_patch(margin_left, patches):
    mask = np.zeros((256, 200, 32), bool)
    mask[:, 68 + margin_left : 132 - margin_left] = True
    inside = slice(62 + margin_left, 138 - margin_left)
    roi = RegionOfInterest(mask[:, inside], 6)
    grid = fitting_grid((256, inside.stop - inside.start, 32), (64, 64, 32), 0.85, (64, 64, 32), 1.0, roi=roi)
    assert {len(row.origins) for row in grid.rows} == {patches}


def test_a_row_in_which_nothing_is_wanted_has_a_patch_in_its_middle():
    mask = np.zeros((40, 24, 24), bool)
    mask[:8, :8, :8] = True
    grid = PatchGrid.over((40, 24, 24), (8, 8, 8), 1.0, RegionOfInterest(mask, 0))
    assert [row.origins for row in grid.rows] == [((0, 0, 0),), *(((start, 8, 8),) for start in (8, 16, 24, 32))]
