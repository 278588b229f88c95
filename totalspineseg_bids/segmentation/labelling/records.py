"""Records that the stages of the labelling pass on: components, levels and names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.centerline import Centerline, Projection
from totalspineseg_bids.imaging.field_of_view import AcquiredRegion, Cut
from totalspineseg_bids.segmentation.labelling.parameters import BODY_FRONT_MM, BODY_SIDE_MM, CUT_ASIDE_SHARE
from totalspineseg_bids.segmentation.result import SpineStatus
from totalspineseg_bids.segmentation.semantic_map import SemanticMap


@dataclass(frozen=True, slots=True)
class ClassShares:
    """Shares of a component's voxels by the meaning of their class in one semantic map."""

    levels: dict[str, float]
    """Share of the voxels that carry the class of a level, by level (``"T12-L1"``)."""
    regions: dict[str, float]
    """Share of the voxels that carry the class of a region, by region (``"C"``)."""
    odd: float
    """Share of the voxels with the class of odd levels."""
    even: float
    """Share of the voxels with the class of even levels."""
    weight: float
    """Weight of the map as evidence, in [0, 1]."""
    known: frozenset[str]
    """Levels that the map has a class for."""


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    """Evidence of another image of the session on the level of a component."""

    image: int
    """Number of the other image."""
    table: Mapping[str | None, float]
    """Posterior probability of each level; the key ``None`` means "not part of the column"."""
    weight: float
    """Weight of the table's logarithm."""
    landmarks: Mapping[str, float]
    """Landmarks that the other image's levels are based on, as `naming.landmarks_of` counts them."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A disc, a vertebral body or the sacrum, before it has a level."""

    kind: Structure
    """Disc, vertebra or sacrum."""
    center: NDArray[np.float64]
    """Centre of mass, local mm, shape (3,)."""
    s: float
    """Arc length of the centre of mass along the centreline, mm, caudal is larger."""
    s_low: float
    """Arc length of the 5th percentile of the voxels, mm."""
    s_high: float
    """Arc length of the 95th percentile of the voxels, mm."""
    anterior: float
    """Distance of the centre in front of the centreline, mm; negative behind it."""
    lateral: float
    """Distance of the centre from the midsagittal plane of the canal, mm, signed."""
    volume_mm3: float
    """Volume, mm³."""
    cut: Cut
    """How the field of view cuts it."""
    class_shares: tuple[ClassShares, ...]
    """Class shares in each semantic map."""
    part: int
    """Number of the component in its `ComponentVoxels`."""
    note: str = ""
    """``"split"`` or ``"joined"`` where the component was repaired."""
    length_mm: float = 0.0
    """Extent along the centreline of all of it, mm (``s_low`` and ``s_high`` of the sacrum are those of its top)."""
    width_mm: float = np.inf
    """Extent from side to side in view, mm."""
    localizer_levels: dict[str, float] = field(default_factory=dict)
    """Share of the evidence of a localizer for each level; empty without a localizer."""
    level_prior: dict[str, float] = field(default_factory=dict)
    """Probability of each level by the level prior; empty without one."""
    session_evidence: tuple[SessionEvidence, ...] = ()
    """Evidence of other images of the session; empty without any."""


def volume_around(one: Observation, others: Iterable[Observation], reach_mm: float) -> float:
    """Return the median volume of the neighbours of a component in mm³, or its own if it has none.

    Parameters
    ----------
    one
        Component; it may be among the others.
    others
        Components of the same kind.
    reach_mm
        Largest distance of a neighbour along the canal, mm.
    """
    near = [o.volume_mm3 for o in others if o is not one and abs(o.s - one.s) < reach_mm]
    return float(np.median(near)) if near else one.volume_mm3


@dataclass(frozen=True, slots=True)
class ComponentVoxels:
    """Voxels of all components of one kind."""

    index: NDArray[np.int64]
    """Voxel indices, shape (N, 3)."""
    part: NDArray[np.int64]
    """Number of the component of each voxel, -1 for specks, shape (N,)."""
    observations: tuple[Observation, ...]
    """Components ordered from cranial to caudal."""
    place: Projection | None = None
    """Position of each voxel relative to the centreline; ``None`` if it was not kept."""


@dataclass(frozen=True, slots=True)
class SpineContext:
    """Maps, grid and centreline of one image, shared by all stages of the labelling."""

    maps: tuple[tuple[SemanticMap, float], ...]
    """Semantic maps on one grid with their weights; the first is the one that is labelled."""
    spacing: NDArray[np.float64]
    """Voxel size, mm, shape (3,)."""
    field_of_view: AcquiredRegion
    """Field of view in local coordinates, of which the maps are a crop."""
    start: NDArray[np.int64]
    """First voxel of the maps in the field of view, shape (3,)."""
    centerline: Centerline
    """Canal centreline in local coordinates (voxel index times voxel size)."""

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, mm³."""
        return float(np.prod(self.spacing))

    def cut_of(self, index: NDArray[np.int64], center: NDArray[np.float64], aside: float, stride: int = 1) -> Cut:
        """Return how the field of view cuts a component.

        Parameters
        ----------
        index
            Its voxels, shape (N, 3).
        center
            Its centre, local mm, shape (3,).
        aside
            Distance of the centre from the middle of the canal, as a share of the width in view.
        stride
            Step of the subsample that the voxels come from.
        """
        cut = self.field_of_view.cut_of(index + self.start, self.centerline, center, stride)
        return Cut.ACROSS if cut is Cut.SIDES and abs(aside) > CUT_ASIDE_SHARE else cut


@dataclass(frozen=True, slots=True)
class CanalExtent:
    """Extent of the canal in view and the lower end of the cord."""

    top: float
    """Arc length of the upper end of the canal in view, mm."""
    bottom: float
    """Arc length of the lower end of the canal in view, mm."""
    conus: float | None = None
    """Arc length of the lower end of the cord, mm; ``None`` unless the canal continues below it."""
    cord_start: float | None = None
    """Arc length of the upper end of the cord, mm; ``None`` unless the canal continues above it."""


@dataclass(frozen=True, slots=True)
class LevelSolution:
    """Levels of the components of one column."""

    levels: tuple[str | None, ...]
    """Level of each component; ``None`` for components that are not part of the column."""
    confidence: tuple[float, ...]
    """Posterior probability of that level (of being not part of the column for ``None``)."""
    runner_up: tuple[str | None, ...]
    """The next most probable level, ``None`` if that is "not part of the column"."""
    variant: SpineVariant
    """Numbers of vertebrae."""
    variant_confidence: float
    """Posterior probability of that variant."""
    scale: float
    """Size of the subject relative to an adult."""
    missing: tuple[str, ...] = ()
    """Disc levels between the first and the last component that were not found."""
    anchored: bool = False
    """Whether any landmark or other evidence in view identifies a level."""
    shift_margin: float = 0.0
    """Log-ratio of the probability of this naming to that of all others at the median component, nats."""
    tables: tuple[dict[str | None, float], ...] = ()
    """Posterior probability of each level of each component; the key ``None`` means "not part of the column"."""
    log_likelihood: float = -np.inf
    """Logarithm of the probability of the components, summed over all levels that they can have, nats."""
    contradiction: str | None = None
    """How the anatomy contradicts the header; ``None`` if it does not."""
    disputed: tuple[str | None, ...] | None = None
    """Levels found with the level prior if `levels` are those without it, or the other way round; ``None`` if there is
    only one solution.
    """


@dataclass(frozen=True, slots=True)
class LabelledComponents:
    """Components of one image with their levels."""

    context: SpineContext
    """Grid, maps and centreline."""
    discs: ComponentVoxels
    """Voxels of the discs."""
    bodies: ComponentVoxels
    """Voxels of the vertebral bodies."""
    sacrum: ComponentVoxels
    """Voxels of the sacrum."""
    observations: tuple[Observation, ...]
    """All components from cranial to caudal."""
    view: CanalExtent
    """Extent of the canal in view."""
    solution: LevelSolution
    """Levels of the components."""


@dataclass(frozen=True, slots=True)
class Naming:
    """Ids of the components."""

    status: SpineStatus
    """Whether the column is named."""
    reason: str | None
    """Why the column is not named; ``None`` if it is."""
    ids: tuple[int | None, ...]
    """Canonical id of each component; ``None`` for components that are not part of the column."""
    reasons: tuple[str | None, ...]
    """Why a component has no level or a doubtful one."""
    doubt: str | None = None
    """Why all levels are doubtful; ``None`` if they are not."""
    vertebra_slots: tuple[int, ...] = ()
    """Canonical id of each vertebra from above the first cut to below the last one, for maps whose classes do not
    separate neighbouring vertebrae; otherwise empty.
    """
    cut_observations: tuple[int | None, ...] = ()
    """Component (a disc) of each cut between the slots, ``None`` for a disc that was not found."""
    step_mm: float = 30.0
    """Typical distance between neighbouring cuts."""


def in_front(place: Projection) -> NDArray[np.bool_]:
    """Return which points lie in front of the canal and near the midline, where vertebral bodies are, shape (N,)."""
    return np.asarray((place.anterior > BODY_FRONT_MM) & (np.abs(place.lateral) < BODY_SIDE_MM))
