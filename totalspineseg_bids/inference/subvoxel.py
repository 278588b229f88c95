"""Import path of the pixel-shuffle network in the ``plans.json`` of trained models."""

from totalspineseg_bids.inference.pixel_shuffle import PixelShuffleUNet as SubvoxelUNet

__all__ = ["SubvoxelUNet"]
