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

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import cc3d
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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
    """The prediction names this level where another, or none, is."""
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


def _joint_counts(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the number of voxels of each pair of labels, shape (256, 256), without common background."""
    where = np.flatnonzero((truth != 0) | (predicted != 0))
    pairs = truth.ravel()[where].astype(np.int64) * 256 + predicted.ravel()[where]
    return np.bincount(pairs, minlength=256 * 256).reshape(256, 256)


def centroids(labels: NDArray[np.uint8], affine: Affine) -> dict[int, NDArray[np.float64]]:
    """Return the centre of mass of each label, RAS+ mm."""
    found = cc3d.statistics(labels)
    numbers = np.flatnonzero(found["voxel_counts"])
    return {int(n): affine[:3, :3] @ found["centroids"][n] + affine[:3, 3] for n in numbers if n}


def _family(label: AnatomicalLabel) -> Structure:
    return Structure.VERTEBRA if label.structure is Structure.SACRUM else label.structure


def _nearest(point: NDArray[np.float64], label: AnatomicalLabel, centres: dict[int, NDArray[np.float64]]) -> int | None:
    """Return the named level of the same family whose centre is closest to a point, if it is within 20 mm."""
    distances = {
        other: float(np.linalg.norm(point - centre))
        for other, centre in centres.items()
        if other in anatomy.BY_ID and anatomy.BY_ID[other].level and _family(anatomy.BY_ID[other]) is _family(label)
    }
    if not distances:
        return None
    closest = min(distances, key=lambda other: distances[other])
    return closest if distances[closest] <= IDENTIFICATION_MM else None


def _boxes(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> dict[int, tuple[slice, slice, slice]]:
    """Return the bounding box of each label in either map, with a margin of one voxel inside the grid."""
    boxes: dict[int, tuple[slice, slice, slice]] = {}
    first, second = ndimage.find_objects(truth), ndimage.find_objects(predicted)
    for number in range(max(len(first), len(second))):
        found = [box for boxes_of in (first, second) if number < len(boxes_of) and (box := boxes_of[number])]
        if found:
            low = [max(0, min(box[axis].start for box in found) - 1) for axis in range(3)]
            high = [max(box[axis].stop for box in found) + 1 for axis in range(3)]
            boxes[number + 1] = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    return boxes


def _outcome(levels: Iterable[LevelResult], predicted: NDArray[np.int64]) -> Outcome:
    named = [row for row in levels if row.in_prediction and row.structure in LEVELLED and row.level]
    if any(row.misnamed for row in levels):
        return Outcome.WRONG
    if not named:
        return Outcome.ABSTAINED if predicted[1:].any() else Outcome.EMPTY
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
    counts = _joint_counts(truth, predicted)
    in_truth, in_predicted = counts.sum(axis=1), counts.sum(axis=0)
    cut = cut_labels(truth, affine)
    true_centres, predicted_centres = centroids(truth, affine), centroids(predicted, affine)
    voxel = float(abs(np.linalg.det(affine[:3, :3])))
    boxes = _boxes(truth, predicted)
    rows: list[LevelResult] = []
    for label in anatomy.LABELS:
        volume, claim = int(in_truth[label.id]), int(in_predicted[label.id])
        if (not volume and not claim) or anatomy.is_unnamed(label.id):
            continue
        levelled = label.structure in LEVELLED
        nearest = _nearest(predicted_centres[label.id], label, true_centres) if claim and levelled else None
        claimed = _nearest(true_centres[label.id], label, predicted_centres) if volume and levelled else None
        distance = float("nan")
        box = boxes[label.id]
        if volume and claim:
            distance = float(np.linalg.norm(predicted_centres[label.id] - true_centres[label.id]))
        rows.append(
            LevelResult(
                name=label.name,
                structure=label.structure,
                level=label.level,
                in_truth=volume > 0,
                in_prediction=claim > 0,
                full_view=volume > 0 and (not levelled or label.id not in cut),
                dice=2.0 * int(counts[label.id, label.id]) / (volume + claim),
                nsd=normalised_surface_distance(
                    truth[box] == label.id, predicted[box] == label.id, affine, tolerance_mm
                ),
                truth_mm3=volume * voxel,
                predicted_mm3=claim * voxel,
                identified=(nearest == claimed == label.id) if levelled and volume else None,
                misnamed=levelled and claim * voxel >= MIN_CLAIM_MM3 and nearest != label.id,
                distance_mm=distance,
            )
        )
    landmarks = {anatomy.disc(level).name for level in anatomy.LANDMARK_DISCS}
    return ImageResult(
        name,
        dict(tags or {}),
        tuple(rows),
        _outcome(rows, in_predicted),
        any(row.full_view and row.name in landmarks for row in rows),
    )
