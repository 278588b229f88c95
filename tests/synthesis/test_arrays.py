"""Images come out alike in numpy and in torch."""

import numpy as np
import pytest
import torch

from totalspineseg_bids.synthesis.appearance import CONTRASTS, render
from totalspineseg_bids.synthesis.arrays import NUMPY, Arrays, Draws, TorchArrays, smooth_noise
from totalspineseg_bids.synthesis.pose import Pose, Warp, sample


def medians(image, labels):
    """Return the brightness of muscle, fat, bone, fluid and cord."""
    return [float(np.median(np.asarray(image)[labels == tissue])) for tissue in (2, 9, 20, 201, 200)]


@pytest.fixture
def image():
    return np.random.default_rng(0).random((20, 24, 31), dtype=np.float32)


def test_torch_replaces_every_operation():
    operations = {name for name in vars(Arrays) if not name.startswith("__")}
    assert operations <= set(vars(TorchArrays))


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
        lambda arrays, x: arrays.resize(arrays.resize_axis(x, 41, 0), (40, 30, 50)),
        lambda arrays, x: x / arrays.spread(x) / arrays.quantile(x, 0.99),
        lambda arrays, x: arrays.xp.exp(x),
        lambda arrays, x: arrays.xp.asarray(x > 0.5, dtype=arrays.xp.float32),
        lambda arrays, x: arrays.xp.concatenate([x, x], 2),
        lambda arrays, x: arrays.xp.stack([x, x])[1],
    ],
)
def test_operations_agree(tensors, image, call):
    expected, given = call(NUMPY, image.copy()), call(tensors, tensors.on(image.copy()))
    # Beyond the ends of an axis numpy mirrors, torch leaves out.
    np.testing.assert_allclose(given.numpy()[INNER], expected[INNER], rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda arrays, x: arrays.averaged(x, 3.4, -3),
        lambda arrays, x: arrays.averaged(x, 3.4, -1),
        lambda arrays, x: arrays.blurred(x, (0.3, 1.0, 2.0)),
        lambda arrays, x: arrays.resize_axis(x, 9, -2),
        lambda arrays, x: arrays.resize(x, (*x.shape[:-3], 11, 30, 20)),
        lambda arrays, x: x - arrays.mean(x),
        lambda arrays, x: x / arrays.spread(x),
        lambda arrays, x: x / arrays.quantile(x, 0.9),
        lambda arrays, x: arrays.lookup(np.arange(256.0), (x * 255).byte()),
    ],
)
def test_images_of_a_group_are_treated_alone(tensors, image, call):
    one, other = tensors.on(image), tensors.on(image[::-1] * 3.0 % 1.0)
    together = call(tensors, torch.stack([one, other]))
    torch.testing.assert_close(together, torch.stack([call(tensors, one), call(tensors, other)]))


def test_images_of_a_group_may_have_a_table_each(tensors):
    values = torch.arange(24, dtype=torch.uint8).view(1, 2, 3, 4).repeat(2, 1, 1, 1)
    tables = np.stack([np.arange(256), 255 - np.arange(256)]).astype(np.uint8)
    torch.testing.assert_close(tensors.lookup(tables, values), torch.stack([values[0], 255 - values[0]]))


def test_smooth_noise_of_a_group_has_unit_spread_in_each(tensors):
    noise = smooth_noise((40, 24, 24, 24), 6.0, np.random.default_rng(0), arrays=tensors)
    assert noise.shape == (40, 24, 24, 24)
    assert float(noise.std((1, 2, 3)).mean()) == pytest.approx(1.0, abs=0.2)
    assert abs(float(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1])) < 0.5


def test_numbers_are_one_for_an_image_and_one_each_for_a_group(tensors):
    rng = np.random.default_rng(0)
    alone, group = Draws((4, 4, 4), rng, NUMPY), Draws((400, 4, 4, 4), rng, tensors)
    assert isinstance(alone.uniform(2.0, 3.0), float)
    assert alone.either(1.0, lambda: alone.numbers(0.0, 1.0), lambda: 5.0) < 1.0
    assert alone.either(0.0, lambda: alone.numbers(0.0, 1.0), lambda: 5.0) == 5.0
    assert alone.some(0.0) is None
    assert alone.some(1.0) == 1.0
    drawn = group.uniform(2.0, 3.0)
    assert drawn.shape == (400, 1, 1, 1)
    assert drawn.dtype == torch.float32
    assert 2.0 <= float(drawn.min()) < 2.1
    assert 2.9 < float(drawn.max()) <= 3.0
    assert 0.6 < float((group.either(0.7, lambda: group.numbers(0.0, 1.0), lambda: 5.0) < 2.0).float().mean()) < 0.8
    assert 0.2 < float(group.some(0.3).mean()) < 0.4
    assert float(group.factors(0.2).log().std()) == pytest.approx(0.2, rel=0.15)


def test_blurring_keeps_what_is_even(tensors):
    even = np.ones((6, 7, 8), np.float32)
    np.testing.assert_allclose(tensors.blurred(tensors.on(even), 2.0).numpy(), even, rtol=1e-5)


@pytest.mark.parametrize("width", [1.0, 2.0, 3.4, 6.0])
def test_thick_slices_lie_where_thin_ones_do(tensors, width):
    point = np.zeros((31, 3, 3), np.float32)
    point[15] = 1.0
    for spread in (NUMPY.averaged(point, width, 0), tensors.averaged(tensors.on(point), width, 0).numpy()):
        line = spread[:, 1, 1]
        assert line.sum() == pytest.approx(1.0, rel=1e-5)
        assert (line * np.arange(31)).sum() == pytest.approx(15.0, rel=1e-5)
        assert line.max() == pytest.approx(1.0 / width, rel=1e-5)


def test_poses_agree_but_for_voxels_on_a_border(tensors, column):
    rng = np.random.default_rng(2)
    warp = Warp.draw((30, 34, 70), 1.3, rng, Pose())
    centre = np.array([20.0, 24.0, 28.0])
    expected = sample(column, centre, (30, 34, 70), 1.3, warp)
    given = sample(tensors.on(column), centre, (30, 34, 70), 1.3, warp, arrays=tensors)
    assert given.dtype == torch.uint8
    assert (given.numpy() != expected).mean() < 1e-3
    assert len(np.unique(expected)) > 4


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_tissues_are_as_bright_in_both(tensors, contrast, column):
    # Random choices depend on how many there were before, noise in numpy among them: alike on the mean only.
    means = []
    for arrays in (NUMPY, tensors):
        images = [
            np.asarray(render(arrays.on(column), np.random.default_rng(seed), contrast=contrast, arrays=arrays))
            for seed in range(30)
        ]
        assert all(image.dtype == np.float32 and image.min() >= 0 for image in images)
        means.append(np.mean([medians(image, column) for image in images], axis=0))
    np.testing.assert_allclose(means[1], means[0], rtol=0.3, atol=0.03)


def test_tissues_of_a_group_are_as_bright_as_alone(tensors, column):
    def drawn(values, contrast, seeds):
        rngs = map(np.random.default_rng, range(seeds))
        return [render(values, rng, contrast=contrast, arrays=tensors) for rng in rngs]

    values, names = tensors.on(column), ("T1w", "T2w")
    groups = drawn(torch.stack([values] * 8), names * 4, 4)
    assert not torch.equal(groups[0][0], groups[0][2])
    for start, name in enumerate(names):
        together = [image for group in groups for image in group[start::2]]
        given, alone = (
            np.mean([medians(image, column) for image in images], axis=0)
            for images in (together, drawn(values, name, 30))
        )
        np.testing.assert_allclose(given, alone, rtol=0.3, atol=0.05)


def test_the_seed_decides_the_noise():
    drawn = [
        smooth_noise((12, 12, 12), 4.0, np.random.default_rng(0), arrays=TorchArrays(torch.device("cpu"), seed))
        for seed in (1, 1, 2)
    ]
    torch.testing.assert_close(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert 0.7 < float(drawn[0].std()) < 1.3
