"""A loss for regions that lie within others: which part of the column is it, at voxels known to be of the column.

nnU-Net's loss for regions averages over every voxel of the patch. A landmark disc is one voxel in a thousand, so once
its output is near 0 everywhere, neither Dice (whose gradient vanishes with the output) nor cross-entropy (shared by
all voxels) brings it back. Asked only where the region around it is, it is one in ten.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


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
    """Return the cross-entropy of the inner regions at the voxels of the outer one.

    Summed over the inner regions, a mean over the outer ones: that there are six landmarks makes none of them matter
    less.

    Parameters
    ----------
    output, target
        Logits and truth (0 or 1) of one image, shape (regions, Z, Y, X).
    nested
        As ``nested_rows`` returns it; inner regions that are not asked left out.

    Returns
    -------
    Tensor
        Scalar; 0 where no outer region is in view.
    """
    parts = []
    for outer, within in nested:
        inside = target[outer] > 0
        if within and bool(inside.any()):
            logits = torch.stack([output[row][inside] for row in within])
            truth = torch.stack([target[row][inside] for row in within])
            parts.append(functional.binary_cross_entropy_with_logits(logits, truth) * len(within))
    return torch.stack(parts).mean() if parts else output.sum() * 0.0
