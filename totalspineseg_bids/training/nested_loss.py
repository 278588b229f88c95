"""A loss for regions that lie within others: which part of the column is it, at the voxels of the column.

nnU-Net's loss for regions averages over every voxel of the patch. A landmark disc is one voxel in a thousand, so once
its output is near 0 everywhere, neither Dice (whose gradient vanishes with the output) nor cross-entropy (shared by
all voxels) brings it back. Asked only in and around the column, it is one in thirty.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

#: Voxels around the outer regions in which the inner ones are asked for too.
_MARGIN = 2


def nested_rows(regions: Sequence[Sequence[int] | int]) -> list[tuple[int, list[int]]]:
    """Return for each outermost region with parts its row and the rows of the regions within it.

    Parameters
    ----------
    regions
        nnU-Net's foreground regions: the label values of each.
    """
    values = [frozenset([region] if isinstance(region, int) else region) for region in regions]
    nested = []
    for row, outer in enumerate(values):
        if any(outer < other for other in values):
            continue
        within = [other for other, inner in enumerate(values) if inner < outer]
        if within:
            nested.append((row, within))
    return nested


def nested_loss(
    output: torch.Tensor, target: torch.Tensor, nested: Sequence[tuple[int, Sequence[int]]]
) -> torch.Tensor:
    """Return the cross-entropy of the inner regions at the voxels of all outer ones and in a margin around them.

    The margin and the other outer regions matter: what is asked within its own outer region alone spills out of it,
    and overwrites what is there. Summed over the inner regions: that there are six landmarks makes none of them matter
    less. A mean over images; one with no outer region in view counts as 0.

    Parameters
    ----------
    output, target
        Logits and truth (0 or 1) of a batch, shape (images, regions, Z, Y, X).
    nested
        As ``nested_rows`` returns it; inner regions that are not asked left out.

    Returns
    -------
    Tensor
        Scalar.
    """
    rows = [row for _, within in nested for row in within]
    if not rows:
        return output.sum() * 0.0
    outer = target[:, [row for row, _ in nested]].amax(1, keepdim=True)
    near = (functional.max_pool3d(outer, 2 * _MARGIN + 1, 1, _MARGIN) > 0).to(output.dtype)
    # By weights, not by picking voxels: how many there are would have to be waited for on a GPU.
    loss = functional.binary_cross_entropy_with_logits(output[:, rows], target[:, rows], near, reduction="none")
    each = loss.sum((1, 2, 3, 4)) / near.sum((1, 2, 3, 4)).clamp_min(1.0)
    return each.mean() / len(nested)
