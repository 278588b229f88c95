"""Components of a column as the labelling sees them, before and apart from their levels."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.segmentation.labelling.centerline import Centerline
from totalspineseg_bids.segmentation.layout import Kind, Layout


@dataclass(frozen=True, slots=True)
class SemanticMap:
    """A semantic label map with the meaning of its integers.

    Attributes
    ----------
    labels
        uint8, shape (X, Y, Z).
    layout
        Meaning of the integers.
    """

    labels: NDArray[np.uint8]
    layout: Layout


@dataclass(frozen=True, slots=True)
class Votes:
    """What the classes of a component's voxels say, each as a share of the component's voxels.

    Attributes
    ----------
    levels, regions
        Share that carries the class of a level (``"T12-L1"``) or of a region (``"C"``).
    odd, even
        Share that carries one of the alternating classes.
    weight
        How much the map counts.
    known
        Levels that the map's layout can name at all.
    """

    levels: dict[str, float]
    regions: dict[str, float]
    odd: float
    even: float
    weight: float
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class Observation:
    """A disc, a vertebral body or the sacrum, not yet with a level.

    Attributes
    ----------
    kind
        Disc, vertebra or sacrum.
    center
        Centre of mass, local mm, shape (3,).
    s, s_low, s_high
        Arc length of the centre and of the 5th and 95th percentile of the voxels, mm.
    anterior, lateral
        Offset of the centre from the centreline, mm.
    volume_mm3
        Volume.
    touches_edge
        Whether the field of view cuts it.
    votes
        One entry a semantic map.
    part
        Number under which its voxels are found in the :class:`Parts`.
    length_mm
        Extent along the centreline of all of it, mm (``s_low`` and ``s_high`` of the sacrum are those of its top).
    note
        ``"split"`` or ``"joined"`` where the component was repaired.
    extra_levels
        Level -> weight that a localizer gives.
    scout
        Level -> probability that a level scout gives (`labelling.scout`).
    """

    kind: Kind
    center: NDArray[np.float64]
    s: float
    s_low: float
    s_high: float
    anterior: float
    lateral: float
    volume_mm3: float
    touches_edge: bool
    votes: tuple[Votes, ...]
    part: int
    note: str = ""
    length_mm: float = 0.0
    extra_levels: dict[str, float] = field(default_factory=dict)
    scout: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """Voxels of all components of one kind.

    Attributes
    ----------
    index
        Voxel indices, shape (N, 3).
    part
        Number of the component of each voxel, -1 for specks, shape (N,).
    observations
        Components ordered from cranial to caudal.
    """

    index: NDArray[np.int64]
    part: NDArray[np.int64]
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """What every step of the labelling shares.

    Attributes
    ----------
    maps
        Semantic maps on one grid with their weights; the first is the one that is labelled.
    spacing
        Voxel size, mm, shape (3,).
    first, last
        First and last voxel index of the field of view on each axis (the maps may be a crop of it), shape (3,).
    line
        Canal centreline in local coordinates (voxel index times voxel size).
    """

    maps: tuple[tuple[SemanticMap, float], ...]
    spacing: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    line: Centerline

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, mm³."""
        return float(np.prod(self.spacing))
