"""MR-like intensities on a tissue label map.

Each tissue has one random mean intensity. Structure is added to it: cortical rims, disc nucleus and annulus, dura, fat
septa and vessels in muscle, roots in the canal, texture. Slices, noise and bias field belong to the acquisition.

The approach is domain randomisation as in SynthSeg (Billot et al., Medical Image Analysis 2023). Part of the draws
follow the intensity order of common sequences, because real images of one contrast share the order of the tissues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.synthesis.arrays import NUMPY, Arrays, Draws, Image, smooth_noise
from totalspineseg_bids.synthesis.rasterize import FloatArray

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
        # Marrow fat and disc water vary most with age.
        means["marrow"] *= float(rng.uniform(0.6, 1.5))
        means["disc"] *= float(rng.uniform(0.45, 1.5))
        # At long echo times mostly fluid gives signal: in many neck images bodies and muscle are nearly black.
        weighting = float(rng.uniform(0.85, 1.9))
        means = {group: max(value, 0.0) ** weighting for group, value in means.items()}
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
    """
    draws = Draws(tuple(labels.shape), rng, arrays)
    drawn = [draw_contrast(one, rng) for one in ([contrast] if isinstance(contrast, str) else contrast)]
    rows = np.array([[means[group] for group in _GROUPS] for means in drawn], np.float32)

    jitter = np.exp(rng.normal(0.0, 0.05, draws.table(256))).astype(np.float32)
    discs = _G["disc"] == GROUP_OF_LABEL
    of_discs = rng.normal(0.0, 0.18, draws.table(int(np.count_nonzero(discs))))
    jitter[..., discs] *= np.exp(of_discs).astype(np.float32)
    image = arrays.lookup((rows[:, GROUP_OF_LABEL] * jitter).reshape(jitter.shape), labels)
    means = {group: draws.column([one[group] for one in drawn]) for group in _GROUPS}
    tissue = _Tissue(arrays.lookup(GROUP_OF_LABEL, labels), means, np.asarray(spacing, np.float32), draws)

    for structure in (_muscle_structure, _bone_structure, _disc_structure, _canal_structure):
        image = structure(image, tissue)

    fine = arrays.normal(tuple(labels.shape), rng)
    medium = tissue.noise(4.0 / tissue.mm)
    coarse = tissue.noise(14.0 / tissue.mm)
    texture = rng.uniform(0.01, 0.05, draws.table(len(_GROUPS))).astype(np.float32)
    for rough in ("organ", "soft", "vessel", "muscle", "bone"):
        texture[..., _G[rough]] *= 2.0
    texture[..., _G["air"]] = 0.004
    image *= 1.0 + arrays.lookup(texture, tissue.groups) * (1.2 * fine + 1.3 * medium + 1.5 * coarse)
    return image.clip(0.0)


@dataclass(frozen=True, slots=True)
class _Tissue:
    """Labels and mean intensities of the tissue groups, with the random numbers of their structure."""

    groups: Image
    means: dict[str, Any]
    mm: FloatArray
    draws: Draws

    @property
    def rng(self) -> np.random.Generator:
        """Source of randomness."""
        return self.draws.rng

    @property
    def arrays(self) -> Arrays:
        """Array library."""
        return self.draws.arrays

    def mean(self, name: str) -> Any:  # noqa: ANN401 - a number, or one for each image
        """Return the mean intensity of a group."""
        return self.draws.each(self.means[name])

    def of(self, name: str) -> Image:
        """Return the mask of a group."""
        return self.groups == _G[name]

    def noise(self, scale: Sequence[float] | FloatArray, cutoff: int = 2) -> Image:
        """Draw smooth noise; distance between control points in voxels."""
        return smooth_noise(tuple(self.groups.shape), scale, self.rng, cutoff, self.arrays)

    def blurred(self, mask: Image, sigma_mm: float) -> Image:
        """Smooth a mask."""
        return self.arrays.blurred(mask, sigma_mm / self.mm)


def _muscle_structure(image: Image, tissue: _Tissue) -> Image:
    """Add fat septa (sheets, from level sets of a smooth field) and vessels (lines, where two sheets meet)."""
    rng, mm, arrays, draws, fat = tissue.rng, tissue.mm, tissue.arrays, tissue.draws, tissue.mean("fat")
    across, along = rng.uniform(7.0, 14.0), rng.uniform(25.0, 60.0)
    scale = (across / mm[0], across / mm[1], along / mm[2])
    first, second = tissue.noise(scale), tissue.noise(scale)
    muscle = tissue.of("muscle") | tissue.of("soft")
    septa = muscle & (abs(first) < draws.uniform(0.03, 0.12))
    image = arrays.blend(image, septa, draws.uniform(0.2, 0.9), fat)
    vessels = muscle & (abs(first) < 0.25) & (abs(second) < 0.25)
    image = arrays.blend(image, vessels, draws.uniform(0.3, 1.0), tissue.mean("vessel"))
    # Fat beside muscle: the label maps count visceral and intermuscular fat as soft tissue.
    loose = tissue.of("soft") & (second > draws.uniform(-0.5, 1.5))
    return arrays.blend(image, loose, draws.uniform(0.3, 1.0), fat)


def _bone_structure(image: Image, tissue: _Tissue) -> Image:
    """Add dark cortical rims, which are thicker in posterior elements, and patchy marrow."""
    rng, draws = tissue.rng, tissue.draws
    bone = tissue.of("marrow") | tissue.of("bone")
    depth = tissue.blurred(bone, float(rng.uniform(0.9, 1.5)))
    rim = ((0.9 - depth) / 0.45).clip(0.0, 1.0) * bone
    cortical = draws.either(0.9, lambda: draws.numbers(0.02, 0.15), lambda: tissue.means["marrow"])
    image += draws.uniform(0.4, 1.0) * rim * (cortical - image)
    patches = tissue.noise(float(rng.uniform(6, 20)) / tissue.mm)
    return tissue.arrays.multiplied(image, bone, 1.0 + draws.uniform(0.0, 0.15) * patches)


def _disc_structure(image: Image, tissue: _Tissue) -> Image:
    """Add nucleus and annulus, which differ most in water-rich discs, and a dark rim."""
    draws = tissue.draws
    disc = tissue.of("disc")
    inner = tissue.blurred(disc, float(tissue.rng.uniform(1.5, 2.5)))
    strength = draws.uniform(-0.2, 0.9)
    annulus = draws.uniform(0.1, 0.6) * tissue.mean("disc")
    image += strength * (disc * ((0.8 - inner) / 0.5).clip(0.0, 1.0)) * (annulus - image)
    return image


def _canal_structure(image: Image, tissue: _Tissue) -> Image:
    """Add dura and ligaments around the canal, epidural fat behind it, roots and flow voids in it."""
    mm, arrays, draws = tissue.mm, tissue.arrays, tissue.draws
    csf = tissue.of("csf")
    canal = csf | tissue.of("cord")
    near = tissue.blurred(canal, 1.2)
    rim = (near / 0.5).clip(0.0, 1.0) * (~canal & ~tissue.of("marrow"))
    ligament = draws.uniform(0.02, 0.2)
    image += draws.uniform(0.0, 0.9) * rim * (ligament - image)
    edge = csf & (near < draws.uniform(0.5, 0.8))
    if (fatty := draws.some(0.5)) is not None:
        fat = tissue.noise(12.0 / mm) > draws.uniform(-0.5, 1.0)
        image = arrays.blend(image, edge & fat, fatty * draws.uniform(0.3, 0.9), tissue.mean("fat"))
    roots = tissue.noise((2.5 / mm[0], 2.5 / mm[1], 60.0 / mm[2]), cutoff=1)
    image = arrays.blend(image, csf & (roots > 0.9), draws.uniform(0.0, 0.6), tissue.mean("cord"))
    if (flowing := draws.some(0.5)) is not None:
        flow = tissue.noise(18.0 / mm)
        image = arrays.multiplied(image, csf, 1.0 - flowing * draws.uniform(0.1, 0.6) * flow.clip(0.0, 1.0))
    return image
