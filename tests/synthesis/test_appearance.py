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
    tissues = {"fluid": 201, "cord": 200, "muscle": 2, "fat": 9}
    for seed in range(20):
        t2, t1, stir, other = (
            {
                name: np.median(image[column == label])
                for image in [render(column, np.random.default_rng(seed), contrast=contrast)]
                for name, label in tissues.items()
            }
            for contrast in ("T2w", "T1w", "STIR", "random")
        )
        assert t2["fluid"] > t2["cord"] > 0
        assert t1["fluid"] < t1["cord"]
        assert t1["fat"] > t1["muscle"]
        assert stir["fat"] < stir["fluid"]
        assert abs(other["fluid"] - other["cord"]) > 0.02


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
