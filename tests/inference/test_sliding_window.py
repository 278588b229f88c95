from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from totalspineseg_bids.inference.sliding_window import Window, fitting_patch, gaussian_weights, slide

CPU = torch.device("cpu")
sizes = st.tuples(*[st.integers(1, 23)] * 3)
patches = st.tuples(*[st.sampled_from([1, 4, 6, 8])] * 3)


def assembled(data: np.ndarray, network: object, patch: tuple[int, int, int], step: float = 0.5) -> np.ndarray:
    slabs = list(slide(data, network, patch, device=CPU, step=step))
    axis = slabs[0].axis
    assert [slab.start for slab in slabs] == [0, *(slab.stop for slab in slabs[:-1])]
    assert slabs[-1].stop == data.shape[axis + 1]
    return torch.cat([slab.logits for slab in slabs], dim=axis + 1).numpy()


@settings(max_examples=15, deadline=None)
@given(shape=sizes, patch=patches)
def test_a_pointwise_network_is_reproduced(shape: tuple[int, int, int], patch: tuple[int, int, int]) -> None:
    data = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    found = assembled(data, lambda x: torch.stack([x[0] + x[1], 2 * x[0], x[1]]), patch)
    np.testing.assert_allclose(found, np.stack([data[0] + data[1], 2 * data[0], data[1]]), atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(shape=sizes, patch=patches, step=st.sampled_from([0.3, 0.5, 1.0]))
def test_slabs_equal_sums_over_the_whole_image(
    shape: tuple[int, int, int], patch: tuple[int, int, int], step: float
) -> None:
    rng = np.random.default_rng(1)
    ramp = torch.from_numpy(rng.normal(size=(2, *patch)).astype(np.float32))
    data = rng.normal(size=(1, *shape)).astype(np.float32)
    window = Window.over(shape, patch, step)
    weights = gaussian_weights(patch, CPU).numpy()
    sums, total = np.zeros((2, *window.padded)), np.zeros(window.padded)
    padded = np.zeros(window.padded)
    inside = tuple(slice(low, low + size) for low, size in zip(window.before, shape, strict=True))
    padded[inside] = data[0]
    for a in window.steps[0]:
        for b in window.steps[1]:
            for c in window.steps[2]:
                at = tuple(slice(s, s + size) for s, size in zip((a, b, c), patch, strict=True))
                sums[(slice(None), *at)] += padded[at] * ramp.numpy() * weights
                total[at] += weights
    found = assembled(data, lambda x: x * ramp, patch, step)
    np.testing.assert_allclose(found, (sums / total)[(slice(None), *inside)], atol=1e-4)


def test_progress_ends_at_one() -> None:
    seen: list[float] = []
    data = np.zeros((1, 9, 9, 20), np.float32)
    list(slide(data, lambda x: x, (4, 4, 4), device=CPU, progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == Window.over((9, 9, 20), (4, 4, 4)).count


def test_weights_are_positive_and_largest_in_the_centre() -> None:
    weights = gaussian_weights((16, 8, 12), CPU)
    assert weights.min() > 0
    assert weights.dtype == torch.float32
    assert np.unravel_index(int(weights.argmax()), weights.shape) == (8, 4, 6)


def test_patches_one_voxel_thick_visit_each_voxel_once() -> None:
    assert Window.over((7, 8, 8), (1, 8, 8)).count == 7


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
def test_the_patch_that_fits_an_image(shape, growth, expected) -> None:
    assert fitting_patch(shape, (256, 128, 64), 0.7, (64, 64, 32), growth) == expected


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 400)] * 3), growth=st.sampled_from([1.0, 1.5, 2.5, 4.0]))
def test_a_fitting_patch_costs_no_more_than_the_trained_one(shape: tuple[int, int, int], growth: float) -> None:
    patch, multiple = (64, 32, 32), (16, 8, 32)
    found = fitting_patch(shape, patch, 0.7, multiple, growth)
    assert np.prod(found) <= growth * np.prod(patch)
    assert all(a >= b and a % m == 0 for a, b, m in zip(found, patch, multiple, strict=True))

    def cost(size: tuple[int, int, int]) -> int:
        return Window.over(shape, size, 0.7).count * int(np.prod(size))

    assert cost(found) <= cost(patch)
