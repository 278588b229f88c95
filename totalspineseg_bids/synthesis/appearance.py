"""MR-like intensities on a tissue label map.

Each tissue has one random mean intensity. Structure is added to it (`synthesis.structure`), then texture. Slices, noise
and bias field belong to the acquisition.

The approach is domain randomisation as in SynthSeg (Billot et al., Medical Image Analysis 2023). Part of the draws
follow the intensity order of common sequences, because real images of one contrast share the order of the tissues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.synthesis.arrays import NUMPY, Arrays, Draws, Image
from totalspineseg_bids.synthesis.structure import Tissue, add_structure, label_factors

Contrast = Literal["T1w", "T2w", "STIR", "T2starw", "random"]
CONTRASTS: tuple[Contrast, ...] = get_args(Contrast)

# Tissue groups; the ids below 18 are those of the tissue label maps.
_TISSUES = ("air", "soft", "muscle", "bone", "lung", "airway", "vessel", "organ", "brain", "fat", "endplate")
_SPINE = ("marrow", "disc", "csf", "cord")
_GROUPS = (*_TISSUES, *_SPINE)

#: Relative intensity of each group by sequence (turbo spin echo at 1.5 T, read off typical images; 1 = brightest).
_SEQUENCES: dict[str, dict[str, float]] = {
    "T2w": {
        "air": 0.02, "soft": 0.50, "muscle": 0.20, "bone": 0.38, "lung": 0.05, "airway": 0.02, "vessel": 0.12,
        "organ": 0.35, "brain": 0.48, "fat": 0.80, "marrow": 0.42, "disc": 0.42, "csf": 1.00,
        "cord": 0.42, "endplate": 0.10,
    },
    "T1w": {
        "air": 0.02, "soft": 0.60, "muscle": 0.38, "bone": 0.52, "lung": 0.06, "airway": 0.02, "vessel": 0.20,
        "organ": 0.45, "brain": 0.50, "fat": 1.00, "marrow": 0.58, "disc": 0.38, "csf": 0.20,
        "cord": 0.46, "endplate": 0.14,
    },
    "STIR": {
        "air": 0.02, "soft": 0.25, "muscle": 0.28, "bone": 0.18, "lung": 0.06, "airway": 0.02, "vessel": 0.25,
        "organ": 0.45, "brain": 0.50, "fat": 0.08, "marrow": 0.20, "disc": 0.42, "csf": 1.00,
        "cord": 0.45, "endplate": 0.08,
    },
    "T2starw": {
        "air": 0.02, "soft": 0.45, "muscle": 0.38, "bone": 0.16, "lung": 0.04, "airway": 0.02, "vessel": 0.45,
        "organ": 0.42, "brain": 0.55, "fat": 0.55, "marrow": 0.15, "disc": 0.52, "csf": 0.95,
        "cord": 0.58, "endplate": 0.10,
    },
}  # fmt: skip

#: Range of the logarithm of the ratio of a healthy to a fully degenerate disc, by sequence (assumed): degeneration is
#: loss of water.
_WATER_LOSS: dict[Contrast, tuple[float, float]] = {
    "T1w": (-0.1, 0.4), "T2w": (0.5, 2.0), "STIR": (0.5, 2.0), "T2starw": (0.3, 1.5), "random": (-0.8, 0.8),
}  # fmt: skip
#: Share of T1w images that are gradient echoes (MPRAGE, as in spine-generic), assumed.
_GRADIENT_ECHO = 0.25


_G = {name: index for index, name in enumerate(_GROUPS)}
#: Group of each `Structure`, in its order.
_GROUP_OF_STRUCTURE = np.array([_G[name] for name in ("air", "disc", "marrow", "marrow", "csf", "cord")], np.uint8)
#: Tissue group of each label id, shape (256,).
GROUP_OF_LABEL: NDArray[np.uint8] = _GROUP_OF_STRUCTURE[anatomy.STRUCTURES]
GROUP_OF_LABEL[: len(_TISSUES)] = np.arange(len(_TISSUES))


def draw_contrast(contrast: Contrast, rng: np.random.Generator) -> dict[str, float]:
    """Draw one mean intensity per tissue group.

    Named contrasts vary around the intensities of the sequence. ``"random"`` draws each tissue independently, except
    that air and gas are mostly dark and vertebral marrow mostly differs from its neighbours.
    """
    if contrast == "random":
        means = {group: float(rng.uniform(0.05, 1.0)) for group in _GROUPS if group != "endplate"}
        for dark in ("air", "airway", "lung"):
            if rng.random() < 0.85:
                means[dark] = float(rng.uniform(0.0, 0.08))
        means["bone"] = means["marrow"] * float(rng.uniform(0.8, 1.2))
        means["brain"] = means["cord"] * float(rng.uniform(0.9, 1.1))
        for one, other in (("marrow", "disc"), ("csf", "cord")):
            if abs(means[one] - means[other]) < 0.12:
                shift = float(rng.choice([-1.0, 1.0])) * float(rng.uniform(0.15, 0.4))
                means[other] = float(np.clip(means[one] + shift, 0.03, 1.2))
        # Calcified cartilage and cortical bone: darker than both neighbours, seldom like one of them.
        means["endplate"] = min(means["marrow"], means["disc"]) * float(
            rng.choice([rng.uniform(0.1, 0.7), 1.0], p=[0.9, 0.1])
        )
        return means
    means = {
        group: value * float(np.exp(rng.normal(0.0, 0.13))) + float(rng.normal(0.0, 0.015))
        for group, value in _SEQUENCES[contrast].items()
    }
    if contrast == "T2w":
        # Marrow fat and disc water vary most with age, muscle between subjects and sequences.
        means["marrow"] *= float(rng.uniform(0.6, 1.5))
        means["muscle"] *= float(rng.uniform(0.6, 1.9))
        means["disc"] *= float(rng.uniform(0.6, 1.7))
        # At long echo times mostly fluid gives signal: in many neck images bodies and muscle are nearly black.
        weighting = float(rng.uniform(0.85, 2.4))
        means = {group: max(value, 0.0) ** weighting for group, value in means.items()}
    if contrast == "T1w" and rng.random() < _GRADIENT_ECHO:
        # Trabecular bone dephases marrow; discs and cord are brighter than it.
        dephasing = float(rng.uniform(0.2, 0.6))
        means["marrow"] *= dephasing
        means["bone"] *= dephasing
        means["disc"] *= float(rng.uniform(1.0, 1.6))
    return {group: max(value, 0.0) for group, value in means.items()}


def render(
    labels: Image,
    rng: np.random.Generator,
    *,
    contrast: Contrast | Sequence[Contrast] = "random",
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    arrays: Arrays = NUMPY,
) -> Image:
    """Compute MR-like intensities of a tissue label map, before any effect of the acquisition.

    Parameters
    ----------
    labels : Image
        Tissue label map, uint8, shape (X, Y, Z), RAS; with torch also a group of maps, shape (N, X, Y, Z). Images of a
        group share the scales of noise and the width of rims; everything else is drawn for each image.
    rng : numpy.random.Generator
        Source of randomness; the same state gives the same image.
    contrast : Contrast or sequence of Contrast
        Sequence to imitate, or ``"random"``; for a group one per image.
    spacing : tuple of 3 float
        Voxel size, mm.
    arrays : Arrays
        Array library, which must hold the labels.

    Returns
    -------
    ndarray or Tensor
        float32, non-negative, shape of ``labels``; the brightest tissue is around 1.

    Examples
    --------
    >>> labels = np.full((16, 16, 16), 2, np.uint8)
    >>> labels[4:12, 4:12, 4:12] = 20
    >>> image = render(labels, np.random.default_rng(0), contrast="T1w")
    >>> image.shape, image.dtype.name, bool(image.min() >= 0)
    ((16, 16, 16), 'float32', True)
    """
    draws = Draws(tuple(labels.shape), rng, arrays)
    names: Sequence[Contrast] = [contrast] if isinstance(contrast, str) else contrast
    drawn = [draw_contrast(one, rng) for one in names]
    rows = np.array([[means[group] for group in _GROUPS] for means in drawn], np.float32)

    factors = label_factors([float(rng.uniform(*_WATER_LOSS[name])) for name in names], draws)
    image = arrays.lookup((rows[:, GROUP_OF_LABEL] * factors).reshape(factors.shape), labels)
    means = {group: draws.column([one[group] for one in drawn]) for group in _GROUPS}
    groups = arrays.lookup(GROUP_OF_LABEL, labels)
    tissue = Tissue(labels, groups, _G, means, np.asarray(spacing, np.float32), draws)
    image = add_structure(image, tissue)

    fine = arrays.normal(tuple(labels.shape), rng)
    medium = tissue.noise(4.0)
    coarse = tissue.noise(14.0)
    texture = rng.uniform(0.01, 0.05, draws.table(len(_GROUPS))).astype(np.float32)
    for rough in ("organ", "soft", "vessel", "muscle", "bone"):
        texture[..., _G[rough]] *= 2.0
    texture[..., _G["air"]] = 0.004
    image *= 1.0 + arrays.lookup(texture, tissue.groups) * (1.2 * fine + 1.3 * medium + 1.5 * coarse)
    return image.clip(0.0)
