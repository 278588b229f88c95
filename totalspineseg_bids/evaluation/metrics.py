"""Figures of one labelled image against its truth: overlap, identification and localisation.

Sources
-------
Dice: Dice, Ecology 26 (1945). Normalised surface distance: ``surface``. Identification rate and localisation distance:
the VerSe challenge (Sekuboyina et al., Medical Image Analysis 73, 2021), there for vertebrae: a level is identified
where the predicted centroid of that name lies within 20 mm of the true one and is the nearest. The paper means the
nearest prediction to the true centroid, the challenge's page the nearest true centroid to the prediction; both are
asked for here, which is never more lenient than either. Discs are compared with discs, vertebrae and sacrum with each
other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import cc3d
import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import AnatomicalLabel, Structure
from totalspineseg_bids.evaluation.surface_distance import TOLERANCE_MM, normalised_surface_distance
from totalspineseg_bids.imaging.volume import Affine

#: Greatest distance between a predicted and the true centroid of an identified level, mm.
IDENTIFICATION_MM = 20.0
#: A predicted level smaller than this is a crumb, not a claim that the level is there (a cervical disc has ten times
#: as much), mm³.
MIN_CLAIM_MM3 = 100.0
#: Groups that figures are averaged over, in the order of tables.
GROUPS: dict[Structure, str] = {
    Structure.VERTEBRA: "vertebrae",
    Structure.DISC: "discs",
    Structure.SACRUM: "sacrum",
    Structure.CORD: "spinal_cord",
    Structure.CANAL: "spinal_canal",
}
#: Structures that have a level.
LEVELLED = (Structure.VERTEBRA, Structure.SACRUM, Structure.DISC)


class Outcome(str, Enum):
    """Outcome of the level naming of an image."""

    #: Levels are named and every one in full view is right.
    RIGHT = "right"
    #: Levels are named, none wrongly, but some in full view are not found.
    INCOMPLETE = "incomplete"
    #: A level is named that is another one, or where there is none.
    WRONG = "wrong"
    #: Structures are found but no level is named.
    ABSTAINED = "abstained"
    #: Nothing is found.
    EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class LevelResult:
    """One structure of the truth, or one that only the prediction has."""

    name: str
    structure: Structure
    level: str
    """`name`, `structure`, `level`: of ``anatomy``."""
    in_truth: bool
    in_prediction: bool
    """`in_truth`, `in_prediction`: whether the label is in either map."""
    full_view: bool
    """True unless the border of the field of view cuts it (`cut_labels`)."""
    dice: float
    """2|A∩B| / (|A|+|B|)."""
    nsd: float
    """Normalised surface distance; NaN where neither map has a surface inside the field of view."""
    truth_mm3: float
    predicted_mm3: float
    """`truth_mm3`, `predicted_mm3`: volumes."""
    identified: bool | None
    """VerSe's criterion; ``None`` for cord and canal, and for what is not in the truth."""
    misnamed: bool
    """The prediction names this level where another, or none, is: its centre is not nearest to that of this level
    (within 20 mm), and less than half of its voxels belong to this level. Of a vertebra that the edge of the image cuts
    into a process and a part of the body, one may be found without the other, with a centre far from that of both."""
    distance_mm: float
    """Between the centroids, where both maps have the label; NaN otherwise."""

    @property
    def group(self) -> str:
        """Structure group of the tables."""
        return GROUPS[self.structure]


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image."""

    name: str
    """Of the image."""
    tags: dict[str, str]
    """Properties to group by, such as ``{"contrast": "T2w"}``."""
    levels: tuple[LevelResult, ...]
    """One entry a label in truth or prediction."""
    outcome: Outcome
    """Outcome of the level naming."""
    landmark_in_view: bool
    """True if one of C2-C3, C7-T1, T12-L1, L5-S is in full view in the truth."""

    @property
    def levels_in_full_view(self) -> int:
        """Number of vertebrae and discs in full view; rates over images leave out those that have none."""
        return sum(row.full_view and row.structure in LEVELLED for row in self.levels)

    @property
    def all_right(self) -> bool:
        """Every level in full view identified, and none misnamed."""
        return self.outcome is Outcome.RIGHT


def cut_labels(labels: NDArray[np.uint8], affine: Affine) -> frozenset[int]:
    """Return the labels that the field of view cuts.

    A label is cut where it touches the cranial, caudal, anterior or posterior face of the image. The lateral faces do
    not count: sagittal slabs cut the transverse processes of every vertebra.

    Parameters
    ----------
    labels : (X, Y, Z) uint8
        Any orientation.
    affine : Affine
        4x4, voxel index to RAS+ mm.
    """
    codes = nib.orientations.aff2axcodes(affine)
    cut: set[int] = set()
    for axis, code in enumerate(codes):
        if code in ("L", "R"):
            continue
        for index in (0, -1):
            cut.update(int(value) for value in np.unique(labels.take(index, axis=axis)))
    return frozenset(cut - {0})


class _Found(NamedTuple):
    """A label in a map."""

    voxels: int
    centre: NDArray[np.float64]
    """Centre of mass, RAS+ mm."""
    box: tuple[slice, ...]


def _find_labels(labels: NDArray[np.uint8], affine: Affine) -> dict[int, _Found]:
    """Return the labels of a map by id, without the background."""
    found = cc3d.statistics(labels)
    counts, centroids, boxes = (found[key] for key in ("voxel_counts", "centroids", "bounding_boxes"))
    present = (int(number) for number in np.flatnonzero(counts) if number)
    return {n: _Found(int(counts[n]), affine[:3, :3] @ centroids[n] + affine[:3, 3], boxes[n]) for n in present}


def _family(label: AnatomicalLabel) -> Structure:
    return Structure.VERTEBRA if label.structure is Structure.SACRUM else label.structure


def _nearest(point: NDArray[np.float64], label: AnatomicalLabel, found: dict[int, _Found]) -> int | None:
    """Return the named level of the same family whose centre is closest to a point, if it is within 20 mm."""
    distances = {
        other: float(np.linalg.norm(point - there.centre))
        for other, there in found.items()
        if other in anatomy.BY_ID and anatomy.BY_ID[other].level and _family(anatomy.BY_ID[other]) is _family(label)
    }
    closest = min(distances, key=lambda other: distances[other], default=None)
    return closest if closest is not None and distances[closest] <= IDENTIFICATION_MM else None


def _box(found: Sequence[_Found]) -> tuple[slice, ...]:
    """Return the box around a label in one map or both, with a margin of one voxel inside the grid."""
    sides = list(zip(*(each.box for each in found), strict=True))
    return tuple(slice(max(0, min(s.start for s in side) - 1), max(s.stop for s in side) + 1) for side in sides)


def _outcome(levels: Iterable[LevelResult], *, empty: bool) -> Outcome:
    named = [row for row in levels if row.in_prediction and row.structure in LEVELLED and row.level]
    if any(row.misnamed for row in levels):
        return Outcome.WRONG
    if not named:
        return Outcome.EMPTY if empty else Outcome.ABSTAINED
    wanted = [row for row in levels if row.in_truth and row.full_view and row.structure in LEVELLED]
    return Outcome.RIGHT if all(row.identified for row in wanted) else Outcome.INCOMPLETE


def compare(
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    affine: Affine,
    name: str = "",
    tags: dict[str, str] | None = None,
    *,
    tolerance_mm: float = TOLERANCE_MM,
) -> ImageResult:
    """Compare a labelled image with its truth.

    Parameters
    ----------
    truth, predicted : uint8 array
        Canonical ids on one grid, shape (X, Y, Z). Canal means canal without the cord.
    affine : Affine
        4x4, voxel index to RAS+ mm.
    name, tags
        Kept in the result.
    tolerance_mm : float, optional
        Of the normalised surface distance.

    Returns
    -------
    ImageResult
        Rows in the order of ``anatomy.LABELS``.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if truth.shape != predicted.shape:
        msg = f"truth {truth.shape} and prediction {predicted.shape} are not on one grid"
        raise ValueError(msg)
    there, here = _find_labels(truth, affine), _find_labels(predicted, affine)
    cut = cut_labels(truth, affine)
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    rows: list[LevelResult] = []
    for label in anatomy.LABELS:
        true, own = there.get(label.id), here.get(label.id)
        if (true is None and own is None) or anatomy.is_unnamed(label.id):
            continue
        levelled = label.structure in LEVELLED
        nearest = _nearest(own.centre, label, there) if own and levelled else None
        claimed = _nearest(true.centre, label, here) if true and levelled else None
        box = _box([found for found in (true, own) if found])
        masks = truth[box] == label.id, predicted[box] == label.id
        volume, claim = (found.voxels if found else 0 for found in (true, own))
        common = int(np.count_nonzero(masks[0] & masks[1]))
        rows.append(
            LevelResult(
                name=label.name,
                structure=label.structure,
                level=label.level,
                in_truth=volume > 0,
                in_prediction=claim > 0,
                full_view=volume > 0 and (not levelled or label.id not in cut),
                dice=2.0 * common / (volume + claim),
                nsd=normalised_surface_distance(*masks, affine, tolerance_mm),
                truth_mm3=volume * voxel,
                predicted_mm3=claim * voxel,
                identified=(nearest == claimed == label.id) if levelled and volume else None,
                misnamed=(levelled and claim * voxel >= MIN_CLAIM_MM3 and nearest != label.id and 2 * common < claim),
                distance_mm=float(np.linalg.norm(own.centre - true.centre)) if true and own else float("nan"),
            )
        )
    landmarks = {anatomy.disc(level).name for level in anatomy.LANDMARK_DISCS}
    return ImageResult(
        name,
        dict(tags or {}),
        tuple(rows),
        _outcome(rows, empty=not here),
        any(row.full_view and row.name in landmarks for row in rows),
    )
