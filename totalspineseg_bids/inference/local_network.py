"""A small network that corrects what another one found, from what lies within a few voxels.

Part of its input are the logits of the other network; what it computes is added to them, so that an untrained one
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from totalspineseg_bids.inference.pixel_shuffle import BLOCK_VOXELS, cut_to, depth_to_space, space_to_depth


class LocalNetwork(nn.Module):
    """Residual 3 x 3 x 3 convolutions on 2 x 2 x 2 voxels taken as channels of one, and on coarser stages; no norms.

    What it says of a voxel does not depend on where a patch ends, but for voxels near its rim.

    Parameters
    ----------
    input_channels, num_classes
        Of its images and outputs.
    features
        Of the convolutions of each stage.
    blocks
        Residual convolutions of each stage on the way down; each stage but the last has one more on the way up.
    strides
        Of each stage along each axis: how many times as wide its voxels are as those of the stage before.
    prior
        Input channels that hold logits, one for each output; their scale is ``prior_scale``.
    prior_scale
        What a logit was divided by.
    deep_supervision
        Not supported.
    """

    def __init__(
        self,
        input_channels: int,
        *,
        num_classes: int,
        features: Sequence[int],
        blocks: Sequence[int],
        strides: Sequence[Sequence[int]],
        prior: Sequence[int],
        prior_scale: float,
        deep_supervision: bool = False,
    ) -> None:
        if deep_supervision or len(prior) != num_classes:
            msg = "LocalNetwork has one output for each channel of logits, and no outputs of coarser stages"
            raise ValueError(msg)
        if not len(features) == len(blocks) == len(strides):
            msg = (
                "LocalNetwork needs features, blocks and strides of each stage, "
                f"not {len(features)}, {len(blocks)} and {len(strides)}"
            )
            raise ValueError(msg)
        super().__init__()
        self.prior = list(prior)
        self.prior_scale = prior_scale
        self.first = nn.Conv3d(BLOCK_VOXELS * input_channels, features[0], 3, padding=1)
        self.encoder = nn.ModuleList(_Residual(width, count) for width, count in zip(features, blocks, strict=True))
        self.coarser, self.finer = nn.ModuleList(), nn.ModuleList()
        # A convolution leaves out what does not fill its stride.
        self.padding = [[length for by in reversed(stride) for length in (0, by - 1)] for stride in strides[1:]]
        for (fine, wide), stride in zip(pairwise(features), strides[1:], strict=True):
            by = (stride[0], stride[1], stride[2])
            self.coarser.append(nn.Conv3d(fine, wide, by, stride=by))
            self.finer.append(nn.ConvTranspose3d(wide, fine, by, stride=by))
        self.decoder = nn.ModuleList(_Residual(width, 1) for width in features[:-1])
        self.last = nn.Conv3d(features[0], BLOCK_VOXELS * num_classes, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (images, classes, Z, Y, X), of images (images, channels, Z, Y, X).

        Sizes are even; a stage of an odd length is as if it had another voxel of zeros at its end.
        """
        hidden = self.encoder[0](functional.relu(self.first(space_to_depth(image))))
        fine = []
        for down, stage, filled in zip(self.coarser, self.encoder[1:], self.padding, strict=True):
            fine.append(hidden)
            hidden = stage(functional.relu(down(functional.pad(hidden, filled))))
        for up, stage in zip(reversed(self.finer), reversed(self.decoder), strict=True):
            skip = fine.pop()
            hidden = stage(skip + cut_to(up(hidden), skip))
        return image[:, self.prior] * self.prior_scale + depth_to_space(self.last(hidden))


class _Residual(nn.Module):
    """Convolutions whose rectified result is added to what they take."""

    def __init__(self, features: int, count: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv3d(features, features, 3, padding=1) for _ in range(count))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            hidden = hidden + functional.relu(convolution(hidden))
        return hidden
