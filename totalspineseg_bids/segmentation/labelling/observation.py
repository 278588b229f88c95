"""Components of a column as the labelling sees them, before and apart from their levels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.segmentation.class_map import ClassMap, Kind
from totalspineseg_bids.segmentation.labelling.centerline import Centerline, Projection


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
    layout: ClassMap


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
        Levels that a localizer gives.
    scout
        Level -> probability that a level scout gives (`labelling.scout`).
    hearsay
        What other images of the session say: posterior probability of the levels, and the weight of each.
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
    hearsay: tuple[tuple[dict[str | None, float], float], ...] = ()


def volume_around(one: Observation, others: Iterable[Observation], reach_mm: float) -> float:
    """Return the median volume of the others within reach along the canal, mm³; its own where there are none."""
    near = [o.volume_mm3 for o in others if o is not one and abs(o.s - one.s) < reach_mm]
    return float(np.median(near)) if near else one.volume_mm3


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
    place
        Each voxel seen from the centreline, where it was kept.
    """

    index: NDArray[np.int64]
    part: NDArray[np.int64]
    observations: tuple[Observation, ...]
    place: Projection | None = None


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


@dataclass(frozen=True, slots=True)
class View:
    """What the image shows of the column besides the components.

    Attributes
    ----------
    canal_top, canal_bottom
        Arc length of the ends of the canal in view, mm.
    conus
        Arc length of the cord's lower end where canal goes on below it, mm.
    """

    canal_top: float
    canal_bottom: float
    conus: float | None = None


@dataclass(frozen=True, slots=True)
class LevelSolution:
    """Levels of the components of one column.

    Attributes
    ----------
    levels
        Level of each component; ``None`` for those that are no part of the column.
    confidence
        Posterior probability of that level (of being no part of the column for ``None``).
    runner_up
        The next most probable level, ``None`` if that is "no part of the column".
    variant
        Numbers of vertebrae.
    variant_confidence
        Posterior probability of that variant.
    scale
        Size of the subject against an adult.
    missing
        Discs between the first and the last component that were not found.
    anchored
        Whether anything in view names a level.
    shift_margin
        Log-ratio of the probability of this naming to that of all others at the median component, nats.
    tables
        Posterior probability of each level of each component; ``None`` stands for "no part of the column".
    disputed
        The levels of another opinion that names the column too: without the level scout, or with it; ``None`` where
        there is none.
    """

    levels: tuple[str | None, ...]
    confidence: tuple[float, ...]
    runner_up: tuple[str | None, ...]
    variant: SpineVariant
    variant_confidence: float
    scale: float
    missing: tuple[str, ...] = ()
    anchored: bool = False
    shift_margin: float = 0.0
    tables: tuple[dict[str | None, float], ...] = ()
    disputed: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Components of one image with their levels.

    Attributes
    ----------
    scene
        Grid, maps and centreline.
    discs, bodies, sacrum
        Voxels of the components by kind.
    observations
        All components from cranial to caudal.
    view
        What else the image shows of the column.
    solution
        Levels of the components.
    """

    scene: Scene
    discs: Parts
    bodies: Parts
    sacrum: Parts
    observations: tuple[Observation, ...]
    view: View
    solution: LevelSolution
