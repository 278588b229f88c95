"""A small network that corrects what another one found, from what lies within a few voxels.

Part of its input are the logits of the other network; what it computes is added to them, so that an untrained one
changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from totalspineseg_bids.inference.subvoxel import FACTOR, SUBVOXELS, folded, unfolded


class LocalNetwork(nn.Module):
    """Residual 3 x 3 x 3 convolutions on 2 x 2 x 2 voxels taken as channels of one, without strides or norms.

    What it says of a voxel does not depend on where a patch ends, but for the last few voxels.

    Parameters
    ----------
    input_channels, num_classes
        Of its images and outputs.
    features
        Of every convolution.
    blocks
        Convolutions after the first.
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
        features: int,
        blocks: int,
        prior: Sequence[int],
        prior_scale: float,
        deep_supervision: bool = False,
    ) -> None:
        if deep_supervision or len(prior) != num_classes:
            msg = "LocalNetwork has one output for each channel of logits, and no outputs of coarser stages"
            raise ValueError(msg)
        super().__init__()
        self.prior = list(prior)
        self.prior_scale = prior_scale
        self.first = nn.Conv3d(SUBVOXELS * input_channels, features, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv3d(features, features, 3, padding=1) for _ in range(blocks))
        self.last = nn.Conv3d(features, SUBVOXELS * num_classes, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (images, classes, Z, Y, X), of images (images, channels, Z, Y, X); even sizes."""
        assert all(length % FACTOR == 0 for length in image.shape[2:])  # noqa: S101 - patches are chosen so
        hidden = functional.relu(self.first(folded(image)))
        for block in self.blocks:
            hidden = hidden + functional.relu(block(hidden))
        return image[:, self.prior] * self.prior_scale + unfolded(self.last(hidden))
