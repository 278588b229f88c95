"""Images come out alike in numpy and in torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from totalspineseg_bids.synthesis.appearance import CONTRASTS, render
from totalspineseg_bids.synthesis.arrays import NUMPY, TorchArrays, smooth_noise
from totalspineseg_bids.synthesis.pose import Pose, Warp, sample


@pytest.fixture
def tensors():
    return TorchArrays(torch.device("cpu"), 1)


@pytest.fixture
def image():
    return np.random.default_rng(0).random((20, 24, 31), dtype=np.float32)


def labels():
    values = np.full((40, 48, 56), 2, np.uint8)
    values[:, :4], values[:, :1] = 9, 0
    values[12:28, 28:44, 4:24], values[12:28, 28:44, 24:30], values[12:28, 28:44, 30:50] = 20, 205, 21
    values[12:28, 14:26], values[16:24, 17:23] = 201, 200
    return values


INNER = (slice(8, -8),) * 3


@pytest.mark.parametrize(
    "call",
    [
        lambda arrays, x: arrays.averaged(x, 3.0, 2),
        lambda arrays, x: arrays.averaged(x, 4.6, 0),
        lambda arrays, x: arrays.blurred(x, 1.2),
        lambda arrays, x: arrays.blurred(x > 0.7, (0.3, 1.0, 2.0)),
        lambda arrays, x: arrays.blend(arrays.contiguous(x * 1.0), x > 0.5, 0.3, 2.0),
        lambda arrays, x: arrays.multiplied(x * 1.0, x > 0.5, x + 1.0),
        lambda arrays, x: arrays.magnitude(x, x),
        lambda arrays, x: arrays.exp(x),
        lambda arrays, x: arrays.as_float(x > 0.5),
        lambda arrays, x: arrays.joined([x, x], 2),
        lambda arrays, x: arrays.stack([x, x])[1],
        lambda arrays, x: x * arrays.mask((20, 24, 31), (slice(2, 9), slice(None), slice(4, 30))),
    ],
)
def test_operations_agree(tensors, image, call):
    expected, given = call(NUMPY, image.copy()), call(tensors, tensors.on(image.copy()))
    # Beyond the ends of an axis numpy mirrors, torch leaves out.
    np.testing.assert_allclose(given.numpy()[INNER], expected[INNER], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("axis", "length"), [(0, 41), (1, 7), (2, 31)])
def test_axes_are_resized_alike(tensors, image, axis, length):
    given = tensors.resize_axis(tensors.on(image), length, axis)
    np.testing.assert_allclose(given.numpy(), NUMPY.resize_axis(image, length, axis), atol=1e-5)


def test_volumes_are_resized_alike(tensors, image):
    given = tensors.resize(tensors.on(image), (40, 30, 50))
    np.testing.assert_allclose(given.numpy(), NUMPY.resize(image, (40, 30, 50)), atol=1e-5)


def test_blurring_keeps_what_is_even(tensors):
    np.testing.assert_allclose(tensors.blurred(tensors.on(np.ones((6, 7, 8), np.float32)), 2.0).numpy(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("width", [1.0, 2.0, 3.4, 6.0])
def test_thick_slices_lie_where_thin_ones_do(tensors, width):
    point = np.zeros((31, 3, 3), np.float32)
    point[15] = 1.0
    for spread in (NUMPY.averaged(point, width, 0), tensors.averaged(tensors.on(point), width, 0).numpy()):
        line = spread[:, 1, 1]
        assert line.sum() == pytest.approx(1.0, rel=1e-5)
        assert (line * np.arange(31)).sum() == pytest.approx(15.0, rel=1e-5)
        assert line.max() == pytest.approx(1.0 / width, rel=1e-5)


def test_spread_and_quantile_agree(tensors, image):
    assert float(tensors.spread(tensors.on(image))) == pytest.approx(NUMPY.spread(image), rel=1e-3)
    assert float(tensors.quantile(tensors.on(image), 0.99)) == pytest.approx(NUMPY.quantile(image, 0.99), rel=1e-3)
    assert float(tensors.spread(tensors.on(np.ones(5, np.float32)))) > 0


def test_poses_agree_but_for_voxels_on_a_border(tensors):
    rng = np.random.default_rng(2)
    warp = Warp.draw((30, 34, 70), 1.3, rng, Pose())
    centre = np.array([20.0, 24.0, 28.0])
    expected = sample(labels(), centre, (30, 34, 70), 1.3, warp)
    given = sample(tensors.on(labels()), centre, (30, 34, 70), 1.3, warp, arrays=tensors)
    assert given.dtype == torch.uint8
    assert (given.numpy() != expected).mean() < 1e-3
    assert len(np.unique(expected)) > 4


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_tissues_are_as_bright_in_both(tensors, contrast):
    values = labels()

    def medians(seed, arrays):
        image = np.asarray(render(arrays.on(values), np.random.default_rng(seed), contrast=contrast, arrays=arrays))
        assert image.dtype == np.float32
        assert image.min() >= 0
        return [float(np.median(image[values == tissue])) for tissue in (2, 9, 20, 201, 200)]

    # Random choices depend on how many there were before, noise in numpy among them: alike on the mean only.
    expected, given = (np.mean([medians(seed, arrays) for seed in range(30)], axis=0) for arrays in (NUMPY, tensors))
    np.testing.assert_allclose(given, expected, rtol=0.3, atol=0.03)


def test_the_seed_decides_the_noise():
    drawn = [
        smooth_noise((12, 12, 12), 4.0, np.random.default_rng(0), arrays=TorchArrays(torch.device("cpu"), seed))
        for seed in (1, 1, 2)
    ]
    torch.testing.assert_close(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert 0.7 < float(drawn[0].std()) < 1.3
