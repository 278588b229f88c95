"""The ways in which a patch is shown to a network: what it errs in one way it errs otherwise in another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Shape3 = tuple[int, int, int]
Region = tuple[slice, slice, slice]

#: Moves that show a network which takes 2 x 2 x 2 voxels as one other blocks each time: along each axis half of them
#: begin at even voxels and half at odd ones.
_MOVES: tuple[Shape3, ...] = ((0, 0, 0), (1, 1, 1), (1, 0, 1), (0, 1, 0))


@dataclass(frozen=True, slots=True)
class Look:
    """A patch as it is, or moved and then mirrored.

    Attributes
    ----------
    mirrored
        Axes along which it is mirrored, 0 to 2.
    moved
        Voxels by which it is moved towards the end of each axis.
    """

    mirrored: tuple[int, ...] = ()
    moved: Shape3 = (0, 0, 0)

    def shown(self, patch: torch.Tensor) -> torch.Tensor:
        """Return what a network is shown of a patch, both of shape (channels, A, B, C).

        Where it is moved, what lies before the start is as the start is.
        """
        if any(self.moved):
            moved = patch.clone()
            moved[(slice(None), *self._after())] = patch[(slice(None), *self.covered(patch.shape[1:]))]
            patch = moved
        return patch.flip([axis + 1 for axis in self.mirrored]) if self.mirrored else patch

    def covered(self, shape: Sequence[int]) -> Region:
        """Return the part of a patch of a shape (A, B, C) that is seen: what is moved beyond the end is not."""
        a, b, c = (slice(0, length - by) for length, by in zip(shape, self.moved, strict=True))
        return a, b, c

    def undone(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the part of an output (A, B, C) that is of `covered`, in its place."""
        if self.mirrored:
            logits = logits.flip(self.mirrored)
        return logits[self._after()]

    def _after(self) -> Region:
        a, b, c = (slice(by, None) for by in self.moved)
        return a, b, c


PLAIN = Look()


def mirrored_looks(axes: Sequence[int], voxel_block: int) -> tuple[Look, ...]:
    """Return nnU-Net's test-time augmentation: the patch as it is, mirrored along each axis, and along several.

    Parameters
    ----------
    axes
        Spatial axes of the network along which it was trained to see mirrored patches.
    voxel_block
        Voxels along each axis that the network takes as one. Where these are two, each look is moved otherwise too:
        what it draws to one side too much in one, it draws to the other in another.
    """
    flips = [combo for size in range(len(axes) + 1) for combo in itertools.combinations(axes, size)]
    moves = _MOVES if voxel_block == 2 and axes else _MOVES[:1]
    count = max(len(flips), len(moves))
    return tuple(
        Look(flip, move)
        for flip, move in itertools.islice(zip(itertools.cycle(flips), itertools.cycle(moves), strict=False), count)
    )
