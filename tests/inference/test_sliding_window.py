import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from scipy import ndimage
from torch.nn import functional

from totalspineseg_bids.inference.patch_grid import PatchGrid, RegionOfInterest
from totalspineseg_bids.inference.sliding_window import gaussian_weights, slide
from totalspineseg_bids.inference.tta import IDENTITY, tta_transforms

CPU = torch.device("cpu")
sizes = st.tuples(*[st.integers(1, 23)] * 3)
patches = st.tuples(*[st.sampled_from([1, 4, 6, 8])] * 3)


def assembled(data, network, patch, step=0.5, transforms=(IDENTITY,)):
    slabs, parts = [], []
    grid = PatchGrid.over(data.shape[1:], patch, step)
    for slab in slide(data, network, grid, device=CPU, transforms=transforms):
        slabs.append(slab)
        parts.append(slab.logits.clone())
    axis = slabs[0].axis
    assert [slab.start for slab in slabs] == [0, *(slab.stop for slab in slabs[:-1])]
    assert slabs[-1].stop == data.shape[axis + 1]
    return torch.cat(parts, dim=axis + 1).numpy()


@settings(max_examples=15, deadline=None)
@given(shape=sizes, patch=patches)
def test_a_pointwise_network_is_reproduced(shape, patch):
    data = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    found = assembled(data, lambda x: torch.stack([x[0] + x[1], 2 * x[0], x[1]]), patch)
    np.testing.assert_allclose(found, np.stack([data[0] + data[1], 2 * data[0], data[1]]), atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(shape=sizes, patch=patches, step=st.sampled_from([0.3, 0.5, 1.0]))
def test_slabs_equal_sums_over_the_whole_image(shape, patch, step):
    rng = np.random.default_rng(1)
    ramp = torch.from_numpy(rng.normal(size=(2, *patch)).astype(np.float32))
    data = rng.normal(size=(1, *shape)).astype(np.float32)
    grid = PatchGrid.over(shape, patch, step)
    weights = gaussian_weights(patch, CPU).numpy()
    sums, total = np.zeros((2, *grid.padded)), np.zeros(grid.padded)
    padded = np.zeros(grid.padded)
    inside = tuple(slice(low, low + size) for low, size in zip(grid.before, shape, strict=True))
    padded[inside] = data[0]
    for row in grid.rows:
        for origin in row.origins:
            at = tuple(slice(s, s + size) for s, size in zip(origin, patch, strict=True))
            sums[(slice(None), *at)] += padded[at] * ramp.numpy() * weights
            total[at] += weights
    found = assembled(data, lambda x: x * ramp, patch, step)
    np.testing.assert_allclose(found, (sums / total)[(slice(None), *inside)], atol=1e-4)


def test_progress_ends_at_one():
    seen: list[float] = []
    data = np.zeros((1, 9, 9, 20), np.float32)
    list(slide(data, lambda x: x, PatchGrid.over((9, 9, 20), (4, 4, 4)), device=CPU, progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == PatchGrid.over((9, 9, 20), (4, 4, 4)).count


@pytest.mark.parametrize("patch", [(16, 8, 12), (1, 40, 33), (96, 64, 32)])
def test_weights_are_nnunets(patch):
    expected = compute_gaussian(patch, sigma_scale=1 / 8, value_scaling_factor=10.0, device=CPU)
    # Both are rounded to 16 bits.
    torch.testing.assert_close(gaussian_weights(patch, CPU), expected.float(), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("axes", "block", "count"), [((), 1, 1), ((), 2, 1), ((2,), 1, 2), ((2,), 2, 4), ((0, 1, 2), 1, 8)]
)
def test_looks_begin_with_the_plain_one_and_differ(axes, block, count):
    transforms = tta_transforms(axes, block)
    assert transforms[0] == IDENTITY
    assert len(set(transforms)) == len(transforms) == count


@settings(max_examples=15, deadline=None)
@given(shape=sizes, axes=st.sampled_from([(), (2,), (0, 2)]), block=st.sampled_from([1, 2]))
def test_mirroring_and_moving_is_undone(shape, axes, block):
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    memory = torch.zeros(1, 8, 8, 8)
    # A network may use its memory again.
    found = assembled(data, memory.copy_, (8, 8, 8), transforms=tta_transforms(axes, block))
    np.testing.assert_allclose(found, data, atol=1e-5)


def test_a_moved_patch_is_seen_in_other_blocks():
    def blocks(patch: torch.Tensor) -> torch.Tensor:
        return (
            functional.avg_pool3d(patch[None], 2)[0]
            .repeat_interleave(2, 1)
            .repeat_interleave(2, 2)
            .repeat_interleave(2, 3)
        )

    line = np.broadcast_to(np.arange(8, dtype=np.float32), (1, 8, 8, 8)).copy()
    still = assembled(line, blocks, (8, 8, 8))
    shift = assembled(line, blocks, (8, 8, 8), transforms=tta_transforms((2,), 2))
    # Blocks of two of an even slope are half a voxel off at either side; blocks between them the other way.
    assert np.abs(still - line)[0, 4, 4, 1:-1].tolist() == [0.5] * 6
    assert np.abs(shift - line)[0, 4, 4, 1:-1].max() < 1e-6


@settings(max_examples=20, deadline=None)
@given(shape=sizes, patch=patches, margin=st.integers(0, 3), seed=st.integers(0, 99))
def test_what_is_wanted_is_computed_and_beyond_it_there_is_nothing(shape, patch, margin, seed):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(1, *shape)).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[tuple(rng.integers(0, shape, (4, 3)).T)] = True
    grid = PatchGrid.over(shape, patch, roi=RegionOfInterest(mask, margin))
    slabs = [slab.logits.clone() for slab in slide(data, lambda x: x, grid, device=CPU)]
    found = torch.cat(slabs, dim=grid.main_axis + 1).numpy()
    near = ndimage.maximum_filter(mask, 2 * margin + 1, mode="constant")
    np.testing.assert_allclose(found[0][near], data[0][near], atol=1e-5)
    elsewhere = found[0][~near]
    assert (np.isclose(elsewhere, data[0][~near], atol=1e-5) | (elsewhere == -20.0)).all()
