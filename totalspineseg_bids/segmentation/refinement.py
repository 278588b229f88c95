"""Inputs of the refining network, and how its output changes the map of step 2.

Whether a dark voxel behind the canal is bone or muscle depends on the local brightness of bone and muscle, which coils,
fat and contrast change within and between images. Once step 2 has found most of the bone, this comparison can be
computed: the local mean and standard deviation of confident bone, disc, canal and surrounding tissue. The refining
network receives the image standardised by each of them and the probabilities of both steps. It moves the borders and
classifies vertebrae as odd or even again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from torch.nn import functional

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.grid import Box
from totalspineseg_bids.imaging.masks import apply_table, indices_of, surface_of
from totalspineseg_bids.segmentation.class_map import ClassMap, Parity

#: Roles that both steps have a probability of; ``vertebrae`` holds the sacrum.
TISSUES = ("vertebrae", "disc", "canal", "cord")
#: Alternating classes of vertebrae in step 2; here landmark vertebrae belong to one of the two as well.
PARITIES: dict[str, Parity] = {"vertebrae_O": Parity.ODD, "vertebrae_E": Parity.EVEN}
#: Refined roles, in the order of the outputs.
REFINED_ROLES = (*TISSUES, *PARITIES)
#: Tissues by which the image is standardised; ``around`` is near bone and none of the roles.
_MEASURES = ("vertebrae", "disc", "canal", "around")
#: Channels: the image, a logit per tissue, the image standardised by each measure, a logit per parity.
CHANNELS = 1 + len(REFINED_ROLES) + len(_MEASURES)
_MEASURED_FROM = 1 + len(TISSUES)
#: Channels that hold logits, in the order of the roles, and what they are divided by.
PRIOR_CHANNELS = (*range(1, _MEASURED_FROM), *range(_MEASURED_FROM + len(_MEASURES), CHANNELS))
PRIOR_SCALE = 4.0
#: Weight of step 1 in the logits of a tissue; averaging helps because the errors of the steps differ.
_SHARE_OF_STEP1 = 1 / 3
#: Margin around the foreground of step 2; the refining network moves no border farther than a few millimetres.
MARGIN_MM = 8.0

_BLOCK = 2
#: Whole blocks of the last axis that are computed at a time.
_PART_VOXELS = 64
#: Standard deviation of the neighbourhood in blocks (of 2 mm).
_SIGMA = 2.0
_SURE, _NONE = 0.85, 0.15
_NEAR_SHARE, _NEAR_SIGMA = 0.02, 1.5
_LEAST_LOGIT = 1e-3
_LEAST_WEIGHT, _LEAST_VARIANCE = 1e-3, 0.003
_LARGEST = 4.0
#: Maximum distance from a voxel added to a structure to the voxel whose class it gets, mm.
_REACH_MM = 5.0
#: The same for bone whose parity changed, mm; about the length of a process.
_PARITY_REACH_MM = 40.0

#: Kinds of each role.
_KINDS: dict[str, tuple[Structure, ...]] = {
    "vertebrae": (Structure.VERTEBRA, Structure.SACRUM),
    "disc": (Structure.DISC,),
    "canal": (Structure.CANAL,),
    "cord": (Structure.CORD,),
}


_REGULAR = SpineVariant().vertebrae()


def _parity_of(class_map: ClassMap, value: int) -> Parity:
    meaning = class_map.meanings.get(value)
    if meaning is None or meaning.kind is not Structure.VERTEBRA:
        return Parity.UNKNOWN
    if meaning.level in _REGULAR:
        return Parity.EVEN if _REGULAR.index(meaning.level) % 2 else Parity.ODD
    return meaning.parity


def parities(labels: NDArray[np.uint8], class_map: ClassMap) -> NDArray[np.uint8]:
    """Return the `Parity` of each voxel of vertebrae, same shape.

    A landmark vertebra has the parity of its position in a regular column. The sacrum and tissue other than bone have
    none.
    """
    return apply_table(labels, np.array([_parity_of(class_map, value) for value in range(256)], np.uint8))


def parity_outputs(class_map: ClassMap) -> dict[str, tuple[str, ...]]:
    """Map each name of `PARITIES` to the roles of step 2 that it joins, possibly none."""
    single = {role: _parity_of(class_map, values[0]) for role, values in class_map.labels.items() if len(values) == 1}
    return {name: tuple(role for role in single if single[role] is parity) for name, parity in PARITIES.items()}


def blend_probabilities(
    second: Mapping[str, NDArray[np.floating]], first: Mapping[str, NDArray[np.floating]]
) -> dict[str, NDArray[np.float32]]:
    """Blend the probabilities of step 2 with those of step 1.

    Parameters
    ----------
    second, first
        By role, all of one shape (X, Y, Z): `REFINED_ROLES` of step 2, `TISSUES` of step 1.

    Returns
    -------
    dict
        Probability of each of `REFINED_ROLES`, in [0, 1], same shape.
    """
    result = {role: np.asarray(second[role], np.float32) for role in PARITIES}
    for role in TISSUES:
        logits = _logits(second[role]).mul_(1 - _SHARE_OF_STEP1)
        result[role] = logits.add_(_logits(first[role]).mul_(_SHARE_OF_STEP1)).sigmoid_().numpy()
    return result


def _logits(probability: NDArray[np.floating]) -> torch.Tensor:
    return torch.logit(torch.from_numpy(probability).float(), _LEAST_LOGIT)


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
        Box around the foreground of step 2.
    image
        Intensities in the input of step 2, shape (X, Y, Z), over which they are standardised.
    second, first
        Probabilities of the steps by role, same shape (`blend_probabilities`).
    """
    cut = ({role: values[box] for role, values in found.items()} for found in (second, first))
    return np.ascontiguousarray(standardize_intensities(image)[box]), blend_probabilities(*cut)


def refinement_channels(
    image: NDArray[np.float32], probabilities: Mapping[str, NDArray[np.floating]]
) -> NDArray[np.float32]:
    """Compute the input channels of the refining network.

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
    # In the order of axes in which networks take them, so that they need not be copied.
    channels = np.empty((CHANNELS, *image.shape[::-1]), np.float32).transpose(0, 3, 2, 1)
    # Torch copies between orders of axes on all threads.
    rows = torch.from_numpy(channels)
    for row, role in zip(PRIOR_CHANNELS, REFINED_ROLES, strict=True):
        rows[row] = _logits(probabilities[role]).div_(PRIOR_SCALE)
    statistics = _local_statistics(image, probabilities)
    for part in _parts(image.shape[2]):
        tensor = torch.from_numpy(image[..., part])
        here = rows[..., part]
        here[0] = tensor
        for row, (mean, spread) in enumerate(statistics, start=_MEASURED_FROM):
            relative = _full(mean, image.shape, part).neg_().add_(tensor).div_(_full(spread, image.shape, part))
            here[row] = relative.clip_(-_LARGEST, _LARGEST)
    return channels


def _local_statistics(
    image: NDArray[np.float32], probabilities: Mapping[str, NDArray[np.floating]]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return local mean and standard deviation of each measure, one value per block."""
    blocks = [-(-length // _BLOCK) for length in image.shape]
    # Weight, weighted intensity and its square of each measure; bone.
    sums = np.empty((len(_MEASURES), 3, *blocks), np.float32)
    bone = np.empty(blocks, np.float32)
    for part in _parts(image.shape[2]):
        here = slice(part.start // _BLOCK, -(-part.stop // _BLOCK))
        tensor = torch.from_numpy(image[..., part])
        # Numpy compares several times faster than torch.
        found = {role: probabilities[role][..., part] > np.float32(_SURE) for role in TISSUES}
        absent = {role: probabilities[role][..., part] < np.float32(_NONE) for role in TISSUES}
        found["canal"] &= absent["cord"]
        found["around"] = np.logical_and.reduce(list(absent.values()))
        bone[..., here] = _pooled(_floats(probabilities["vertebrae"][..., part] > np.float32(0.3)))
        for measure, name in zip(sums, _MEASURES, strict=True):
            weight = _floats(found[name])
            for values in measure:
                values[..., here] = _pooled(weight)
                weight.mul_(tensor)
    sums[_MEASURES.index("around")] *= _smooth(bone, _NEAR_SIGMA) > _NEAR_SHARE
    return [_mean_and_spread(*measure) for measure in sums]


def _mean_and_spread(
    count: NDArray[np.float32], first: NDArray[np.float32], second: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    count, first, second = (_smooth(values, _SIGMA) for values in (count, first, second))
    count += _LEAST_WEIGHT
    mean = first / count
    return mean, np.sqrt(np.maximum(second / count - mean * mean, _LEAST_VARIANCE))


def _parts(length: int) -> Iterator[slice]:
    """Divide the last axis into parts of whole blocks, so that temporary arrays fit into the processor cache.

    A single voxel at the end belongs to the part before it, because torch pools no less than a block.
    """
    starts = range(0, max(length - 1, 1), _PART_VOXELS)
    for start in starts:
        yield slice(start, length if start == starts[-1] else start + _PART_VOXELS)


def _floats(mask: NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(mask).float()


def _pooled(values: torch.Tensor) -> NDArray[np.float32]:
    """Average over blocks; voxels beyond the end are ignored."""
    pooled: NDArray[np.float32] = functional.avg_pool3d(values[None, None], _BLOCK, ceil_mode=True)[0, 0].numpy()
    return pooled


def _smooth(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(values, sigma, truncate=2.5)
    return smooth


def _full(blocks: NDArray[np.float32], shape: tuple[int, ...], part: slice) -> torch.Tensor:
    """Interpolate one value per block to the voxels of a part along the last axis."""
    first = max(part.start // _BLOCK - 1, 0)
    known = torch.from_numpy(blocks[..., first : -(-part.stop // _BLOCK) + 1])
    fine = functional.interpolate(known[None, None], scale_factor=_BLOCK, mode="trilinear")[0, 0]
    start = part.start - first * _BLOCK
    return fine[: shape[0], : shape[1], start : start + part.stop - part.start]


def apply_refinement(
    labels: NDArray[np.uint8], class_map: ClassMap, refined: NDArray[np.uint8], refined_class_map: ClassMap
) -> NDArray[np.uint8]:
    """Move the borders in a map of step 2 to those of the refining network.

    Parameters
    ----------
    labels
        Map of step 2, shape (X, Y, Z), 1 mm.
    class_map
        Meaning of its integers.
    refined, refined_class_map
        Map of the refining network, same shape, and the meaning of its integers.

    Returns
    -------
    NDArray[np.uint8]
        Map in the classes of step 2. A voxel whose structure changed gets the class of the nearest voxel of its new
        structure, or background if that is farther than 5 mm; bone whose parity changed gets the class of the nearest
        bone of this parity, up to 40 mm away.
    """
    result = np.zeros_like(labels)
    for kinds in _KINDS.values():
        old, new = class_map.select(labels, *kinds), refined_class_map.select(refined, *kinds)
        np.copyto(result, labels, where=old & new)
        _take_nearest(result, new & ~old, labels, old, _REACH_MM)
    _take_parities(result, class_map, refined, refined_class_map)
    return result


def _take_parities(
    labels: NDArray[np.uint8], class_map: ClassMap, refined: NDArray[np.uint8], refined_class_map: ClassMap
) -> None:
    """Give bone of a map whose parity changed the class of the nearest bone that has this parity in both maps."""
    before, after = parities(labels, class_map), parities(refined, refined_class_map)
    for name, parity in PARITIES.items():
        # Bone without parity, such as the sacrum, keeps its class.
        changed = (after == parity) & (before != parity) & (before != Parity.UNKNOWN)
        labels[changed] = class_map.labels[name][0]
        # Bone that keeps its parity is only read, so that one array can be both source and target.
        _take_nearest(labels, changed, labels, (before == parity) & (after == parity), _PARITY_REACH_MM)


def _take_nearest(
    result: NDArray[np.uint8],
    target: NDArray[np.bool_],
    labels: NDArray[np.uint8],
    source: NDArray[np.bool_],
    reach_mm: float,
) -> None:
    """Write the class of the nearest source voxel into each target voxel of ``result`` within reach."""
    if not target.any() or not source.any():
        return
    # The nearest voxel lies on the surface of the source, which has few voxels.
    surface, targets = indices_of(surface_of(source)), indices_of(target)
    distance, nearest = cKDTree(surface).query(targets, distance_upper_bound=reach_mm, workers=-1)
    near = np.isfinite(distance)
    result[tuple(targets[near].T)] = labels[tuple(surface[np.asarray(nearest)[near]].T)]
