"""Structure inside the tissues of synthetic images: muscle, bone, discs, canal and metal.

Parts of vertebrae (endplate changes, basivertebral veins) are found from smoothed masks instead of the positions of
labels, so that images of a group on a GPU need no synchronization.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.synthesis.arrays import Arrays, Draws, Image, smooth_noise
from totalspineseg_bids.synthesis.rasterize import FloatArray

_DISCS: NDArray[np.intp] = np.array([x.id for x in anatomy.LABELS if x.structure is Structure.DISC])
_VERTEBRAE: NDArray[np.intp] = np.array([x.id for x in anatomy.LABELS if x.structure is Structure.VERTEBRA])
#: Shares of images with endplate changes, vertebrae of other signal, and gas in discs, and of labels in them (assumed).
MODIC, ODD_VERTEBRA, VACUUM = (0.25, 0.25), (0.15, 0.08), (0.15, 0.2)
#: Shares of images with focal lesions, visible basivertebral veins, fatty muscles, and metal (assumed).
LESIONS, VEINS, ATROPHY, METAL = 0.12, 0.5, 0.6, 0.04


@dataclass(frozen=True, slots=True)
class Tissue:
    """Labels and mean intensities of the tissue groups, with the random numbers of their structure."""

    labels: Image
    """Tissue label map."""
    groups: Image
    """Tissue group of each voxel."""
    index: dict[str, int]
    """Number of each group."""
    means: dict[str, Any]
    """Mean intensity of each group."""
    mm: FloatArray
    """Voxel size, mm."""
    draws: Draws
    """Random numbers of the image, or of the images of a group."""

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

    def of(self, *names: str) -> Image:
        """Return the mask of one or more groups."""
        first, *others = (self.groups == self.index[name] for name in names)
        for other in others:
            first = first | other
        return first

    def noise(self, scale_mm: float | tuple[float, float, float], cutoff: int = 2) -> Image:
        """Draw smooth noise; distance between control points in mm."""
        return smooth_noise(tuple(self.groups.shape), np.asarray(scale_mm) / self.mm, self.rng, cutoff, self.arrays)

    def blurred(self, mask: Image, sigma_mm: float | tuple[float, float, float]) -> Image:
        """Smooth a mask."""
        return self.arrays.blurred(mask, np.asarray(sigma_mm) / self.mm)

    def nearness(self, mask: Image, sigma_mm: float) -> Image:
        """Smooth a mask over several voxels, on a coarser grid."""
        shape, arrays = tuple(self.groups.shape), self.arrays
        step = [max(1, int(sigma_mm / (2.0 * mm))) if n > 8 else 1 for n, mm in zip(shape[-3:], self.mm, strict=True)]
        coarse = arrays.contiguous(mask[..., :: step[0], :: step[1], :: step[2]])
        near = arrays.blurred(coarse, sigma_mm / (self.mm * step))
        for axis, n in zip((-3, -2, -1), shape[-3:], strict=True):
            near = arrays.resize_axis(near, n, axis)
        return near


def _choose(ids: NDArray[np.intp], shares: tuple[float, float], draws: Draws) -> NDArray[np.float32]:
    """Choose a share of labels in a share of images: 1 for those, shape (256,) or (N, 256)."""
    table = np.zeros(draws.table(256), np.float32)
    affected = draws.rng.random(draws.table(1)) < shares[0]
    table[..., ids] = affected & (draws.rng.random(draws.table(len(ids))) < shares[1])
    return table


def label_factors(water_loss: Sequence[float], draws: Draws) -> NDArray[np.float32]:
    """Draw the factor of each label's intensity: degeneration of discs, signal of single vertebrae, small differences.

    Parameters
    ----------
    water_loss : sequence of float
        For each image, logarithm of the ratio of a healthy to a fully degenerate disc.
    draws : Draws
        Random numbers.

    Returns
    -------
    ndarray of float32
        Shape (256,), or (N, 256) for a group.
    """
    rng = draws.rng
    factors = rng.normal(0.0, 0.05, draws.table(256))
    # Degeneration from 0 to 1 (Pfirrmann grades I to V); discs of one spine resemble each other.
    grade = rng.uniform(0.0, 0.9, draws.table(1)) + rng.normal(0.0, 0.3, draws.table(len(_DISCS)))
    factors[..., _DISCS] += np.reshape(water_loss, draws.table(1)) * (0.4 - grade.clip(0.0, 1.0))
    factors += _choose(_VERTEBRAE, ODD_VERTEBRA, draws) * rng.normal(0.0, 0.5, factors.shape)
    return np.exp(factors).astype(np.float32)


def add_structure(image: Image, tissue: Tissue) -> Image:
    """Add the structure of all tissues to an image of their mean intensities; may change the image in place."""
    for structure in (_muscle, _marrow, _cortex, _discs, _canal, _metal):
        image = structure(image, tissue)
    return image


def _muscle(image: Image, tissue: Tissue) -> Image:
    """Add fat septa (sheets), vessels (lines, where two sheets meet), and fat streaks that grow with atrophy."""
    rng, arrays, draws, fat = tissue.rng, tissue.arrays, tissue.draws, tissue.mean("fat")
    across, along = rng.uniform(7.0, 14.0), rng.uniform(25.0, 60.0)
    first, second = (tissue.noise((across, across, along)) for _ in range(2))
    soft, muscle = tissue.of("soft"), tissue.of("muscle")
    either = muscle | soft
    septa = either & (abs(first) < draws.uniform(0.03, 0.12))
    image = arrays.blend(image, septa, draws.uniform(0.2, 0.9), fat)
    vessels = either & (abs(first) < 0.25) & (abs(second) < 0.25)
    image = arrays.blend(image, vessels, draws.uniform(0.3, 1.0), tissue.mean("vessel"))
    # Atrophy: fat replaces fascicles, most beside the spine, and more on one side.
    if (atrophic := draws.some(ATROPHY)) is not None:
        fine = float(rng.uniform(2.5, 5.0))
        streaks = tissue.noise((fine, fine, fine * float(rng.uniform(3.0, 8.0))), cutoff=1)
        near = draws.uniform(0.5, 6.0) * tissue.nearness(tissue.of("marrow"), 10.0)
        side = arrays.on(np.linspace(-1.0, 1.0, image.shape[-3], dtype=np.float32)[:, None, None])
        share = streaks + near + draws.normal(0.0, 0.4) * side - draws.uniform(0.8, 2.6)
        image += (atrophic * draws.uniform(0.4, 1.0)) * (muscle * (share / 0.6).clip(0.0, 1.0)) * (fat - image)
    # Fat beside muscle: the label maps count visceral and intermuscular fat as soft tissue.
    loose = soft & (second > draws.uniform(-0.5, 1.5))
    return arrays.blend(image, loose, draws.uniform(0.3, 1.0), fat)


def _marrow(image: Image, tissue: Tissue) -> Image:
    """Add patchy marrow, endplate changes (Modic), focal lesions such as haemangiomas, and basivertebral veins."""
    rng, arrays, draws = tissue.rng, tissue.arrays, tissue.draws
    marrow = tissue.of("marrow")
    patches = tissue.noise(float(rng.uniform(6, 20)))
    image = arrays.multiplied(image, marrow | tissue.of("bone"), 1.0 + draws.uniform(0.0, 0.15) * patches)
    if (discs := _choose(_DISCS, MODIC, draws)).any():
        near = tissue.nearness(arrays.lookup(discs, tissue.labels), 4.0) + 0.06 * patches
        image = arrays.blend(
            image, marrow & (near > draws.uniform(0.06, 0.2)), draws.uniform(0.3, 0.9), _lesion_signal(tissue)
        )
    if (some := draws.some(LESIONS)) is not None:
        focal = marrow & (tissue.noise(float(rng.uniform(7.0, 16.0))) > draws.uniform(1.7, 2.6))
        image = arrays.blend(image, focal, some * draws.uniform(0.3, 1.0), _lesion_signal(tissue))
    if (some := draws.some(VEINS)) is not None:
        # The vein leaves a body in the middle of its back: in front of the canal and far from the discs.
        canal = tissue.of("csf", "cord")
        reach = min(max(1, round(float(rng.uniform(4.0, 14.0) / tissue.mm[1]))), canal.shape[-2] - 1)
        in_front = arrays.xp.concatenate([canal[..., -reach:, :], canal[..., :-reach, :]], -2)
        veins = marrow & in_front & (tissue.nearness(tissue.of("disc"), 5.0) < draws.uniform(0.01, 0.05))
        image = arrays.blend(image, veins, some * draws.uniform(0.1, 0.7), tissue.mean("csf"))
    return image


def _lesion_signal(tissue: Tissue) -> Any:  # noqa: ANN401 - a number, or one for each image
    """Draw the signal of changed marrow: of water (oedema, Modic I), fat (Modic II) or sclerosis (Modic III)."""
    kind, means = tissue.draws.numbers(0.0, 1.0), tissue.means
    return tissue.draws.each(np.where(kind < 0.4, means["csf"], np.where(kind < 0.8, means["fat"], 0.05)))


def _cortex(image: Image, tissue: Tissue) -> Image:
    """Add dark cortical rims, which are thicker in posterior elements."""
    rng, draws = tissue.rng, tissue.draws
    bone = tissue.of("marrow", "bone")
    depth = tissue.blurred(bone, float(rng.uniform(0.9, 1.5)))
    rim = ((0.9 - depth) / 0.45).clip(0.0, 1.0) * bone
    cortical = draws.either(0.9, lambda: draws.numbers(0.02, 0.15), lambda: tissue.means["marrow"])
    image += draws.uniform(0.4, 1.0) * rim * (cortical - image)
    return image


def _discs(image: Image, tissue: Tissue) -> Image:
    """Add the annulus, dark in front, behind and at the sides, and black patches of gas in degenerate discs."""
    arrays, draws = tissue.arrays, tissue.draws
    disc = tissue.of("disc")
    width = float(tissue.rng.uniform(2.0, 6.5))
    inner = tissue.blurred(disc, (width, width, 0.5))
    strength = draws.uniform(-0.1, 1.0)
    annulus = (disc * ((0.9 - inner) / 0.4).clip(0.0, 1.0)) * (1.0 - draws.uniform(0.1, 0.7))
    image *= 1.0 - strength * annulus
    if (gas := _choose(_DISCS, VACUUM, draws)).any():
        black = (arrays.lookup(gas, tissue.labels) > 0) & (tissue.noise((9.0, 9.0, 3.0)) > draws.uniform(-0.3, 0.8))
        image = arrays.blend(image, black, draws.uniform(0.6, 1.0), 0.02)
    return image


def _canal(image: Image, tissue: Tissue) -> Image:
    """Add dura and ligaments around the dural sac, epidural fat and veins, and roots and flow voids in the sac."""
    arrays, draws = tissue.arrays, tissue.draws
    csf, soft = tissue.of("csf"), tissue.of("soft")
    canal = csf | tissue.of("cord")
    near = tissue.blurred(canal, 1.2)
    if (fatty := draws.some(0.5)) is not None:
        # Where a label map has no epidural fat, soft tissue beside the sac stands for it.
        fat = soft & (near > 0.02) & (tissue.noise(12.0) > draws.uniform(-0.5, 1.0))
        image = arrays.blend(image, fat, fatty * draws.uniform(0.3, 0.9), tissue.mean("fat"))
    # The dura is thin; where no fat is beside it, ligaments are as dark.
    fat = arrays.xp.asarray(tissue.of("fat"), dtype=arrays.xp.float32)
    rim = ((near - 0.3 * fat) / 0.5).clip(0.0, 1.0) * (~canal & ~tissue.of("marrow"))
    ligament = draws.uniform(0.02, 0.2)
    image += draws.uniform(0.0, 0.9) * rim * (ligament - image)
    roots = tissue.noise((2.5, 2.5, 60.0), cutoff=1)
    image = arrays.blend(image, csf & (roots > 0.9), draws.uniform(0.0, 0.6), tissue.mean("cord"))
    if (flowing := draws.some(0.5)) is not None:
        flow = tissue.noise(18.0)
        image = arrays.multiplied(image, csf, 1.0 - flowing * draws.uniform(0.1, 0.6) * flow.clip(0.0, 1.0))
    return image


def _metal(image: Image, tissue: Tissue) -> Image:
    """Add the signal voids of metal implants, with bright borders where signal piles up."""
    rng, arrays, draws = tissue.rng, tissue.arrays, tissue.draws
    if (some := draws.some(METAL)) is None:
        return image
    for _ in range(int(rng.integers(1, 6))):
        distance = 0.0
        for axis, n in enumerate(image.shape[-3:]):
            place = (np.arange(n) - n * rng.uniform(0.25, 0.75)) * tissue.mm[axis] / rng.uniform(4.0, 14.0)
            shape = [n if other == axis else 1 for other in range(3)]
            distance = distance + arrays.on(np.square(place).astype(np.float32).reshape(shape))
        image = arrays.blend(image, distance < float(rng.uniform(1.1, 1.8)), some * draws.uniform(0.0, 0.8), 1.2)
        image = arrays.blend(image, distance < 1.0, some * draws.uniform(0.8, 1.0), 0.02)
    return image
