"""Loss of steps 1 and 2: nnU-Net's loss for regions, with an extra term for nested regions.

nnU-Net's loss (soft Dice and binary cross-entropy of every region) averages over every voxel of the patch. A landmark
disc is one voxel in a thousand, so once its output is near 0 everywhere, neither Dice (whose gradient vanishes with the
output) nor cross-entropy (shared by all voxels) brings it back. Asked only in and around the column, it is one in
thirty.

Images are taken one by one and regions that are not asked count with weight 0, so that nothing of the size of a batch
is copied or waited for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

#: Added to both sides of the Dice fraction, about a fifth of a disc, mm^3. Without it a class out of view costs
#: the same for a thousand false voxels as for a whole disc, so that false voxels are never removed.
_SMOOTH_MM3 = 1000.0
#: Margin around the outer regions in which the inner ones are asked for too, mm.
_MARGIN_MM = 3.5


def nested_rows(regions: Sequence[Sequence[int] | int]) -> list[tuple[int, list[int]]]:
    """Return for each outermost region with parts its row and the rows of the regions within it.

    Parameters
    ----------
    regions : sequence of sequence of int or int
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


class RegionLoss:
    """Loss of a batch, a mean over its images.

    An image's loss is nnU-Net's over the regions that are asked for, plus ``nested_weight`` times the cross-entropy of
    the inner ones of these at the voxels of all outer ones and in a margin around them. The margin and the other outer
    regions matter: what is asked within its own outer region alone spills out of it, and overwrites what is there.
    Summed over the inner regions: that there are six landmarks makes none of them matter less. An image with no outer
    region in view has no such part.

    Parameters
    ----------
    regions : sequence of sequence of int or int
        nnU-Net's foreground regions: the label values of each.
    spacing : float
        Voxel size, mm.
    device : torch.device
        Where the outputs are.
    nested_weight : float
        0 leaves the second part out.
    compiled : bool, default False
        Whether to let torch compile it for the device.
    """

    def __init__(
        self,
        regions: Sequence[Sequence[int] | int],
        spacing: float,
        device: torch.device,
        *,
        nested_weight: float,
        compiled: bool = False,
    ) -> None:
        table = torch.zeros(len(regions), 256)
        for row, region in enumerate(regions):
            table[row, list(region) if isinstance(region, tuple | list) else [region]] = 1.0
        nested = nested_rows(regions)
        #: Added to both sides of the Dice fraction, voxels.
        self.smooth = _SMOOTH_MM3 / spacing**3
        #: What lies in each region by label value, shape (regions, 256).
        self.table = table.to(device)
        self._outer = table[[row for row, _ in nested]].amax(0).to(device) if nested else None
        inner = torch.zeros(len(regions))
        for _, within in nested:
            inner[within] += nested_weight / len(nested)
        self._inner = inner.to(device) if nested_weight else None
        self._reach = max(1, round(_MARGIN_MM / spacing))
        self._of_image = torch.compile(self._loss, dynamic=False) if compiled else self._loss

    def __call__(self, output: torch.Tensor, values: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Return the loss.

        Parameters
        ----------
        output : torch.Tensor
            Logits, shape (images, regions, Z, Y, X).
        values : torch.Tensor
            Label values, uint8, shape (images, Z, Y, X).
        asked : torch.Tensor
            1 for the regions that an image is asked for, else 0; shape (images, regions).

        Returns
        -------
        Tensor
            Scalar.
        """
        each = []
        for logits, labels, wanted in zip(output, values, asked, strict=True):
            index = labels.flatten().int()
            near = None if self._inner is None or self._outer is None else self._near(self._outer[index], labels.shape)
            each.append(self._of_image(logits.flatten(1), index, wanted, near))
        return torch.stack(each).mean()

    def _loss(
        self, output: torch.Tensor, index: torch.Tensor, asked: torch.Tensor, near: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the loss of an image: logits (regions, voxels), label values and weights of its voxels."""
        logits, truth = output.float(), self.table[:, index]
        probable = logits.sigmoid()
        common, either = (probable * truth).sum(1), probable.sum(1) + truth.sum(1)
        dice = (2.0 * common + self.smooth) / (either + self.smooth)
        entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        loss = ((entropy.mean(1) - dice) * asked).sum() / asked.sum()
        if near is None or self._inner is None:
            return loss
        inner = (entropy * near).sum(1) / near.sum().clamp_min(1.0)
        return loss + (inner * self._inner * asked).sum()

    def _near(self, mask: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Widen a mask, given flat, by the margin."""
        mask = mask.view(1, *shape)
        # One axis after the other: a cube of 9 voxels would be 729 comparisons for each.
        for axis in range(3):
            size, padding = [1, 1, 1], [0, 0, 0]
            size[axis], padding[axis] = 2 * self._reach + 1, self._reach
            mask = functional.max_pool3d(mask, size, 1, padding)
        return mask.flatten()
