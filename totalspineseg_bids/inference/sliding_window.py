"""Overlapping patches, weighted and averaged as in nnU-Net, finished slab by slab.

nnU-Net keeps outputs x volume until the last patch. Patches are visited here along one axis from end to end, so
what lies before the next row of patches is final and can be handed on: the memory is that of one slab of patch
thickness.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from numpy.typing import NDArray

Shape3 = tuple[int, int, int]

STEP = 0.5
_GAUSSIAN_SCALE = 10.0
_SIGMA = 1.0 / 8.0


@dataclass(frozen=True, slots=True)
class Slab:
    """Finished logits of a range of the image along one axis.

    Attributes
    ----------
    axis
        The axis, 0 to 2.
    start, stop
        Range along the axis, voxels of the image.
    logits
        float32, shape (outputs, ...), as large as the image along the other two axes.
    """

    axis: int
    start: int
    stop: int
    logits: torch.Tensor


@dataclass(frozen=True, slots=True)
class Window:
    """Where patches lie in an image.

    Attributes
    ----------
    patch
        Shape of a patch.
    padded
        Shape of the image after padding to at least one patch.
    before
        Padding at the start of each axis; the image is centred as in nnU-Net.
    steps
        Start of the patches along each axis, in the padded image.
    """

    patch: Shape3
    padded: Shape3
    before: Shape3
    steps: tuple[tuple[int, ...], ...]

    @classmethod
    def over(cls, shape: Shape3, patch: Shape3, step: float = STEP) -> Window:
        """Lay patches over an image of a shape, neighbours ``step`` patch sizes apart or less."""
        a, b, c = (max(size, wanted) for size, wanted in zip(shape, patch, strict=True))
        d, e, f = ((full - size) // 2 for full, size in zip((a, b, c), shape, strict=True))
        steps = compute_steps_for_sliding_window((a, b, c), patch, step)
        # Patches one voxel thick, half a patch apart, would visit each voxel twice.
        return cls(patch, (a, b, c), (d, e, f), tuple(tuple(sorted({int(s) for s in axis})) for axis in steps))

    @property
    def count(self) -> int:
        """Number of patches."""
        return int(np.prod([len(axis) for axis in self.steps]))

    @property
    def main_axis(self) -> int:
        """The axis along which slabs are cheapest: with the most patches."""
        return int(np.argmax([full / size for full, size in zip(self.padded, self.patch, strict=True)]))


def fitting_patch(shape: Shape3, patch: Shape3, step: float, multiple: Shape3, growth: float) -> Shape3:
    """Return the patch with which a network has the fewest voxels to compute in an image.

    An image a little wider than a patch takes two patches that see nearly the same; one patch a little wider takes
    half as long.

    Parameters
    ----------
    shape
        Of the image.
    patch
        That the network was trained with; the result is nowhere shorter.
    step
        Distance of neighbouring patches as part of their size, at most.
    multiple
        What the length of a patch along each axis has to be a multiple of.
    growth
        How many times as many voxels the result may have.

    Returns
    -------
    tuple of int
        Of patches that cost the same the smallest, which needs the least memory.
    """
    options = []
    for size, least, by in zip(shape, patch, multiple, strict=True):
        # Of lengths that take as many patches the least is best.
        lengths: dict[int, int] = {}
        for length in range(least, max(least, -(-size // by) * by) + 1, by):
            count = len(set(compute_steps_for_sliding_window((max(size, length),), (length,), step)[0]))
            lengths.setdefault(count, length)
        options.append([(length, count * length) for count, length in lengths.items()])
    choices = [tuple(zip(*choice, strict=True)) for choice in itertools.product(*options)]
    largest = growth * float(np.prod(patch))
    affordable = [choice for choice in choices if np.prod(choice[0]) <= largest]
    (a, b, c), _ = min(affordable, key=lambda choice: (np.prod(choice[1]), np.prod(choice[0])))
    return a, b, c


def gaussian_weights(patch: Shape3, device: torch.device) -> torch.Tensor:
    """Return nnU-Net's importance of each voxel of a patch: largest in its centre, never zero.

    nnU-Net rounds the map to 16 bits, which sets its least value; that is kept, then everything is summed in 32 bits.
    """
    weights: torch.Tensor = compute_gaussian(
        tuple(patch), sigma_scale=_SIGMA, value_scaling_factor=_GAUSSIAN_SCALE, device=device
    )
    return weights.float()


def slide(
    image: NDArray[np.float32],
    network: Callable[[torch.Tensor], torch.Tensor],
    patch: Shape3,
    *,
    device: torch.device,
    step: float = STEP,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Slab]:
    """Run a network over an image and yield averaged logits from one end to the other.

    Parameters
    ----------
    image
        Shape (C, A, B, C').
    network
        Maps a patch (C, *patch) to logits (outputs, *patch); both on ``device``.
    patch
        Shape of a patch.
    device
        Where the sums are kept.
    step
        Distance of neighbouring patches as part of their size, at most.
    progress
        Called with the finished part, 0 to 1, after each patch.

    Yields
    ------
    Slab
        Finished ranges in ascending order that tile the image.
    """
    shape: Shape3 = (image.shape[1], image.shape[2], image.shape[3])
    window = Window.over(shape, patch, step)
    padding = [(low, full - size - low) for low, full, size in zip(window.before, window.padded, shape, strict=True)]
    padded = np.pad(image, [(0, 0), *padding]) if window.padded != shape else image
    source = torch.from_numpy(np.ascontiguousarray(padded)).to(device)
    weights = gaussian_weights(patch, device)
    crop = tuple(slice(low, low + size) for low, size in zip(window.before, shape, strict=True))

    main = window.main_axis
    first, second = (axis for axis in range(3) if axis != main)
    starts = window.steps[main]
    slab_shape = list(window.padded)
    slab_shape[main] = patch[main]
    total = torch.zeros(slab_shape, device=device)
    sums: torch.Tensor | None = None
    done = 0
    for position, start in enumerate(starts):
        for start_1 in window.steps[first]:
            for start_2 in window.steps[second]:
                origin = {main: start, first: start_1, second: start_2}
                at = tuple(slice(origin[axis], origin[axis] + patch[axis]) for axis in range(3))
                inside = tuple(slice(0, patch[main]) if axis == main else at[axis] for axis in range(3))
                logits = network(source[(slice(None), *at)])
                if sums is None:
                    sums = torch.zeros((logits.shape[0], *slab_shape), device=device)
                sums[(slice(None), *inside)].addcmul_(logits.float(), weights)
                total[inside] += weights
                done += 1
                if progress is not None:
                    progress(done / window.count)
        assert sums is not None  # noqa: S101 - there is at least one patch
        final = (starts[position + 1] if position + 1 < len(starts) else window.padded[main]) - start
        low, high = max(start, crop[main].start), min(start + final, crop[main].stop)
        if low < high:
            part = tuple(slice(low - start, high - start) if axis == main else crop[axis] for axis in range(3))
            logits = sums[(slice(None), *part)] / total[part]
            yield Slab(main, low - crop[main].start, high - crop[main].start, logits)
        _shift(sums, main + 1, final)
        _shift(total, main, final)


def _shift(buffer: torch.Tensor, axis: int, by: int) -> None:
    """Move what is left of a slab to its start and clear the rest."""
    size = buffer.shape[axis]
    if by < size:
        buffer.narrow(axis, 0, size - by).copy_(buffer.narrow(axis, by, size - by).clone())
    buffer.narrow(axis, max(size - by, 0), min(by, size)).zero_()
