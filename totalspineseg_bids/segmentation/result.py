"""What a segmentation yields: a label map, its components and what is known about their levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.volume import Affine, Geometry

#: Called with the name of a stage and the finished fraction of it, 0 to 1.
StageProgress = Callable[[str, float], None]


def no_progress(_stage: str, _fraction: float) -> None:
    """Ignore a report of progress."""


class SpineStatus(str, Enum):
    """How far the labelling of an image got."""

    LABELLED = "labelled"
    #: Structures found, but the evidence does not decide the levels: components are numbered, not named.
    ABSTAINED = "abstained"
    #: Neither a canal nor a disc in view.
    NO_SPINE = "no-spine"


@dataclass(frozen=True, slots=True)
class Component:
    """One vertebra, disc, sacrum, cord or canal in a label map.

    Attributes
    ----------
    label_id
        Canonical id (``anatomy``) that its voxels carry.
    structure
        What it is.
    level
        ``"C1"``, ``"C2-C3"``, ``"S"``; ``None`` where it has no name (and for cord and canal).
    confidence
        0 to 1: how sure the level is.
    runner_up
        The next best level.
    reason
        Why there is no level, or why it is doubtful.
    touches_edge
        Whether the field of view cuts it, so that its measures are not those of the whole.
    volume_mm3
        Volume, mm³.
    centroid_mm
        Centre of mass in scanner space (RAS+, mm).
    """

    label_id: int
    structure: Structure
    level: str | None
    confidence: float
    runner_up: str | None
    reason: str | None
    touches_edge: bool
    volume_mm3: float
    centroid_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class DiscPoint:
    """Where a disc level meets the canal centreline (scanner space, RAS+, mm)."""

    level: str
    position_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ColumnHypothesis:
    """The best explanation of a column.

    Attributes
    ----------
    thoracic, lumbar
        Numbers of vertebrae that it supposes.
    confidence
        Posterior probability of these numbers.
    scale
        Size of the subject against an adult.
    margin
        Log-ratio (nats) of the probability of its levels to that of all others together, at the median component.
    runner_up
        What the median component is called by the next best explanation; ``None`` if that leaves it out.
    """

    thoracic: int
    lumbar: int
    confidence: float
    scale: float
    margin: float
    runner_up: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledSpine:
    """A labelled spine on one grid.

    Attributes
    ----------
    labels
        uint8, shape (X, Y, Z), canonical ids, 0 outside.
    affine
        4x4, voxel index to scanner space (RAS+, mm).
    components
        One entry an id in ``labels``: vertebrae and discs craniocaudally, then cord and canal.
    status
        How far the labelling got.
    reason
        For anything but ``LABELLED``: why, in one sentence for a person.
    flags
        Findings a person should look at, such as ``"T13"``, ``"missing-disc:L3-L4"``.
    centerline_mm
        Canal centreline from cranial to caudal, shape (N, 3), scanner space (RAS+, mm).
    disc_points
        Disc levels projected on the canal centreline, craniocaudally.
    hypothesis
        The explanation of the column that the levels follow.
    cord_probability, canal_probability
        float32 in [0, 1] on the grid of ``labels``, where they were kept.
    margin
        float16 on the grid of ``labels``, where it was kept: how far the network is from seeing another kind of
        tissue in a voxel, in logits.
    """

    labels: NDArray[np.uint8]
    affine: Affine
    components: tuple[Component, ...]
    status: SpineStatus
    reason: str | None = None
    flags: tuple[str, ...] = ()
    centerline_mm: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    disc_points: tuple[DiscPoint, ...] = ()
    hypothesis: ColumnHypothesis | None = None
    cord_probability: NDArray[np.float32] | None = None
    canal_probability: NDArray[np.float32] | None = None
    margin: NDArray[np.float16] | None = None

    def labels_on(self, target: Geometry) -> NDArray[np.uint8]:
        """Return the labels on another grid, with borders where the network has them between voxels.

        Parameters
        ----------
        target
            Grid of the result.

        Returns
        -------
        NDArray[np.uint8]
            Canonical ids, shape of ``target``.
        """
        return restore_labels(self.labels, self.affine, target, margin=self.margin)
