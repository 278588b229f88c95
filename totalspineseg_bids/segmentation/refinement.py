"""What a refining network sees of an image and of what step 2 found there, and how its answer is taken over.

Whether a dark voxel behind the canal is bone or muscle depends on how bright bone and muscle are *there*: coils, fat
and contrast change that within one image and between images. Step 2 has to learn to compare. Once it has found most of
the bone, the comparison can be computed: the mean and spread of what is surely bone, disc, canal or none of these
within a few millimetres. The refining network gets the image measured by each of them, beside the probabilities of
step 2, and moves the borders.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch.nn import functional

from totalspineseg_bids.segmentation.layout import Kind, Layout

#: Roles of step 2 whose probabilities are refined, in the order of the channels; ``vertebrae`` holds the sacrum.
REFINED_ROLES = ("vertebrae", "disc", "canal", "cord")
#: What the image is measured by: ``around`` is what is near bone and none of the roles.
_MEASURES = ("vertebrae", "disc", "canal", "around")
#: Channels: the image, a logit for each role, the image measured by each.
CHANNELS = 1 + len(REFINED_ROLES) + len(_MEASURES)
#: Channels that hold logits, and what they are divided by.
PRIOR_CHANNELS = tuple(range(1, 1 + len(REFINED_ROLES)))
PRIOR_SCALE = 4.0
#: Around what step 2 found; the refining network moves no border farther than a few millimetres.
MARGIN_MM = 8.0

_BLOCK = 2
#: Standard deviation of the neighbourhood in blocks (of 2 mm).
_SIGMA = 2.0
_SURE, _NONE = 0.85, 0.15
_NEAR_SHARE, _NEAR_SIGMA = 0.02, 1.5
_LEAST_LOGIT = 1e-3
_LEAST_WEIGHT, _LEAST_VARIANCE = 1e-3, 0.003
_LARGEST = 4.0
#: A voxel that is given to a structure gets the class of the nearest voxel of its kind, if that is not farther, mm.
_REACH_MM = 5.0

#: Kinds of each role.
_KINDS: dict[str, tuple[Kind, ...]] = {
    "vertebrae": (Kind.VERTEBRA, Kind.SACRUM),
    "disc": (Kind.DISC,),
    "canal": (Kind.CANAL,),
    "cord": (Kind.CORD,),
}


def standardised(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image with mean 0 and standard deviation 1."""
    result: NDArray[np.float32] = (image - image.mean()) / max(float(image.std()), 1e-6)
    return result.astype(np.float32, copy=False)


def refinement_channels(
    image: NDArray[np.float32], probabilities: Mapping[str, NDArray[np.floating]]
) -> NDArray[np.float32]:
    """Return what the refining network sees.

    Parameters
    ----------
    image
        Standardised intensities, shape (X, Y, Z), 1 mm.
    probabilities
        Of step 2, by role, same shape; all of `REFINED_ROLES`.

    Returns
    -------
    NDArray[np.float32]
        Shape (CHANNELS, X, Y, Z).
    """
    channels = np.empty((CHANNELS, *image.shape), np.float32)
    channels[0] = image
    for row, role in enumerate(REFINED_ROLES, start=1):
        p = np.clip(probabilities[role], _LEAST_LOGIT, 1 - _LEAST_LOGIT).astype(np.float32)
        channels[row] = np.log(p / (1 - p)) / PRIOR_SCALE
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    chance = {role: torch.from_numpy(np.asarray(probabilities[role], np.float32)) for role in REFINED_ROLES}
    outside = torch.ones(image.shape)
    for role in REFINED_ROLES:
        outside *= chance[role] < _NONE
    near = _smooth(_pooled((chance["vertebrae"] > 0.3).float()), _NEAR_SIGMA) > _NEAR_SHARE
    sure = {
        "vertebrae": chance["vertebrae"] > _SURE,
        "disc": chance["disc"] > _SURE,
        "canal": (chance["canal"] > _SURE) & (chance["cord"] < _NONE),
        "around": outside > 0,
    }
    for row, name in enumerate(_MEASURES, start=1 + len(REFINED_ROLES)):
        weight = sure[name].float()
        parts = [_pooled(weight * power) for power in (torch.ones(()), tensor, tensor * tensor)]
        if name == "around":
            parts = [part * near for part in parts]
        count, first, second = (_smooth(part, _SIGMA) for part in parts)
        count = count + _LEAST_WEIGHT
        mean = first / count
        spread = np.sqrt(np.maximum(second / count - mean * mean, _LEAST_VARIANCE))
        channels[row] = ((tensor - _full(mean, image.shape)) / _full(spread, image.shape)).clip(-_LARGEST, _LARGEST)
    return channels


def _pooled(values: torch.Tensor) -> NDArray[np.float32]:
    """Return the mean of blocks; what lies beyond the end counts as nothing."""
    pooled: NDArray[np.float32] = functional.avg_pool3d(values[None, None], _BLOCK, ceil_mode=True)[0, 0].numpy()
    return pooled


def _smooth(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(values, sigma, truncate=2.5)
    return smooth


def _full(blocks: NDArray[np.float32], shape: tuple[int, ...]) -> torch.Tensor:
    """Interpolate a value a block to its voxels."""
    fine = functional.interpolate(
        torch.from_numpy(blocks.astype(np.float32))[None, None], scale_factor=_BLOCK, mode="trilinear"
    )
    return fine[0, 0, : shape[0], : shape[1], : shape[2]]


def taken_over(
    labels: NDArray[np.uint8], layout: Layout, refined: NDArray[np.uint8], refined_layout: Layout
) -> NDArray[np.uint8]:
    """Move the borders in a map of step 2 to where the refining network has them.

    Parameters
    ----------
    labels
        Map of step 2, shape (X, Y, Z), 1 mm.
    layout
        Meaning of its integers.
    refined, refined_layout
        Map of the refining network, same shape, and the meaning of its integers.

    Returns
    -------
    NDArray[np.uint8]
        In the classes of step 2. A voxel whose kind changed gets the class of the nearest voxel that was of its new
        kind, and none where that is farther than a few millimetres.
    """
    before, after = layout.kinds(labels), refined_layout.kinds(refined)
    result = np.zeros_like(labels)
    for kinds in _KINDS.values():
        old, new = np.isin(before, kinds), np.isin(after, kinds)
        kept = old & new
        result[kept] = labels[kept]
        gained = new & ~old
        if not gained.any() or not old.any():
            continue
        # The nearest voxel of a part lies on its surface, and both are few beside the voxels of the box.
        surface = np.argwhere(old & ~ndimage.binary_erosion(old))
        wanted = np.argwhere(gained)
        distance, nearest = cKDTree(surface).query(wanted, distance_upper_bound=_REACH_MM, workers=-1)
        near = np.isfinite(distance)
        source, target = surface[np.asarray(nearest)[near]], wanted[near]
        result[tuple(target.T)] = labels[tuple(source.T)]
    return result
