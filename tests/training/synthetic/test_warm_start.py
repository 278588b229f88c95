"""A network that starts from another computes what that one did."""

import pytest
import torch

from tests.inference.untrained import small_network
from totalspineseg_bids.training.synthetic.warm_start import matching_heads, warm_start_weights


def _network(seed, features=(4, 8, 12), *, channels=1, outputs=3):
    torch.manual_seed(seed)
    network = small_network(channels, outputs, features=features, convolutions=1)
    for weight in network.parameters():  # the layers' own start is zero in places
        weight.data += 0.05 * torch.randn_like(weight)
    return network


@pytest.mark.parametrize("features", [(4, 8, 12), (7, 8, 12), (8, 16, 16)])
def test_a_wider_network_starts_as_the_narrow_one(features):
    narrow, wide = _network(1), _network(2, features)
    weights, taken = warm_start_weights(wide.state_dict(), narrow.state_dict(), [0, 1, 2])
    wide.load_state_dict(weights)
    assert taken == len(weights)
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(wide(image), narrow(image), rtol=1e-4, atol=1e-5)


def test_what_is_new_can_be_learned():
    narrow, wide = _network(1), _network(2, (8, 8, 12))
    wide.load_state_dict(warm_start_weights(wide.state_dict(), narrow.state_dict(), [0, 1, 2])[0])
    wide(torch.randn(1, 1, 8, 8, 8)).square().mean().backward()
    new = wide.decoder.seg_layers[-1].weight[:, 4:]
    assert not new.any()
    assert wide.decoder.seg_layers[-1].weight.grad[:, 4:].any()


def test_a_second_input_channel_counts_for_nothing_at_first():
    one, two = _network(1), _network(2, channels=2)
    two.load_state_dict(warm_start_weights(two.state_dict(), one.state_dict(), [0, 1, 2])[0])
    image = torch.randn(1, 2, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(two(image), one(image[:, :1]))


def test_outputs_start_from_those_they_are_like():
    own, other = ["background", "disc", "disc_L5_S", "sacrum"], ["background", "vertebrae", "disc"]
    heads = matching_heads(own, other)
    assert heads == [1, 1, 0]
    few, many = _network(1, outputs=2), _network(2, outputs=3)
    many.load_state_dict(warm_start_weights(many.state_dict(), few.state_dict(), heads)[0])
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(many(image), few(image)[:, heads])


def test_what_is_no_smaller_version_keeps_its_own_weights():
    narrow, wide = _network(1, (4, 8, 12)), _network(2, (8, 16, 16))
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    weights, _ = warm_start_weights(narrow.state_dict(), wide.state_dict(), [0, 1, 2])
    first = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(weights[first], before[first])
