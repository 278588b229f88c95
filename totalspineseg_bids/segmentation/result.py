"""Result of a segmentation: label map, components and confidence of their levels."""

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
    """Outcome of the labelling of an image."""

    LABELLED = "labelled"
    #: Structures found, but the evidence does not decide the levels: components are numbered, not named.
    ABSTAINED = "abstained"
    #: Neither a canal nor a disc in view.
    NO_SPINE = "no-spine"


@dataclass(frozen=True, slots=True)
class Component:
    """One vertebra, disc, sacrum, cord or canal in a label map."""

    label_id: int
    """Canonical id (``anatomy``) that its voxels carry."""
    structure: Structure
    """Vertebra, disc, sacrum, cord or canal."""
    level: str | None
    """``"C1"``, ``"C2-C3"``, ``"S"``; ``None`` for an unnamed component and for cord and canal."""
    confidence: float
    """Posterior probability of the level, in [0, 1]."""
    runner_up: str | None
    """The next best level."""
    reason: str | None
    """Why the level is missing or doubtful; ``None`` otherwise."""
    touches_edge: bool
    """Whether the field of view cuts the component, so that its measurements are incomplete."""
    volume_mm3: float
    """Volume, mm³."""
    centroid_mm: tuple[float, float, float]
    """Centre of mass in scanner space (RAS+, mm)."""


@dataclass(frozen=True, slots=True)
class DiscPoint:
    """Point of the canal centreline at the height of a disc."""

    level: str
    """Disc level such as ``"C2-C3"``."""
    position_mm: tuple[float, float, float]
    """Scanner space, RAS+, mm."""


@dataclass(frozen=True, slots=True)
class ColumnHypothesis:
    """Most probable numbers of vertebrae and size of a column."""

    thoracic: int
    """Number of thoracic vertebrae."""
    lumbar: int
    """Number of lumbar vertebrae."""
    confidence: float
    """Posterior probability of these numbers."""
    scale: float
    """Size of the subject relative to an adult."""
    margin: float
    """Log-odds (nats) of the levels against all others together, at the median component."""
    runner_up: str | None = None
    """Level of the median component in the next most probable explanation; ``None`` if it leaves the component out."""


@dataclass(frozen=True, slots=True)
class LabelledSpine:
    """A labelled spine on one grid."""

    labels: NDArray[np.uint8]
    """uint8, shape (X, Y, Z), canonical ids, 0 outside."""
    affine: Affine
    """4x4, voxel index to scanner space (RAS+, mm)."""
    components: tuple[Component, ...]
    """One per id in ``labels``: vertebrae and discs from cranial to caudal, then cord and canal."""
    status: SpineStatus
    """Outcome of the labelling."""
    reason: str | None = None
    """Why the status is not ``LABELLED``, in one sentence for users."""
    flags: tuple[str, ...] = ()
    """Findings to review, such as ``"T13"`` or ``"missing-disc:L3-L4"``."""
    centerline_mm: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 3)))
    """Canal centreline from cranial to caudal, shape (N, 3), scanner space (RAS+, mm)."""
    disc_points: tuple[DiscPoint, ...] = ()
    """Disc levels projected on the canal centreline, craniocaudally."""
    hypothesis: ColumnHypothesis | None = None
    """Numbers of vertebrae and size that the levels are based on."""
    cord_probability: NDArray[np.float32] | None = None
    """Probability of the cord, float32 in [0, 1], on the grid of ``labels``; ``None`` if it was not kept."""
    canal_probability: NDArray[np.float32] | None = None
    """Probability of the canal, like ``cord_probability``."""
    margin: NDArray[np.float16] | None = None
    """Logit margin of each voxel to the next kind of tissue, float16, on the grid of ``labels``; ``None`` if it was not
    kept.
    """
    padding: NDArray[np.bool_] | None = None
    """Voxels outside the acquired field of view, on the grid of ``labels``; ``None`` if there are none."""
    precisions: tuple[str, ...] = ()
    """Networks whose precision was chosen by its effect, with the share of equal labels."""

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
