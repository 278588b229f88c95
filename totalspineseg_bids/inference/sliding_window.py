"""Overlapping patches, weighted and averaged as in nnU-Net, finished slab by slab.

nnU-Net keeps outputs x volume until the last patch. Patches are visited here along one axis from end to end, so
what lies before the next row of patches is final and can be handed on: the memory is that of one slab of patch
thickness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.inference.patch_grid import PatchGrid
from totalspineseg_bids.inference.tta import IDENTITY, Region, Shape3, TtaTransform

_GAUSSIAN_SCALE = 10.0
_SIGMA = 1.0 / 8.0
#: Logit of each output where nothing is computed.
_NOTHING = -20.0


@dataclass(frozen=True, slots=True)
class Slab:
    """Finished logits of a range of the image along one axis."""

    axis: int
    """The axis, 0 to 2."""
    start: int
    """First voxel along the axis, in the image."""
    stop: int
    """Voxel after the last one."""
    logits: torch.Tensor
    """float32, shape (outputs, ...), as large as the image along the other axes; the next slab reuses the memory."""


@lru_cache(maxsize=4)
def gaussian_weights(patch: Shape3, device: torch.device) -> torch.Tensor:
    """Compute nnU-Net's Gaussian weights of a patch: largest in its centre, positive everywhere.

    nnU-Net rounds the weights to 16 bits, which sets their minimum; that is kept, and sums are 32-bit. A Gaussian is
    computed as the product of one per axis, which is faster than filtering the whole patch as nnU-Net does.
    """
    a, b, c = (_gaussian(length) for length in patch)
    weights = (_GAUSSIAN_SCALE * a[:, None, None] * b[:, None] * c).half().float()
    weights.clamp_(min=float(weights.masked_fill(weights == 0, torch.inf).min()))
    return weights.to(device)


def _gaussian(length: int) -> torch.Tensor:
    """Compute a Gaussian along one axis, with 1 in its middle."""
    line = np.zeros(length)
    line[length // 2] = 1.0
    line = ndimage.gaussian_filter1d(line, length * _SIGMA, mode="constant")
    return torch.from_numpy(line / line.max())


def slide(
    image: NDArray[np.float32],
    network: Callable[[torch.Tensor], torch.Tensor],
    grid: PatchGrid,
    *,
    device: torch.device,
    transforms: Sequence[TtaTransform] = (IDENTITY,),
    progress: Callable[[float], None] | None = None,
) -> Iterator[Slab]:
    """Run a network over an image and yield averaged logits from one end to the other.

    Parameters
    ----------
    image
        Shape (C, A, B, C').
    network
        Maps a patch (C, *patch) to logits (outputs, *patch); both on ``device``.
    grid
        Positions of the patches. Voxels that no patch covers get a logit of -20 for each output.
    device
        Where the sums are kept.
    transforms
        Test-time augmentation; the first transform has to cover the whole patch.
    progress
        Called with the finished part, 0 to 1, after each patch.

    Yields
    ------
    Slab
        Finished ranges in ascending order that tile the image.
    """
    shape: Shape3 = (image.shape[1], image.shape[2], image.shape[3])
    patch = grid.patch
    source = torch.from_numpy(image).to(device)
    weights = gaussian_weights(patch, device)
    taken = torch.empty((len(image), *patch), device=device)

    main = grid.main_axis
    slab_shape = [min(patch[axis], size) if axis == main else size for axis, size in enumerate(shape)]
    total = torch.zeros(slab_shape, device=device)
    sums: torch.Tensor | None = None
    done = 0
    for position, row in enumerate(grid.rows):
        start = max(row.start - grid.before[main], 0)
        for origin in row.origins:
            lows = [low - by for low, by in zip(origin, grid.before, strict=True)]
            # What lies in the image, as a part of the patch and as a part of the slab.
            part = _fill(taken, source, lows)
            offsets = [low - start if axis == main else low for axis, low in enumerate(lows)]
            inside = _moved(part, offsets)
            for transform in transforms:
                logits = network(transform.apply(taken))
                if sums is None:
                    sums = _zeros((len(logits), *slab_shape), device)
                _add(sums[(slice(None), *inside)], total[inside], logits, weights, transform, part)
            done += 1
            if progress is not None:
                progress(done / grid.count)
        assert sums is not None  # noqa: S101 - there is at least one patch
        last = position + 1 == len(grid.rows)
        final = (shape[main] if last else grid.rows[position + 1].start) - start
        finished = total.narrow(main, 0, final)
        # Sums of nothing are 0. Arithmetic takes a tenth of the time of a mask.
        nothing = (finished == 0).float()
        logits = sums.narrow(main + 1, 0, final).div_(finished + nothing).add_(nothing, alpha=_NOTHING)
        yield Slab(main, start, start + final, logits)
        if not last:
            # One output at a time: what overlaps is copied twice.
            for buffer in (*sums, total):
                _shift(buffer, main, final)


def _zeros(shape: Sequence[int], device: torch.device) -> torch.Tensor:
    # Numpy takes cleared memory from the system, torch clears it once more.
    return torch.from_numpy(np.zeros(shape, np.float32)) if device.type == "cpu" else torch.zeros(shape, device=device)


def _moved(region: Region, by: Sequence[int]) -> Region:
    """Return a region moved along each axis."""
    a, b, c = (slice(part.start + step, part.stop + step) for part, step in zip(region, by, strict=True))
    return a, b, c


def _add(  # noqa: PLR0917
    sums: torch.Tensor,
    total: torch.Tensor,
    logits: torch.Tensor,
    weights: torch.Tensor,
    transform: TtaTransform,
    part: Region,
) -> None:
    """Add the weighted logits of a part of a patch to the sums of that part, and its weights to their total."""
    parts = zip(part, transform.visible_region(weights.shape), strict=True)
    a, b, c = (slice(whole.start, min(whole.stop, seen.stop)) for whole, seen in parts)
    covered = _moved((a, b, c), [-whole.start for whole in part])
    total[covered] += weights[a, b, c]
    # One output at a time: mirroring back and conversion copy, and all outputs together are large.
    for output, values in zip(sums, logits, strict=True):
        output[covered].addcmul_(transform.invert(values)[a, b, c].float(), weights[a, b, c])


def sample_patches(image: NDArray[np.float32], grid: PatchGrid, count: int) -> list[torch.Tensor]:
    """Return some patches of an image, shape (C, *patch), spread over the rows of a grid."""
    source = torch.from_numpy(image)
    places = np.unique(np.linspace(0, len(grid.rows), 2 * count + 1)[1::2].astype(int))
    patches = [torch.empty(len(image), *grid.patch) for _ in places]
    for patch, place in zip(patches, places, strict=True):
        row = grid.rows[place].origins
        _fill(patch, source, [low - by for low, by in zip(row[len(row) // 2], grid.before, strict=True)])
    return patches


def _fill(patch: torch.Tensor, source: torch.Tensor, lows: Sequence[int]) -> Region:
    """Copy the voxels of an image (channels, A, B, C) from ``lows`` on into a patch, with 0 outside the image.

    Returns
    -------
    Region
        Part of the patch that lies in the image.
    """
    spans = zip(lows, patch.shape[1:], source.shape[1:], strict=True)
    a, b, c = (slice(max(-low, 0), min(size, length - low)) for low, size, length in spans)
    inside = patch[:, a, b, c]
    if inside.shape != patch.shape:
        patch.zero_()
    inside.copy_(source[(slice(None), *_moved((a, b, c), lows))])
    return a, b, c


def _shift(buffer: torch.Tensor, axis: int, by: int) -> None:
    """Move what is left of a slab to its start and clear the rest."""
    size = buffer.shape[axis]
    if by < size:
        rest = buffer.narrow(axis, by, size - by)
        buffer.narrow(axis, 0, size - by).copy_(rest if size - by <= by else rest.clone())
    buffer.narrow(axis, max(size - by, 0), min(by, size)).zero_()
