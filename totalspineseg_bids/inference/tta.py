"""Test-time augmentation: run the network on shifted and mirrored copies of each patch.

Averaging the outputs in the original frame cancels part of the error.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Shape3 = tuple[int, int, int]
Region = tuple[slice, slice, slice]

#: Shifts that present other blocks of 2 x 2 x 2 voxels to a pixel-shuffle network: along each axis half of the blocks
#: begin at even voxels and half at odd ones.
_SHIFTS: tuple[Shape3, ...] = ((0, 0, 0), (1, 1, 1), (1, 0, 1), (0, 1, 0))


@dataclass(frozen=True, slots=True)
class TtaTransform:
    """A shift of a patch, then reflections."""

    mirror_axes: tuple[int, ...] = ()
    """Spatial axes along which the patch is mirrored, 0 to 2."""
    shift: Shape3 = (0, 0, 0)
    """Voxels by which the patch is shifted towards the end of each axis."""

    def apply(self, patch: torch.Tensor) -> torch.Tensor:
        """Transform a patch, shape (channels, A, B, C); a shift repeats the voxels at the start of each axis."""
        if any(self.shift):
            shifted = patch.clone()
            shifted[(slice(None), *self._after())] = patch[(slice(None), *self.visible_region(patch.shape[1:]))]
            patch = shifted
        return patch.flip([axis + 1 for axis in self.mirror_axes]) if self.mirror_axes else patch

    def visible_region(self, shape: Sequence[int]) -> Region:
        """Return the part of a patch of shape (A, B, C) that the shift does not move out of the patch."""
        a, b, c = (slice(0, length - by) for length, by in zip(shape, self.shift, strict=True))
        return a, b, c

    def invert(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits of `visible_region` in the frame of the patch, from one output of shape (A, B, C)."""
        if self.mirror_axes:
            logits = logits.flip(self.mirror_axes)
        return logits[self._after()]

    def _after(self) -> Region:
        a, b, c = (slice(by, None) for by in self.shift)
        return a, b, c


IDENTITY = TtaTransform()


def tta_transforms(axes: Sequence[int], voxel_block: int) -> tuple[TtaTransform, ...]:
    """Return nnU-Net's test-time augmentation: all combinations of reflections.

    Parameters
    ----------
    axes : sequence of int
        Spatial axes of the network along which training mirrored patches.
    voxel_block : int
        Voxels along each axis of one block of the network. For blocks of two voxels every transform also has another
        shift, so that block artefacts of different copies average out.

    Returns
    -------
    tuple of TtaTransform
        The identity first.
    """
    flips = [combo for size in range(len(axes) + 1) for combo in itertools.combinations(axes, size)]
    shifts = _SHIFTS if voxel_block == 2 and axes else _SHIFTS[:1]
    count = max(len(flips), len(shifts))
    return tuple(
        TtaTransform(flip, shift)
        for flip, shift in itertools.islice(zip(itertools.cycle(flips), itertools.cycle(shifts), strict=False), count)
    )
