"""Simple synthetic spines for tests: truth with canonical ids, and the semantic maps of a perfect model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import from_matvec

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import AnatomicalLabel, SpineVariant
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.segmentation.labelling.column.parameters import chain_of
from totalspineseg_bids.segmentation.result import LabelledSpine
from totalspineseg_bids.training.semantic_targets import class_table

USUAL = SpineVariant()


@dataclass
class SimpleColumn:
    """Truth of a simple synthetic spine: canonical ids on a 1 mm RAS grid."""

    truth: np.ndarray
    affine: np.ndarray

    def centre(self, level: str) -> np.ndarray:
        """Return the middle of a disc or a vertebra, voxels."""
        return np.argwhere(self.truth == label_of(level).id).mean(axis=0)

    def labelled(self, layout: ClassMap, **options: Any) -> LabelledSpine:
        """Return the spine that the labelling makes of the semantic map of a perfect model."""
        return label_map(semantic_of(self.truth, layout), self.affine, layout, **options)

    @property
    def image(self) -> Volume:
        """Return an image that has the canonical ids as intensities."""
        return Volume(self.truth.astype(np.float32), self.affine)


def label_of(level: str) -> AnatomicalLabel:
    """Return the label of a disc or a vertebra."""
    return anatomy.disc(level) if "-" in level else anatomy.vertebra(level)


def half_space(shape: tuple[int, ...], point: Sequence[float], normal: Sequence[float]) -> np.ndarray:
    """Return the voxels that lie beyond the plane through a point."""
    return np.tensordot(normal, np.indices(shape), 1) > np.dot(normal, point)


def make_column(
    variant: SpineVariant = USUAL,
    *,
    scale: float = 0.9,
    first: str = "C1",
    last: str = "S",
) -> SimpleColumn:
    """Make ellipsoid discs and bodies, canal and arches of the levels from ``first`` to ``last``."""
    chain = chain_of(variant)
    position = np.asarray(chain.position_mm) * scale
    top, bottom = position[0] - 14, position[-1] + 40
    length = bottom - top
    shape = (64, 84, int(np.ceil(length)) + 2)
    height = shape[2] - 1 - np.arange(shape[2])
    along = height + top
    share = height / length
    centre_x = np.full(shape[2], 32.0)
    centre_y = 30 + 12.0 * np.sin(share * 3 * np.pi)
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    truth = np.zeros(shape, np.uint8)
    dx, dy = x[..., None] - centre_x, y[..., None] - centre_y
    width = np.interp(along, [0, 100 * scale, 450 * scale], [11, 13, 20])
    depth = np.interp(along, [0, 100 * scale, 450 * scale], [8, 9, 13])
    body = ((dx / width) ** 2 + ((dy - depth - 8) / depth) ** 2) < 1
    arch = (np.hypot(dx, dy) < 13) & (np.hypot(dx, dy) > 8.5) & (dy < 9)
    spine = (np.abs(dx) < 2.5) & (dy < -10) & (dy > -20)
    inside = np.hypot(dx, dy) < 8
    edges = _boundaries(position)

    for n, name in enumerate(chain.vertebrae):
        number = anatomy.vertebra(name).id
        low, high = edges[n]
        rows = (along >= low) & (along < high)
        truth[:, :, rows] = np.where((body | arch | spine)[:, :, rows], number, truth[:, :, rows])
        if name == "C1":
            ring = rows & (along > position[0] - 5)
            truth[:, :, rows & ~ring] = 0
            dens = (np.abs(dx) < 6) & (dy > 8) & (dy < 18)
            truth[dens & (along >= position[0] - 4) & (along < high)] = anatomy.vertebra("C2").id
    for n, name in enumerate(chain.discs):
        if not name:
            continue
        thick = np.interp(position[2 * n + 1], [0, 450 * scale], [5, 9])
        rows = np.abs(along - position[2 * n + 1]) < thick / 2
        truth[:, :, rows] = np.where(body[:, :, rows], anatomy.disc(name).id, truth[:, :, rows])
    truth[inside] = anatomy.CANAL_ID
    cord_end = position[2 * chain.vertebrae.index("L1")]
    truth[(np.hypot(dx, dy) < 4.5) & (along < cord_end)] = anatomy.CORD_ID
    start, stop = edges[chain.vertebrae.index(first)][0] - top, edges[chain.vertebrae.index(last)][1] - top
    low, high = max(0, int(shape[2] - stop)), min(shape[2], int(shape[2] - start))
    affine = from_matvec(np.eye(3), (-30.0, 5.0, low - 200.0))
    return SimpleColumn(truth[:, :, low:high].copy(), affine)


def _boundaries(position: np.ndarray) -> list[tuple[float, float]]:
    vertebrae = position[0::2]
    discs = position[1::2].copy()
    # C1 begins about 21 mm above C2-C3 (which is at 0); the dens goes on to the middle of its ring.
    discs[0] = 0.69 * vertebrae[0]
    edges = [(vertebrae[0] - 8, discs[0])]
    edges += [(discs[n], discs[n + 1]) for n in range(len(discs) - 1)]
    edges.append((discs[-1], vertebrae[-1] + 38))
    return edges


def semantic_of(truth: np.ndarray, layout: ClassMap, variant: SpineVariant = USUAL) -> np.ndarray:
    """Return the semantic map of a perfect model for a map of canonical ids of a spine."""
    return np.asarray(class_table(layout.labels, variant)[truth])


def without_landmarks(semantic: np.ndarray, layout: ClassMap) -> np.ndarray:
    """Replace every class of a level by the general one."""
    damaged = semantic.copy()
    for value, meaning in layout.meanings.items():
        if meaning.level is not None:
            role = {"DISC": "disc", "VERTEBRA": "vertebrae", "SACRUM": "background"}[meaning.kind.name]
            damaged[semantic == value] = layout.labels[role][0] if role in layout.labels else 0
    return damaged


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Return the Dice coefficient of two masks."""
    return 2 * int(np.count_nonzero(a & b)) / max(int(np.count_nonzero(a)) + int(np.count_nonzero(b)), 1)


def levels_right(labels: np.ndarray, column: SimpleColumn) -> dict[str, bool]:
    """Return for each structure of the truth whether most of its labelled voxels carry its id."""
    verdict = {}
    for number in np.unique(column.truth):
        label = anatomy.BY_ID.get(int(number))
        if label is None or not label.level:
            continue
        found = labels[column.truth == number]
        found = found[found > 0]
        verdict[label.level] = bool(len(found)) and bool(np.bincount(found).argmax() == number)
    return verdict
