"""MR-like intensities on a tissue label map.

A tissue gets one random mean; what makes tissue look like tissue is added on top: cortical rims, disc nucleus and
annulus, dura, fat septa and vessels in muscle, roots in the canal, texture. The acquisition (slices, noise, bias
field) is a separate matter.

The approach is domain randomisation as in SynthSeg (Billot et al., Medical Image Analysis 2023), with part of the
draws ordered like common sequences, because the order of the tissues is what real images of one contrast share.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure

Contrast = Literal["T1w", "T2w", "STIR", "T2starw", "random"]
CONTRASTS: tuple[str, ...] = get_args(Contrast)

Array = NDArray[np.float32]

# Tissue groups; the ids below 18 are those of the tissue label maps.
_TISSUES = ("air", "soft", "muscle", "bone", "lung", "airway", "vessel", "organ", "brain", "fat")
_SPINE = ("marrow", "disc", "csf", "cord")
_GROUPS = (*_TISSUES, *_SPINE)

#: Relative intensity of each group by sequence (turbo spin echo at 1.5 T, read off typical images; 1 = brightest).
_SEQUENCES: dict[str, dict[str, float]] = {
    "T2w": {
        "air": 0.02, "soft": 0.50, "muscle": 0.20, "bone": 0.38, "lung": 0.05, "airway": 0.02, "vessel": 0.12,
        "organ": 0.35, "brain": 0.48, "fat": 0.80, "marrow": 0.42, "disc": 0.42, "csf": 1.00, "cord": 0.42,
    },
    "T1w": {
        "air": 0.02, "soft": 0.60, "muscle": 0.38, "bone": 0.52, "lung": 0.06, "airway": 0.02, "vessel": 0.20,
        "organ": 0.45, "brain": 0.50, "fat": 1.00, "marrow": 0.58, "disc": 0.38, "csf": 0.20, "cord": 0.46,
    },
    "STIR": {
        "air": 0.02, "soft": 0.25, "muscle": 0.28, "bone": 0.18, "lung": 0.06, "airway": 0.02, "vessel": 0.25,
        "organ": 0.45, "brain": 0.50, "fat": 0.08, "marrow": 0.20, "disc": 0.42, "csf": 1.00, "cord": 0.45,
    },
    "T2starw": {
        "air": 0.02, "soft": 0.45, "muscle": 0.38, "bone": 0.16, "lung": 0.04, "airway": 0.02, "vessel": 0.45,
        "organ": 0.42, "brain": 0.55, "fat": 0.55, "marrow": 0.15, "disc": 0.52, "csf": 0.95, "cord": 0.58,
    },
}  # fmt: skip


def _group_table() -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    table[: len(_TISSUES)] = np.arange(len(_TISSUES))
    marrow, disc, csf, cord = range(len(_TISSUES), len(_GROUPS))
    for label in anatomy.LABELS:
        group = {
            Structure.VERTEBRA: marrow,
            Structure.SACRUM: marrow,
            Structure.DISC: disc,
            Structure.CANAL: csf,
            Structure.CORD: cord,
        }[label.structure]
        table[label.id] = group
    return table


#: Tissue group of each label id, shape (256,).
GROUP_OF_LABEL: NDArray[np.uint8] = _group_table()
_G = {name: index for index, name in enumerate(_GROUPS)}


def smooth_noise(
    shape: tuple[int, ...], scale: tuple[float, ...] | float, rng: np.random.Generator, cutoff: int = 2
) -> Array:
    """Return smooth Gaussian noise of unit standard deviation.

    Parameters
    ----------
    shape
        Shape of the array.
    scale
        Distance between control points, voxels, for all axes or each; below ``cutoff`` an axis keeps full detail.
    rng
        Source of randomness.
    cutoff
        Control point distances below this are taken as 1.
    """
    scales = np.broadcast_to(np.asarray(scale, float), (len(shape),))
    coarse = tuple(n if s < cutoff else max(2, int(np.ceil(n / s)) + 1) for n, s in zip(shape, scales, strict=True))
    noise = rng.standard_normal(coarse, dtype=np.float32)
    noise /= max(float(noise.std()), 1e-6)
    # Trilinear interpolation lowers the spread of what lies between control points: by (2/3)^(1/2) along each axis.
    gain = np.prod([1.0 if c == n else np.sqrt(1.5) for c, n in zip(coarse, shape, strict=True)])
    if len(shape) == 3:
        return resize(noise * np.float32(gain), shape)
    for axis, n in enumerate(shape):
        noise = resize_axis(noise, n, axis)
    return noise * np.float32(gain)


def resize(array: Array, shape: tuple[int, ...]) -> Array:
    """Interpolate a 3D array linearly to a new shape (end points kept)."""
    if array.shape == shape:
        return array
    tensor = torch.from_numpy(np.ascontiguousarray(array))[None, None]
    resized: Array = functional.interpolate(tensor, shape, mode="trilinear", align_corners=True)[0, 0].numpy()
    return resized


def resize_axis(array: Array, length: int, axis: int) -> Array:
    """Interpolate an array linearly along one axis to a new length (end points kept)."""
    old = array.shape[axis]
    if old == 1:
        return np.repeat(array, length, axis)
    position = np.linspace(0, old - 1, length, dtype=np.float32)
    low = np.minimum(position.astype(np.intp), old - 2)
    weight = (position - low).astype(np.float32)
    weight = weight.reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    lower, upper = np.take(array, low, axis), np.take(array, low + 1, axis)
    result: Array = lower + weight * (upper - lower)
    return result


def draw_contrast(contrast: Contrast, rng: np.random.Generator) -> dict[str, float]:
    """Draw one mean intensity per tissue group.

    Named contrasts keep the order of the sequence's tissues with a spread; ``"random"`` draws each freely, in
    which only air and gas stay mostly dark and vertebral marrow stays mostly apart from its neighbours.
    """
    if contrast == "random":
        means = {group: float(rng.uniform(0.05, 1.0)) for group in _GROUPS}
        for dark in ("air", "airway", "lung"):
            if rng.random() < 0.85:
                means[dark] = float(rng.uniform(0.0, 0.08))
        means["bone"] = means["marrow"] * float(rng.uniform(0.8, 1.2))
        means["brain"] = means["cord"] * float(rng.uniform(0.9, 1.1))
        for one, other in (("marrow", "disc"), ("csf", "cord")):
            if abs(means[one] - means[other]) < 0.12:
                shift = float(rng.choice([-1.0, 1.0])) * float(rng.uniform(0.15, 0.4))
                means[other] = float(np.clip(means[one] + shift, 0.03, 1.2))
        return means
    means = {
        group: value * float(np.exp(rng.normal(0.0, 0.13))) + float(rng.normal(0.0, 0.015))
        for group, value in _SEQUENCES[contrast].items()
    }
    if contrast == "T2w":
        # Marrow fat and disc water vary with age more than anything else.
        means["marrow"] *= float(rng.uniform(0.6, 1.5))
        means["disc"] *= float(rng.uniform(0.45, 1.5))
        # Long echo times leave little but fluid: in many neck images bodies and muscle are nearly black.
        weighting = float(rng.uniform(0.85, 1.9))
        means = {group: max(value, 0.0) ** weighting for group, value in means.items()}
    return {group: max(value, 0.0) for group, value in means.items()}


def render(
    labels: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    contrast: Contrast = "random",
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Array:
    """Give a tissue label map MR-like intensities, before any effect of the acquisition.

    Parameters
    ----------
    labels
        Tissue label map, uint8, shape (X, Y, Z), RAS.
    rng
        Source of randomness; the same state gives the same image.
    contrast
        Sequence to resemble, or ``"random"``.
    spacing
        Voxel size, mm.

    Returns
    -------
    ndarray
        float32, non-negative, shape of ``labels``; the brightest tissue is around 1.
    """
    mm = np.asarray(spacing, np.float32)
    shape = labels.shape
    means = draw_contrast(contrast, rng)

    table = np.array([means[group] for group in _GROUPS], np.float32)[GROUP_OF_LABEL]
    jitter = np.exp(rng.normal(0.0, 0.05, 256)).astype(np.float32)
    discs = _G["disc"] == GROUP_OF_LABEL
    jitter[discs] *= np.exp(rng.normal(0.0, 0.18, int(np.count_nonzero(discs)))).astype(np.float32)
    image: Array = (table * jitter)[labels]
    groups = GROUP_OF_LABEL[labels]

    _muscle_structure(image, groups, means, mm, rng)
    _bone_structure(image, groups, means, mm, rng)
    _disc_structure(image, groups, means, mm, rng)
    _canal_structure(image, groups, means, mm, rng)

    fine = rng.standard_normal(shape, dtype=np.float32)
    medium = smooth_noise(shape, tuple(4.0 / mm), rng)
    coarse = smooth_noise(shape, tuple(14.0 / mm), rng)
    texture = np.array([rng.uniform(0.01, 0.05) for _ in _GROUPS], np.float32)
    for rough in ("organ", "soft", "vessel", "muscle", "bone"):
        texture[_G[rough]] *= 2.0
    texture[_G["air"]] = 0.004
    image *= 1.0 + texture[groups] * (1.2 * fine + 1.3 * medium + 1.5 * coarse)
    return np.maximum(image, 0.0, out=image)


def _muscle_structure(
    image: Array, groups: NDArray[np.uint8], means: dict[str, float], mm: Array, rng: np.random.Generator
) -> None:
    """Fat septa (level sets of a smooth field are sheets) and vessels (where two sheets meet are lines)."""
    shape = image.shape
    across, along = rng.uniform(7.0, 14.0), rng.uniform(25.0, 60.0)
    scale = (across / mm[0], across / mm[1], along / mm[2])
    first, second = smooth_noise(shape, scale, rng), smooth_noise(shape, scale, rng)
    muscle = (groups == _G["muscle"]) | (groups == _G["soft"])
    width = rng.uniform(0.03, 0.12)
    septa = muscle & (np.abs(first) < width)
    strength = np.float32(rng.uniform(0.2, 0.9))
    image[septa] += strength * (means["fat"] - image[septa])
    vessels = muscle & (np.abs(first) < 0.25) & (np.abs(second) < 0.25)
    image[vessels] += np.float32(rng.uniform(0.3, 1.0)) * (means["vessel"] - image[vessels])
    # Loose fat beside muscle: the label maps count visceral and intermuscular fat as soft tissue.
    soft = (groups == _G["soft"]) & (second > rng.uniform(-0.5, 1.5))
    image[soft] += np.float32(rng.uniform(0.3, 1.0)) * (means["fat"] - image[soft])


def _blurred(mask: NDArray[np.bool_], mm: Array, sigma_mm: float) -> Array:
    blurred: Array = ndimage.gaussian_filter(mask.astype(np.float32), sigma_mm / mm, truncate=2.5)
    return blurred


def _bone_structure(
    image: Array, groups: NDArray[np.uint8], means: dict[str, float], mm: Array, rng: np.random.Generator
) -> None:
    """Dark cortical rim, thicker in posterior elements because they are thin; patchy marrow."""
    bone = (groups == _G["marrow"]) | (groups == _G["bone"])
    depth = _blurred(bone, mm, float(rng.uniform(0.9, 1.5)))
    rim = np.clip((0.9 - depth) / 0.45, 0.0, 1.0) * bone
    cortical = np.float32(rng.uniform(0.02, 0.15) if rng.random() < 0.9 else means["marrow"])
    image += np.float32(rng.uniform(0.4, 1.0)) * rim * (cortical - image)
    patches = smooth_noise(image.shape, tuple(float(rng.uniform(6, 20)) / mm), rng)
    image[bone] *= 1.0 + np.float32(rng.uniform(0.0, 0.15)) * patches[bone]


def _disc_structure(
    image: Array, groups: NDArray[np.uint8], means: dict[str, float], mm: Array, rng: np.random.Generator
) -> None:
    """Nucleus and annulus differ, most in water-rich discs; the rim is dark."""
    disc = groups == _G["disc"]
    inner = _blurred(disc, mm, float(rng.uniform(1.5, 2.5)))
    strength = np.float32(rng.uniform(-0.2, 0.9))
    annulus = np.float32(rng.uniform(0.1, 0.6) * means["disc"])
    image += strength * disc * np.clip((0.8 - inner) / 0.5, 0.0, 1.0) * (annulus - image)


def _canal_structure(
    image: Array, groups: NDArray[np.uint8], means: dict[str, float], mm: Array, rng: np.random.Generator
) -> None:
    """Dura and ligaments around the canal, epidural fat behind it, roots and flow voids within."""
    csf = groups == _G["csf"]
    canal = csf | (groups == _G["cord"])
    near = _blurred(canal, mm, 1.2)
    rim = np.clip(near / 0.5, 0.0, 1.0) * (~canal & (groups != _G["marrow"]))
    ligament = np.float32(rng.uniform(0.02, 0.2))
    image += np.float32(rng.uniform(0.0, 0.9)) * rim * (ligament - image)
    edge = csf & (near < rng.uniform(0.5, 0.8))
    if rng.random() < 0.5:
        fat = smooth_noise(image.shape, tuple(12.0 / mm), rng) > rng.uniform(-0.5, 1.0)
        epidural = edge & fat
        image[epidural] += np.float32(rng.uniform(0.3, 0.9)) * (means["fat"] - image[epidural])
    roots = smooth_noise(image.shape, (2.5 / mm[0], 2.5 / mm[1], 60.0 / mm[2]), rng, cutoff=1)
    image[csf] += np.float32(rng.uniform(0.0, 0.6)) * (roots[csf] > 0.9) * (means["cord"] - image[csf])
    if rng.random() < 0.5:
        flow = smooth_noise(image.shape, tuple(18.0 / mm), rng)
        image[csf] *= 1.0 - np.float32(rng.uniform(0.1, 0.6)) * np.clip(flow[csf], 0.0, 1.0)
