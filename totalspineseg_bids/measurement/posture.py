"""Angles of the spine as a whole, from the surfaces of vertebral bodies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from totalspineseg_bids.anatomy import VERTEBRA_LEVELS
from totalspineseg_bids.columns import TableRow, column, columns_of

if TYPE_CHECKING:
    from totalspineseg_bids.imaging.centerline import Vector
    from totalspineseg_bids.measurement.body_shape import BodyShape


#: A column of an angle.
_angle = partial(column, unit="degree", decimals=1)


@dataclass(frozen=True, slots=True)
class Posture(TableRow):
    """Curvature of the spine; ``None`` if an end vertebra is not completely in the field of view.

    Angles lie between planes fitted to vertebral surfaces (Cobb, Instr Course Lect 1948, 5:261); the supine
    position of MRI makes them smaller than in a standing radiograph.

    Examples
    --------
    >>> Posture(lumbar_lordosis_deg=48.25).as_row()["lumbar-lordosis-deg"]
    '48.2'
    """

    cervical_lordosis_deg: float | None = _angle(
        "Cervical lordosis",
        "Angle between the lower surfaces of C3 and C7 seen from the side; positive: lordosis",
    )
    thoracic_kyphosis_deg: float | None = _angle(
        "Thoracic kyphosis",
        "Angle between the upper surface of T4 and the lower surface of T12; positive: kyphosis",
    )
    lumbar_lordosis_deg: float | None = _angle(
        "Lumbar lordosis L1-L5",
        "Angle between the upper surface of L1 and the lower surface of L5; positive: lordosis",
    )
    coronal_cobb_deg: float | None = _angle(
        "Coronal Cobb angle",
        "Largest angle between surfaces of two vertebral bodies seen from the front, whole bodies only",
    )
    coronal_cobb_levels: str | None = column(
        "End vertebrae of the coronal Cobb angle", "Upper and lower end vertebra", kind="text"
    )


#: Columns of the angles of the spine, by name and in order.
POSTURE_COLUMNS: Final = columns_of(Posture)
#: Names of the columns that hold an angle.
ANGLES: Final = tuple(name for name, entry in POSTURE_COLUMNS.items() if entry.kind == "number")


def measure_posture(bodies: Mapping[str, BodyShape]) -> Posture:
    """Measure the curvature from the bodies that are completely in the field of view.

    Parameters
    ----------
    bodies : mapping of str to BodyShape
        Bodies by vertebral level.

    Returns
    -------
    Posture
        Angles, degrees.
    """
    ordered = [level for level in VERTEBRA_LEVELS if level in bodies]
    if not ordered:
        return Posture()
    front = np.mean([bodies[level].frame.front for level in ordered], axis=0)
    right = np.mean([bodies[level].frame.right for level in ordered], axis=0)
    up = np.cross(right, front)

    def kyphosis(upper: str, lower: str, *, top: bool = True, sign: int = 1) -> float | None:
        if upper not in bodies or lower not in bodies:
            return None
        start = bodies[upper].top_normal if top else bodies[upper].bottom_normal
        # Lordosis: the upper end tips backwards against the lower one.
        return sign * (_tilt_deg(start, front, up) - _tilt_deg(bodies[lower].bottom_normal, front, up))

    angle, ends = _coronal(bodies, ordered, right, up)
    return Posture(
        cervical_lordosis_deg=kyphosis("C3", "C7", top=False, sign=-1),
        thoracic_kyphosis_deg=kyphosis("T4", "T12"),
        lumbar_lordosis_deg=kyphosis("L1", "L5", sign=-1),
        coronal_cobb_deg=angle,
        coronal_cobb_levels=ends,
    )


def _tilt_deg(normal: Vector, axis: Vector, up: Vector) -> float:
    """Return the angle of a normal towards ``axis``, degrees, in the plane of ``axis`` and ``up``."""
    return float(np.degrees(np.arctan2(float(normal @ axis), float(normal @ up))))


def _coronal(
    bodies: Mapping[str, BodyShape], ordered: list[str], right: Vector, up: Vector
) -> tuple[float | None, str | None]:
    tilts = {
        f"{upper}-{lower}": abs(
            _tilt_deg(bodies[upper].top_normal, right, up) - _tilt_deg(bodies[lower].bottom_normal, right, up)
        )
        for upper, lower in itertools.combinations(ordered, 2)
    }
    ends = max(tilts, key=lambda pair: tilts[pair], default=None)
    return (None if ends is None else tilts[ends]), ends
