"""What a refining network sees of an image and of what the steps found there, and how its answer is taken over.

Whether a dark voxel behind the canal is bone or muscle depends on how bright bone and muscle are *there*: coils, fat
and contrast change that within one image and between images. Step 2 has to learn to compare. Once it has found most of
the bone, the comparison can be computed: the mean and spread of what is surely bone, disc, canal or none of these
within a few millimetres. The refining network gets the image measured by each of them, beside the probabilities of
the steps, and moves the borders. With the borders it sees which bone hangs together, and tells odd from even again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch.nn import functional

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.grid import Box
from totalspineseg_bids.imaging.masks import apply_table
from totalspineseg_bids.segmentation.class_map import ClassMap, Parity

#: Roles that both steps have a probability of; ``vertebrae`` holds the sacrum.
TISSUES = ("vertebrae", "disc", "canal", "cord")
#: Vertebrae told apart by step 2; here the landmark vertebrae are of one of the two as well.
PARITIES: dict[str, Parity] = {"vertebrae_O": Parity.ODD, "vertebrae_E": Parity.EVEN}
#: What is refined, in the order of the outputs.
REFINED_ROLES = (*TISSUES, *PARITIES)
#: What the image is measured by: ``around`` is what is near bone and none of the roles.
_MEASURES = ("vertebrae", "disc", "canal", "around")
#: Channels: the image, a logit for each tissue, the image measured by each, a logit for each parity.
CHANNELS = 1 + len(REFINED_ROLES) + len(_MEASURES)
_MEASURED_FROM = 1 + len(TISSUES)
#: Channels that hold logits, in the order of the roles, and what they are divided by.
PRIOR_CHANNELS = (*range(1, _MEASURED_FROM), *range(_MEASURED_FROM + len(_MEASURES), CHANNELS))
PRIOR_SCALE = 4.0
#: Part of step 1 in the logits of a tissue: both steps err, and not in the same voxels.
_SHARE_OF_STEP1 = 1 / 3
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
#: The same for a voxel of bone of the other parity than step 2 had it: a process is as long.
_PARITY_REACH_MM = 40.0

#: Kinds of each role.
_KINDS: dict[str, tuple[Structure, ...]] = {
    "vertebrae": (Structure.VERTEBRA, Structure.SACRUM),
    "disc": (Structure.DISC,),
    "canal": (Structure.CANAL,),
    "cord": (Structure.CORD,),
}


_REGULAR = SpineVariant().vertebrae()


def _parity_of(layout: ClassMap, value: int) -> Parity:
    meaning = layout.meanings.get(value)
    if meaning is None or meaning.kind is not Structure.VERTEBRA:
        return Parity.UNKNOWN
    if meaning.level in _REGULAR:
        return Parity.EVEN if _REGULAR.index(meaning.level) % 2 else Parity.ODD
    return meaning.parity


def parities(labels: NDArray[np.uint8], layout: ClassMap) -> NDArray[np.uint8]:
    """Return the `Parity` of each voxel of vertebrae, same shape.

    A landmark vertebra has that of its place in a regular column; what step 2 does not tell apart, as the sacrum, and
    all that is no bone have none.
    """
    return apply_table(labels, np.array([_parity_of(layout, value) for value in range(256)], np.uint8))


def parity_outputs(layout: ClassMap) -> dict[str, tuple[str, ...]]:
    """Return the names of `PARITIES` with the roles of step 2 that each joins; of no role where step 2 has none."""
    single = {role: _parity_of(layout, values[0]) for role, values in layout.labels.items() if len(values) == 1}
    return {name: tuple(role for role in single if single[role] is parity) for name, parity in PARITIES.items()}


def blend_probabilities(
    second: Mapping[str, NDArray[np.floating]], first: Mapping[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.float32]]:
    """Return the probabilities of step 2 with something of those of step 1.

    Parameters
    ----------
    second, first
        By role, of one shape; all of `REFINED_ROLES`, and of `TISSUES`.

    Returns
    -------
    dict
        Of `REFINED_ROLES`.
    """
    result = {role: np.asarray(second[role], np.float32) for role in PARITIES}
    for role in TISSUES:
        logits = (1 - _SHARE_OF_STEP1) * _logits(second[role]) + _SHARE_OF_STEP1 * _logits(first[role])
        result[role] = torch.sigmoid(torch.from_numpy(logits)).numpy()
    return result


def _logits(probability: NDArray[np.floating]) -> NDArray[np.float32]:
    values = torch.from_numpy(np.asarray(probability, np.float32))
    logits: NDArray[np.float32] = torch.logit(values, _LEAST_LOGIT).numpy()
    return logits


def standardize_intensities(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image with mean 0 and standard deviation 1."""
    result: NDArray[np.float32] = (image - image.mean()) / max(float(image.std()), 1e-6)
    return result.astype(np.float32, copy=False)


def crop_inputs(
    box: Box,
    image: NDArray[np.float32],
    second: Mapping[str, NDArray[np.floating]],
    first: Mapping[str, NDArray[np.floating]],
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Return the image and the probabilities of both steps as `refinement_channels` takes them, cut to a box.

    Parameters
    ----------
    box
        Around what step 2 found.
    image
        Intensities in the box that step 2 saw, shape (X, Y, Z), by which they are standardize_intensities.
    second, first
        Probabilities of the steps by role, same shape (`blend_probabilities`).
    """
    cut = ({role: values[box] for role, values in found.items()} for found in (second, first))
    return standardize_intensities(image)[box], blend_probabilities(*cut)


def refinement_channels(
    image: NDArray[np.float32], probabilities: Mapping[str, NDArray[np.floating]]
) -> NDArray[np.float32]:
    """Return what the refining network sees.

    Parameters
    ----------
    image
        Standardised intensities, shape (X, Y, Z), 1 mm.
    probabilities
        By role, same shape; all of `REFINED_ROLES` (`blend_probabilities`).

    Returns
    -------
    NDArray[np.float32]
        Shape (CHANNELS, X, Y, Z).
    """
    channels = np.empty((CHANNELS, *image.shape), np.float32)
    channels[0] = image
    for row, role in zip(PRIOR_CHANNELS, REFINED_ROLES, strict=True):
        channels[row] = _logits(probabilities[role]) / PRIOR_SCALE
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    chance = {role: torch.from_numpy(np.asarray(probabilities[role], np.float32)) for role in TISSUES}
    outside = torch.ones(image.shape)
    for role in TISSUES:
        outside *= chance[role] < _NONE
    near = _smooth(_pooled((chance["vertebrae"] > 0.3).float()), _NEAR_SIGMA) > _NEAR_SHARE
    sure = {
        "vertebrae": chance["vertebrae"] > _SURE,
        "disc": chance["disc"] > _SURE,
        "canal": (chance["canal"] > _SURE) & (chance["cord"] < _NONE),
        "around": outside > 0,
    }
    for row, name in enumerate(_MEASURES, start=_MEASURED_FROM):
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


def apply_refinement(
    labels: NDArray[np.uint8], layout: ClassMap, refined: NDArray[np.uint8], refined_layout: ClassMap
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
        kind, and none where that is farther than a few millimetres; bone whose parity changed that of the nearest
        bone of this parity.
    """
    before, after = layout.kinds(labels), refined_layout.kinds(refined)
    result = np.zeros_like(labels)
    for kinds in _KINDS.values():
        old, new = np.isin(before, kinds), np.isin(after, kinds)
        kept = old & new
        result[kept] = labels[kept]
        _take_nearest(result, new & ~old, labels, old, _REACH_MM)
    _take_parities(result, layout, refined, refined_layout)
    return result


def _take_parities(
    labels: NDArray[np.uint8], layout: ClassMap, refined: NDArray[np.uint8], refined_layout: ClassMap
) -> None:
    """Give bone of a map whose parity changed the class of the nearest bone that has this parity in both maps."""
    before, after = parities(labels, layout), parities(refined, refined_layout)
    for name, parity in PARITIES.items():
        # What has no parity, as the sacrum, keeps its class.
        changed = (after == parity) & (before != parity) & (before != Parity.UNKNOWN)
        labels[changed] = layout.labels[name][0]
        # What keeps its parity is not written to, so that the map it is read from may be the one that is written.
        _take_nearest(labels, changed, labels, (before == parity) & (after == parity), _PARITY_REACH_MM)


def _take_nearest(
    result: NDArray[np.uint8],
    wanted: NDArray[np.bool_],
    labels: NDArray[np.uint8],
    source: NDArray[np.bool_],
    reach_mm: float,
) -> None:
    """Write into ``result`` the class of the nearest voxel of the source for each wanted one within reach."""
    if not wanted.any() or not source.any():
        return
    # The nearest voxel of a part lies on its surface, and both are few beside the voxels of the box.
    surface = np.argwhere(source & ~ndimage.binary_erosion(source))
    targets = np.argwhere(wanted)
    distance, nearest = cKDTree(surface).query(targets, distance_upper_bound=reach_mm, workers=-1)
    near = np.isfinite(distance)
    result[tuple(targets[near].T)] = labels[tuple(surface[np.asarray(nearest)[near]].T)]
