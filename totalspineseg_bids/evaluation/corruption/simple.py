"""Errors of networks in semantic maps, one function per kind; all return a new map."""

from __future__ import annotations

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.evaluation.corruption.columns import SimpleColumn
from totalspineseg_bids.segmentation.class_map import ClassMap


def without_disc(semantic: np.ndarray, column: SimpleColumn, level: str) -> np.ndarray:
    """Remove a disc."""
    damaged = semantic.copy()
    damaged[column.truth == anatomy.disc(level).id] = 0
    return damaged


def bridged(semantic: np.ndarray, column: SimpleColumn, upper: str, lower: str, layout: ClassMap) -> np.ndarray:
    """Join two discs by a rod of 3 by 3 voxels at their front."""
    damaged = semantic.copy()
    a, b = column.discs[upper], column.discs[lower]
    value = semantic[tuple(np.round(a).astype(int))] or layout.values_of("disc")[0]
    for share in np.linspace(0, 1, 80):
        x, y, z = np.round(a * (1 - share) + b * share + (0, 6, 0)).astype(int)
        damaged[x - 1 : x + 2, y - 1 : y + 2, z] = value
    return damaged


def broken(semantic: np.ndarray, column: SimpleColumn, level: str) -> np.ndarray:
    """Cut a disc in a left and a right half, four voxels apart."""
    damaged = semantic.copy()
    x = int(column.discs[level][0])
    mask = column.truth == anatomy.disc(level).id
    mask[: x - 2] = mask[x + 2 :] = False
    damaged[mask] = 0
    return damaged


def wrong_parity(semantic: np.ndarray, column: SimpleColumn, level: str, layout: ClassMap) -> np.ndarray:
    """Give a vertebra the other alternating class."""
    damaged = semantic.copy()
    odd, even = layout.labels["vertebrae_O"][0], layout.labels["vertebrae_E"][0]
    mask = column.truth == anatomy.vertebra(level).id
    damaged[mask] = even if (semantic[mask] == odd).mean() > 0.5 else odd
    return damaged


def false_disc_above(
    semantic: np.ndarray, column: SimpleColumn, level: str, layout: ClassMap, up_mm: float = 12
) -> np.ndarray:
    """Put a flat blob of disc class above a disc."""
    damaged = semantic.copy()
    x, y, z = np.round(column.discs[level]).astype(int)
    z += round(up_mm)
    damaged[x - 7 : x + 8, y - 6 : y + 7, z - 2 : z + 2] = layout.values_of("disc")[0]
    return damaged


def without_landmarks(semantic: np.ndarray, layout: ClassMap) -> np.ndarray:
    """Replace every class of a level by the general one."""
    damaged = semantic.copy()
    for value, meaning in layout.meanings.items():
        if meaning.level is not None:
            role = {"DISC": "disc", "VERTEBRA": "vertebrae", "SACRUM": "background"}[meaning.kind.name]
            damaged[semantic == value] = layout.labels[role][0] if role in layout.labels else 0
    return damaged
