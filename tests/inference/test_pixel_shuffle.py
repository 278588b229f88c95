"""The U-Net on voxels twice as wide as the image's."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.inference.untrained import assert_any_even_size, small_network
from totalspineseg_bids.inference.pixel_shuffle import PixelShuffleUNet, depth_to_space, space_to_depth
from totalspineseg_bids.training.synthetic.small_plans import SUBVOXEL


def test_voxels_become_channels_of_a_wide_one_and_come_back():
    image = torch.arange(2 * 3 * 4 * 6 * 8, dtype=torch.float32).view(2, 3, 4, 6, 8)
    wide = space_to_depth(image)
    assert wide.shape == (2, 24, 2, 3, 4)
    # The eight channels of an image's channel are the voxels of one block.
    np.testing.assert_array_equal(wide[0, 8:16, 1, 2, 3].sort().values, image[0, 1, 2:4, 4:6, 6:8].flatten())
    torch.testing.assert_close(depth_to_space(wide), image)


def test_the_network_takes_and_gives_the_voxels_of_the_image():
    built = small_network(2, network=SUBVOXEL)
    assert isinstance(built, PixelShuffleUNet)
    assert built(torch.zeros(1, 2, 16, 16, 16)).shape == (1, 3, 16, 16, 16)


def test_patches_of_whole_blocks_come_out_as_from_the_network_it_is_made_of():
    built = small_network(2, network=SUBVOXEL)
    image = torch.randn(1, 2, 16, 24, 16)
    with torch.no_grad():
        expected = depth_to_space(super(PixelShuffleUNet, built).forward(space_to_depth(image)))
        assert torch.equal(built(image), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("surplus", [2, 4, 6])
def test_a_patch_of_any_even_size_gives_what_a_larger_one_gives_away_from_its_end(axis, surplus, monkeypatch):
    built = small_network(2, network=SUBVOXEL)
    for norm in (module for module in built.modules() if isinstance(module, torch.nn.InstanceNorm3d)):
        monkeypatch.setattr(norm, "forward", lambda hidden: hidden)  # it sees all of a patch
    assert_any_even_size(built, 2, axis, surplus, same=20)


def test_it_tells_voxels_of_one_block_apart():
    built = small_network(2, network=SUBVOXEL)
    given = built(torch.randn(1, 2, 16, 16, 16))
    assert not torch.equal(
        functional.avg_pool3d(given, 2).repeat_interleave(2, 2)[0, 0, :, ::2, ::2], given[0, 0, :, ::2, ::2]
    )


def test_deep_supervision_is_refused():
    with pytest.raises(ValueError, match="deep supervision"):
        PixelShuffleUNet(1, num_classes=2, deep_supervision=True)
