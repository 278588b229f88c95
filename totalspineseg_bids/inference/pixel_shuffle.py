"""nnU-Net's plain U-Net on voxels twice as wide as those of its image.

Each 2 x 2 x 2 voxels enter as channels of one wide voxel and leave as outputs of it (the sub-pixel convolution of Shi
et al., CVPR 2016, and its inverse). The stages of a U-Net that cost most, those at full resolution, then have an eighth
of the voxels, while edges are still seen and drawn to a voxel.
"""

from __future__ import annotations

from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

#: Import path under which plans.json files, those of the bundled models among them, name this network.
STORED_NAME = "totalspineseg_bids.inference.subvoxel.SubvoxelUNet"
#: Voxels of the image along each axis of one of the network.
FACTOR = 2
#: Voxels of the image in one of the network.
BLOCK_VOXELS = FACTOR**3


class PixelShuffleUNet(PlainConvUNet):  # type: ignore[misc] # nnU-Net's networks are untyped
    """A ``PlainConvUNet`` that takes and gives 2 x 2 x 2 voxels as channels of one.

    Images, targets and outputs are those of any other network of nnU-Net; only within it are voxels wider. A patch has
    an even length along each axis, whatever the strides: an odd stage has a coarser one of half its length, rounded up,
    and the surplus voxels on the way back are cut off.

    Parameters
    ----------
    input_channels, num_classes
        Of the image and of its segmentation.
    deep_supervision
        Not supported: outputs of coarser stages would have no voxels to be asked at.
    arguments
        Of ``PlainConvUNet``.
    """

    def __init__(
        self,
        input_channels: int,
        *,
        num_classes: int,
        deep_supervision: bool = False,
        **arguments: Any,  # noqa: ANN401
    ) -> None:
        if deep_supervision:
            msg = "PixelShuffleUNet has no outputs of coarser stages; train it without deep supervision"
            raise ValueError(msg)
        super().__init__(
            input_channels=BLOCK_VOXELS * input_channels, num_classes=BLOCK_VOXELS * num_classes, **arguments
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (images, classes, Z, Y, X), of images (images, channels, Z, Y, X)."""
        *skips, found = self.encoder(space_to_depth(image))
        decoder = self.decoder
        for finer, stage, skip in zip(decoder.transpconvs, decoder.stages, reversed(skips), strict=True):
            found = stage(torch.cat((cut_to(finer(found), skip), skip), 1))
        return depth_to_space(decoder.seg_layers[-1](found))


def cut_to(finer: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    """Cut off the surplus voxels of a finer stage whose coarser one was rounded up, (N, C, Z, Y, X)."""
    z, y, x = skip.shape[2:]
    return finer[:, :, :z, :y, :x]


def space_to_depth(image: torch.Tensor) -> torch.Tensor:
    """Make 2 x 2 x 2 voxels channels of one: (N, C, Z, Y, X) -> (N, 8 C, Z / 2, Y / 2, X / 2), channels last."""
    n, c, *size = image.shape
    z, y, x = (length // FACTOR for length in size)
    parts = image.reshape(n, c, z, FACTOR, y, FACTOR, x, FACTOR).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return parts.reshape(n, z, y, x, c * BLOCK_VOXELS).permute(0, 4, 1, 2, 3)


def depth_to_space(channels: torch.Tensor) -> torch.Tensor:
    """Undo ``space_to_depth``: (N, 8 C, Z, Y, X) -> (N, C, 2 Z, 2 Y, 2 X)."""
    n, c, z, y, x = channels.shape
    parts = channels.reshape(n, c // BLOCK_VOXELS, FACTOR, FACTOR, FACTOR, z, y, x).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return parts.reshape(n, c // BLOCK_VOXELS, FACTOR * z, FACTOR * y, FACTOR * x)
