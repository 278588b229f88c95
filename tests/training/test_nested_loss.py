"""The loss of regions within others."""

from __future__ import annotations

import pytest
import torch

from totalspineseg_bids.training.layouts import REGIONS
from totalspineseg_bids.training.nested_loss import nested_loss, nested_rows


def test_every_region_within_another_is_asked_below_the_outermost_one():
    names = list(REGIONS[102])
    nested = {
        names[outer]: [names[row] for row in within] for outer, within in nested_rows(list(REGIONS[102].values()))
    }
    assert set(nested) == {"disc", "vertebrae", "canal"}
    assert nested["canal"] == ["csf", "cord"]
    assert "sacrum" in nested["vertebrae"]
    assert "disc_L5_S" in nested["disc"]
    assert nested_rows([1, 2, (3,)]) == []


def test_only_voxels_in_and_around_the_outer_region_count_and_each_as_much():
    target = torch.zeros(2, 9, 9, 9)
    target[0, 0, 0, :2] = 1.0
    target[1, 0, 0, 0] = 1.0
    output = torch.zeros(2, 9, 9, 9, requires_grad=True)
    loss = nested_loss(output[None], target[None], [(0, [1])])
    assert loss.item() == pytest.approx(0.6931, abs=1e-4)
    loss.backward()
    assert not output.grad[0].any()
    touched = output.grad[1] != 0
    assert touched.nonzero().max(0).values.tolist() == [2, 2, 3]
    assert touched.sum() == 3 * 3 * 4
    assert output.grad[1, 0, 0, 0] < 0 < output.grad[1, 0, 0, 1]
    assert output.grad[1, 2, 2, 3] == output.grad[1, 0, 0, 1] == -output.grad[1, 0, 0, 0]


def test_a_region_must_not_spill_into_another_outer_one():
    target = torch.zeros(4, 3, 3, 3)
    target[0, 0], target[2, 2] = 1.0, 1.0
    output = torch.zeros(4, 3, 3, 3, requires_grad=True)
    nested_loss(output[None], target[None], [(0, [1]), (2, [3])]).backward()
    assert (output.grad[1, 2] > 0).all()
    assert (output.grad[3, 0] > 0).all()


def test_without_the_outer_region_in_view_nothing_is_asked():
    output = torch.randn(2, 3, 3, 3, requires_grad=True)
    loss = nested_loss(output[None], torch.zeros(1, 2, 3, 3, 3), [(0, [1])])
    loss.backward()
    assert loss.item() == 0.0
    assert not output.grad.any()
