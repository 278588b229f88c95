import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine, from_matvec
from scipy.spatial.transform import Rotation

from tests.columns import dice
from tests.images import ORIENTATIONS, places, stored_along
from totalspineseg_bids.imaging import grid
from totalspineseg_bids.imaging.volume import Geometry, Volume


def _affine(spacing, degrees):
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return from_matvec(rotation @ np.diag(spacing), (-31.0, 12.0, 40.0))


def _store(volume, orientation):
    return Volume(*stored_along(volume.data, volume.affine, orientation))


def _shapes(geometry):
    """Two balls and a slab in scanner space, so that every grid shows the same objects."""
    points = places(geometry) - apply_affine(geometry.affine, (np.array(geometry.shape) - 1) / 2)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[np.linalg.norm(points - (0, 0, 9), axis=-1) < 9] = 40
    labels[np.linalg.norm(points - (0, 0, -9), axis=-1) < 9] = 224
    labels[(np.abs(points[..., 1]) < 6) & (labels == 0)] = 200
    return labels


def _there_and_back(image, working):
    """Return labels on the working grid, and of these on that of the image."""
    there = grid.restore_labels(image.data, image.affine, working)
    return there, grid.restore_labels(there, working.affine, image.geometry)


angles = st.tuples(*(st.floats(-20, 20) for _ in range(3)))
spacings = st.tuples(*(st.sampled_from([0.6, 1.0, 1.3]) for _ in range(3)))


@settings(max_examples=25)
@given(st.sampled_from(ORIENTATIONS), spacings, angles)
def test_working_grid_does_not_depend_on_how_voxels_are_stored(orientation, spacing, degrees):
    plain = Volume(np.random.default_rng(0).random((17, 21, 25), np.float32), _affine(spacing, degrees))
    one, two = grid.to_working_grid(plain), grid.to_working_grid(_store(plain, orientation))
    np.testing.assert_allclose(one.affine, two.affine, atol=1e-6)
    np.testing.assert_allclose(one.data, two.data, atol=1e-4)
    assert one.geometry.orientation == "RAS"
    np.testing.assert_allclose(one.spacing, 1.0, atol=1e-6)


@settings(max_examples=20)
@given(st.sampled_from(ORIENTATIONS), spacings, angles)
def test_labels_survive_the_way_to_the_working_grid_and_back(orientation, spacing, degrees):
    geometry = Geometry((36, 40, 44), _affine(spacing, degrees))
    native = _store(Volume(_shapes(geometry), geometry.affine), orientation)
    working = grid.working_geometry(native.geometry)
    there, back = _there_and_back(native, working)
    for label in (40, 224, 200):
        assert dice(back == label, native.data == label) > 0.93
        assert label == 200 or dice(there == label, _shapes(working) == label) > 0.93


def test_thick_slices_and_oblique_axes():
    native = Geometry((60, 60, 12), _affine((0.7, 0.7, 4.0), (0, 0, 8)))
    labels = _shapes(native)
    working = grid.to_working_grid(Volume((labels > 0).astype(np.float32), native.affine))
    assert working.data.shape == (42, 42, 48)
    _, back = _there_and_back(Volume(labels, native.affine), working.geometry)
    for label in (40, 224):
        assert dice(back == label, labels == label) > 0.95
    oblique = Volume(np.random.default_rng(1).random((8, 9, 10), np.float32), _affine((1.0, 1.0, 1.0), (12, -7, 18)))
    kept = grid.to_working_grid(oblique)
    np.testing.assert_array_equal(kept.data, oblique.data)
    np.testing.assert_allclose(kept.affine, oblique.affine)


def test_identity_is_exact_and_a_single_slice_works():
    data = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    same = grid.to_working_grid(Volume(data, np.eye(4)))
    np.testing.assert_array_equal(same.data, data)
    np.testing.assert_array_equal(same.affine, np.eye(4))
    thick = grid.to_working_grid(Volume(data[:, :, :1], np.diag([1.0, 1.0, 4.0, 1.0])))
    assert thick.data.shape == (3, 4, 4)
    np.testing.assert_allclose(thick.data, np.repeat(data[:, :, :1], 4, axis=2))
    labels = np.ones((3, 4, 1), np.uint8)
    back = grid.restore_labels(labels, np.diag([1.0, 1.0, 4.0, 1.0]), thick.geometry)
    assert back.all()


def test_smoothing_before_coarsening_keeps_means_and_removes_aliases():
    index = np.arange(64)
    stripes = np.broadcast_to((index % 2).astype(np.float32)[:, None, None], (64, 8, 8)).copy()
    coarse = grid.to_working_grid(Volume(stripes, np.diag([0.4, 1.0, 1.0, 1.0])))
    assert np.ptp(coarse.data[3:-3]) < 0.12
    assert coarse.data.mean() == pytest.approx(0.5, abs=0.02)


@settings(max_examples=15)
@given(st.sampled_from(ORIENTATIONS), spacings, angles)
def test_probability_follows_a_linear_function(orientation, spacing, degrees):
    def ramp(points):
        return apply_affine(np.linalg.inv(working.affine), points) @ (0.01, 0.012, 0.008)

    working = Geometry((30, 30, 30), _affine((1.0, 1.0, 1.0), degrees))
    matrix = _affine(spacing, (3, 5, 0))[:3, :3] @ working.affine[:3, :3]
    affine = from_matvec(matrix, apply_affine(working.affine, [14.5] * 3) - matrix @ (5, 5, 5))
    native = _store(Volume(np.zeros((11, 11, 11), np.float32), affine), orientation).geometry
    restored = grid.restore_probability(ramp(places(working)).astype(np.float32), working.affine, native)
    np.testing.assert_allclose(restored, ramp(places(native)), atol=1e-4)


def test_outside_the_field_of_view_is_empty():
    target, beside = (
        Geometry(shape, from_matvec(np.eye(3), place))
        for shape, place in (((5, 6, 7), (500, 500, 500)), ((4, 4, 4), (2, 0, 0)))
    )
    for restore, dtype in ((grid.restore_labels, np.uint8), (grid.restore_probability, np.float32)):
        assert not restore(np.ones((4, 4, 4), dtype), np.eye(4), target).any()
    shifted = grid.restore_labels(np.ones((4, 4, 4), np.uint8), np.eye(4), beside)
    assert shifted[:2].all()
    assert not shifted[2:].any()


@pytest.mark.parametrize(("inside", "beyond"), [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0)])
def test_a_border_lies_where_the_interpolated_logit_is_zero(inside, beyond):
    labels = np.zeros((8, 6, 6), np.uint8)
    labels[:4] = 40
    margin = np.where(labels > 0, inside, beyond).astype(np.float16)
    fine = Geometry((80, 6, 6), np.diag([0.1, 1.0, 1.0, 1.0]))
    there = grid.restore_labels(labels, np.eye(4), fine, margin=margin)
    # The logit falls from `inside` at 3 to -`beyond` at 4.
    border = 3 + inside / (inside + beyond)
    assert np.count_nonzero(there[:, 3, 3]) == pytest.approx(border / 0.1, abs=1)
    same = grid.restore_labels(labels, np.eye(4), Geometry((8, 6, 6), np.eye(4)), margin=margin)
    np.testing.assert_array_equal(same, labels)


def test_with_a_soft_map_borders_are_sharper_than_its_voxels():
    coarse, fine = (Geometry((n,) * 3, np.diag([size, size, size, 1.0])) for n, size in ((40, 1.0), (100, 0.4)))
    logit, truth = (9.3 - np.linalg.norm(places(geometry) - 19.6, axis=-1) for geometry in (coarse, fine))
    labels = (logit > 0).astype(np.uint8)
    hard = grid.restore_labels(labels, coarse.affine, fine)
    soft = grid.restore_labels(labels, coarse.affine, fine, margin=np.abs(logit).astype(np.float16))
    assert dice(hard > 0, truth > 0) < 0.985
    assert dice(soft > 0, truth > 0) > 0.995


def test_a_pasted_box_restores_the_array():
    data = np.zeros((9, 8, 7), np.uint8)
    data[2:5, 3:4, 1:6] = 7
    box = grid.foreground_box(data > 0, margin=1)
    assert box == (slice(1, 6), slice(2, 5), slice(0, 7))
    np.testing.assert_array_equal(grid.paste(data[box], box, data.shape), data)
    assert grid.foreground_box(np.zeros((2, 2, 2), bool)) is None


@pytest.mark.parametrize("shear", [2e-4, 0.05, 0.3])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::5])
def test_a_sheared_image_gets_a_working_grid_with_perpendicular_axes(shear, orientation):
    affine = _affine((0.9, 0.9, 1.1), (8, 0, 5))
    affine[:3, 2] += shear * affine[:3, 1]
    image = _store(Volume(_shapes(Geometry((44, 46, 50), affine)), affine), orientation)
    work = grid.to_working_grid(image)
    axes = work.affine[:3, :3]
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert work.geometry.orientation == "RAS"
    labels, back = _there_and_back(image, work.geometry)
    for label in (40, 224):
        assert dice(labels == label, _shapes(work.geometry) == label) > 0.9 - shear / 2
        assert dice(back == label, image.data == label) > 0.95
