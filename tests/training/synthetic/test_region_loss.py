"""The loss of steps 1 and 2: nnU-Net's for regions, and that of regions within others."""

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from totalspineseg_bids.training.class_maps import REGIONS
from totalspineseg_bids.training.synthetic.region_loss import RegionLoss, nested_rows

CPU = torch.device("cpu")
#: An outer region with a part, and one without.
SMALL = [(1, 2), (2,), (3,)]


def loss(regions=SMALL, *, spacing=1.75, weight=1.0):
    return RegionLoss(regions, spacing, CPU, nested_weight=weight)


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


@pytest.mark.parametrize("asked", [[[1, 1, 1], [1, 1, 1]], [[1, 0, 1], [1, 1, 1]]])
def test_without_the_nested_part_it_is_nnunets_loss_over_what_is_asked(asked):
    torch.manual_seed(0)
    output = torch.randn(2, 3, 8, 8, 8, requires_grad=True)
    values = torch.randint(0, 4, (2, 8, 8, 8), dtype=torch.uint8)
    own = loss(spacing=1.0, weight=0.0)
    total = own(output, values, torch.tensor(asked, dtype=torch.float32))
    nnunet = DC_and_BCE_loss(
        {}, {"batch_dice": False, "do_bg": True, "smooth": 1000.0, "ddp": False}, dice_class=MemoryEfficientSoftDiceLoss
    )
    single = []
    for image, labels, wanted in zip(output, values, asked, strict=True):
        rows = [row for row, yes in enumerate(wanted) if yes]
        truth = own.table[:, labels.int()]
        single.append(nnunet(image[None, rows], truth[None, rows]))
    torch.testing.assert_close(total, torch.stack(single).mean())
    (gradient,) = torch.autograd.grad(total, output, retain_graph=True)
    (expected,) = torch.autograd.grad(torch.stack(single).mean(), output)
    torch.testing.assert_close(gradient, expected)


def nested_gradient(values, *, asked=(1.0, 1.0, 1.0), spacing=1.75):
    """Return what the nested part alone adds to the gradient of outputs that are 0."""
    output = torch.zeros(1, 3, *values.shape, requires_grad=True)
    wanted = torch.tensor([asked])
    parts = [loss(weight=w, spacing=spacing)(output, values[None], wanted) for w in (1.0, 0.0)]
    (gradient,) = torch.autograd.grad(parts[0] - parts[1], output)
    return gradient[0], (parts[0] - parts[1]).item()


def test_only_voxels_in_and_around_the_outer_region_count_and_each_as_much():
    values = torch.zeros(9, 9, 9, dtype=torch.uint8)
    values[0, 0, 0], values[0, 0, 1] = 2, 1
    gradient, value = nested_gradient(values)
    assert value == pytest.approx(0.6931, abs=1e-4)
    assert not gradient[[0, 2]].any()
    touched = gradient[1].abs() > 1e-9
    # 3.5 mm are two voxels of 1.75 mm.
    assert touched.nonzero().max(0).values.tolist() == [2, 2, 3]
    assert touched.sum() == 3 * 3 * 4
    assert gradient[1, 0, 0, 0] < 0 < gradient[1, 0, 0, 1]
    torch.testing.assert_close(gradient[1, 2, 2, 3], -gradient[1, 0, 0, 0])


def test_a_region_must_not_spill_into_another_outer_one():
    own = RegionLoss([(1, 2), (2,), (3, 4), (4,)], 1.75, CPU, nested_weight=1.0)
    values = torch.zeros(1, 3, 3, 3, dtype=torch.uint8)
    values[0, 0], values[0, 2] = 1, 3
    output = torch.zeros(1, 4, 3, 3, 3, requires_grad=True)
    own(output, values, torch.ones(1, 4)).backward()
    assert (output.grad[0, 1, 2] > 0).all()
    assert (output.grad[0, 3, 0] > 0).all()


def test_what_is_not_asked_or_not_in_view_adds_nothing():
    values = torch.zeros(9, 9, 9, dtype=torch.uint8)
    assert nested_gradient(values)[1] == 0.0
    values[0, 0, 0] = 2
    assert nested_gradient(values, asked=(1.0, 0.0, 1.0))[1] == 0.0
