"""The network that corrects what another one found."""

import pytest
import torch

from tests.inference.untrained import assert_any_even_size
from totalspineseg_bids.inference.local_network import LocalNetwork

ONE = (1, 1, 1)


def network(**changes) -> LocalNetwork:
    torch.manual_seed(0)
    arguments = {"num_classes": 2, "features": (8,), "blocks": (2,), "strides": (ONE,), "prior": (1, 2)}
    return LocalNetwork(3, **arguments | {"prior_scale": 4.0} | changes).eval()


def trained(**changes) -> LocalNetwork:
    made = network(**changes)
    torch.nn.init.normal_(made.last.weight)
    return made


@pytest.mark.parametrize(
    ("changes", "same", "other"),
    [
        # Three convolutions on voxels twice as wide reach six voxels and the rest of a block.
        ({}, slice(32), slice(38, 40)),
        # Three convolutions on 2 mm and two on 4 mm, each a voxel, and the rest of the widest block.
        ({"features": (8, 12), "blocks": (1, 2), "strides": (ONE, (2, 2, 2))}, slice(20), slice(28, 32)),
    ],
    ids=["one stage", "two stages"],
)
def test_what_it_says_depends_on_the_neighbourhood_alone_and_coarser_stages_see_farther(changes, same, other):
    image = torch.randn(1, 3, 48, 32, 32)
    changed = image.clone()
    changed[:, :, 40:] = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        one, two = trained(**changes)(image), trained(**changes)(changed)
    assert one.shape == (1, 2, 48, 32, 32)
    torch.testing.assert_close(one[:, :, same], two[:, :, same])
    assert not torch.allclose(one[:, :, other], two[:, :, other])


def test_untrained_it_changes_nothing():
    image = torch.randn(2, 3, 8, 12, 16)
    with torch.no_grad():
        torch.testing.assert_close(network()(image), 4.0 * image[:, 1:])


def test_stages_may_be_coarser_along_some_axes():
    made = network(features=(8, 12, 16), blocks=(1, 1, 1), strides=(ONE, (2, 2, 1), (2, 1, 1)))
    with torch.no_grad():
        assert made(torch.zeros(1, 3, 8, 12, 6)).shape == (1, 2, 8, 12, 6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("surplus", [2, 4, 6])
def test_a_patch_of_any_even_size_gives_what_a_larger_one_gives_away_from_its_end(axis, surplus):
    made = trained(features=(8, 12, 16), blocks=(1, 1, 1), strides=(ONE, (2, 2, 2), (2, 2, 2)))
    assert_any_even_size(made, 3, axis, surplus, same=40)


@pytest.mark.parametrize("changes", [{"prior": (1,)}, {"deep_supervision": True}, {"blocks": (1, 1)}])
def test_what_it_cannot_do_is_refused(changes):
    with pytest.raises(ValueError, match="LocalNetwork"):
        network(**changes)
