"""Components of a column as the labelling sees them, before and apart from their levels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.centerline import Centerline, Projection
from totalspineseg_bids.segmentation.result import SpineStatus
from totalspineseg_bids.segmentation.semantic_map import SemanticMap

#: The column's front part: bodies lie here, seen from the canal's centreline, mm.
BODY_FRONT_MM = 7.0
BODY_SIDE_MM = 22.0


@dataclass(frozen=True, slots=True)
class ClassShares:
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
    class_shares
        One entry a semantic map.
    part
        Number under which its voxels are found in the :class:`ComponentVoxels`.
    length_mm
        Extent along the centreline of all of it, mm (``s_low`` and ``s_high`` of the sacrum are those of its top).
    note
        ``"split"`` or ``"joined"`` where the component was repaired.
    localizer_levels
        Levels that a localizer gives.
    level_prior
        Level -> probability that a level prior gives (`labelling.level_prior`).
    session_evidence
        What other images of the session say: posterior probability of the levels, and the weight of each.
    """

    kind: Structure
    center: NDArray[np.float64]
    s: float
    s_low: float
    s_high: float
    anterior: float
    lateral: float
    volume_mm3: float
    touches_edge: bool
    class_shares: tuple[ClassShares, ...]
    part: int
    note: str = ""
    length_mm: float = 0.0
    localizer_levels: dict[str, float] = field(default_factory=dict)
    level_prior: dict[str, float] = field(default_factory=dict)
    session_evidence: tuple[tuple[dict[str | None, float], float], ...] = ()


def volume_around(one: Observation, others: Iterable[Observation], reach_mm: float) -> float:
    """Return the median volume of the others within reach along the canal, mm³; its own where there are none."""
    near = [o.volume_mm3 for o in others if o is not one and abs(o.s - one.s) < reach_mm]
    return float(np.median(near)) if near else one.volume_mm3


@dataclass(frozen=True, slots=True)
class ComponentVoxels:
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
class SpineContext:
    """What every step of the labelling shares.

    Attributes
    ----------
    maps
        Semantic maps on one grid with their weights; the first is the one that is labelled.
    spacing
        Voxel size, mm, shape (3,).
    first, last
        First and last voxel index of the field of view on each axis (the maps may be a crop of it), shape (3,).
    centerline
        Canal centreline in local coordinates (voxel index times voxel size).
    """

    maps: tuple[tuple[SemanticMap, float], ...]
    spacing: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    centerline: Centerline

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, mm³."""
        return float(np.prod(self.spacing))


@dataclass(frozen=True, slots=True)
class CanalExtent:
    """What the image shows of the column besides the components.

    Attributes
    ----------
    top, bottom
        Arc length of the ends of the canal in view, mm.
    conus
        Arc length of the cord's lower end where canal goes on below it, mm.
    """

    top: float
    bottom: float
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
        The levels of another opinion that names the column too: without the level prior, or with it; ``None`` where
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
class LabelledComponents:
    """Components of one image with their levels.

    Attributes
    ----------
    context
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

    context: SpineContext
    discs: ComponentVoxels
    bodies: ComponentVoxels
    sacrum: ComponentVoxels
    observations: tuple[Observation, ...]
    view: CanalExtent
    solution: LevelSolution


@dataclass(frozen=True, slots=True)
class Naming:
    """Ids of the components.

    Attributes
    ----------
    status
        Whether the column is named.
    reason
        Why not.
    ids
        Canonical id of each component; ``None`` for those that are no part of the column.
    reasons
        Why a component has no level or a doubtful one.
    doubt
        Why all levels are doubtful, if they are.
    vertebra_slots
        Where vertebrae are told apart by the discs: canonical id of each vertebra from above the first cut to below
        the last one; empty where their classes tell them apart.
    cut_observations
        Component (a disc) of each cut between the slots, ``None`` for a disc that was not found.
    step_mm
        Typical distance between neighbouring cuts.
    """

    status: SpineStatus
    reason: str | None
    ids: tuple[int | None, ...]
    reasons: tuple[str | None, ...]
    doubt: str | None = None
    vertebra_slots: tuple[int, ...] = ()
    cut_observations: tuple[int | None, ...] = ()
    step_mm: float = 30.0


def in_front(place: Projection) -> NDArray[np.bool_]:
    """Tell which voxels lie where bodies do, in front of the canal."""
    return np.asarray((place.anterior > BODY_FRONT_MM) & (np.abs(place.lateral) < BODY_SIDE_MM))
