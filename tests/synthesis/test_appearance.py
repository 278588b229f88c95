import numpy as np
import pytest

from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.appearance import CONTRASTS, render
from totalspineseg_bids.synthesis.arrays import NUMPY
from totalspineseg_bids.synthesis.pose import Pose, Warp, deform, sample


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_images_are_finite_non_negative_and_repeatable(contrast, column):
    first = render(column, np.random.default_rng(3), contrast=contrast)
    second = render(column, np.random.default_rng(3), contrast=contrast)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert first.min() >= 0
    np.testing.assert_array_equal(first, second)


def test_sequences_order_tissues_as_they_do_in_mri(column):
    labels = column
    for seed in range(6):
        t2 = render(labels, np.random.default_rng(seed), contrast="T2w")
        t1 = render(labels, np.random.default_rng(seed), contrast="T1w")
        stir = render(labels, np.random.default_rng(seed), contrast="STIR")
        fluid, muscle, fat = labels == 201, labels == 2, labels == 9
        assert np.median(t2[fluid]) > np.median(t2[labels == 200]) > 0
        assert np.median(t1[fluid]) < np.median(t1[labels == 200])
        assert np.median(t1[fat]) > np.median(t1[muscle])
        assert np.median(stir[fat]) < np.median(stir[fluid])


def test_random_contrast_keeps_cord_and_fluid_apart(column):
    for seed in range(20):
        image = render(column, np.random.default_rng(seed), contrast="random")
        labels = column
        assert abs(np.median(image[labels == 201]) - np.median(image[labels == 200])) > 0.02


def test_resizing_an_axis_keeps_its_ends():
    ramp = np.arange(5, dtype=np.float32)[:, None]
    np.testing.assert_allclose(NUMPY.resize_axis(ramp, 9, 0)[:, 0], np.arange(0, 4.5, 0.5))


def test_a_pose_of_strength_zero_is_at_most_a_mirror(column):
    volume = Volume(column, np.eye(4))
    posed = deform(volume, np.random.default_rng(0), strength=0.0).data
    assert (posed == volume.data).all() or (posed == volume.data[::-1]).all()


def test_poses_move_but_keep_labels_and_repeat(column):
    volume = Volume(column, np.eye(4))
    one = deform(volume, np.random.default_rng(5)).data
    np.testing.assert_array_equal(one, deform(volume, np.random.default_rng(5)).data)
    assert set(np.unique(one)) <= set(np.unique(volume.data))
    assert (one != volume.data).any()
    discs = (one == 205).sum() / (volume.data == 205).sum()
    assert 0.5 < discs < 2.0


def test_posing_refuses_voxels_that_are_not_1_mm(column):
    with pytest.raises(ValueError, match="1 mm"):
        deform(Volume(column, np.diag([2.0, 2, 2, 1])), np.random.default_rng(0))


def test_sampling_beyond_the_map_is_background():
    labels = np.full((8, 8, 8), 5, np.uint8)
    rng = np.random.default_rng(1)
    still = Pose((0, 0, 0), 0, 0, (0, 0), 100, 0, 100)
    warp = Warp.draw((16, 16, 16), 1.0, rng, still, mirror=False)
    out = sample(labels, np.array([3.5, 3.5, 3.5]), (16, 16, 16), 1.0, warp)
    assert (out[4:12, 4:12, 4:12] == 5).all()
    assert out.sum() == 5 * 512
