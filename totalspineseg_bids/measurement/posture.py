"""Angles of the spine as a whole, from the surfaces of vertebral bodies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from totalspineseg_bids.anatomy import VERTEBRA_LEVELS
from totalspineseg_bids.columns import TableColumn, index_columns

if TYPE_CHECKING:
    from totalspineseg_bids.imaging.centerline import Vector
    from totalspineseg_bids.measurement.body_shape import BodyShape


def _angle(name: str, title: str, description: str) -> TableColumn:
    return TableColumn(name, description, title, "degree", kind="number", decimals=1)


#: Columns of the angles of the spine, by name and in order.
POSTURE_COLUMNS: Final[dict[str, TableColumn]] = index_columns(
    _angle(
        "cervical-lordosis-deg",
        "Cervical lordosis",
        "Angle between the lower surfaces of C3 and C7 seen from the side; positive: lordosis",
    ),
    _angle(
        "thoracic-kyphosis-deg",
        "Thoracic kyphosis",
        "Angle between the upper surface of T4 and the lower surface of T12; positive: kyphosis",
    ),
    _angle(
        "lumbar-lordosis-deg",
        "Lumbar lordosis L1-L5",
        "Angle between the upper surface of L1 and the lower surface of L5; positive: lordosis",
    ),
    _angle(
        "coronal-cobb-deg",
        "Coronal Cobb angle",
        "Largest angle between surfaces of two vertebral bodies seen from the front, whole bodies only",
    ),
    TableColumn("coronal-cobb-levels", "Upper and lower end vertebra", title="End vertebrae of the coronal Cobb angle"),
)
#: Names of the columns that hold an angle.
ANGLES: Final = tuple(name for name, column in POSTURE_COLUMNS.items() if column.kind == "number")


@dataclass(frozen=True, slots=True)
class Posture:
    """Curvature of the spine; ``None`` if an end vertebra is not completely in the field of view.

    Angles lie between planes fitted to vertebral surfaces (Cobb, Instr Course Lect 1948, 5:261); the supine
    position of MRI makes them smaller than in a standing radiograph.

    Examples
    --------
    >>> Posture(lumbar_lordosis_deg=48.25).as_row()["lumbar-lordosis-deg"]
    '48.2'
    """

    cervical_lordosis_deg: float | None = None
    """Lower surface of C3 to lower surface of C7, degrees, positive for lordosis."""
    thoracic_kyphosis_deg: float | None = None
    """Upper surface of T4 to lower surface of T12, degrees, positive for kyphosis."""
    lumbar_lordosis_deg: float | None = None
    """Upper surface of L1 to lower surface of L5, degrees, positive for lordosis."""
    coronal_cobb_deg: float | None = None
    """Largest angle in the coronal plane, degrees."""
    coronal_cobb_levels: str | None = None
    """The two end vertebrae, such as ``"T5-T11"``."""

    def as_row(self) -> dict[str, str]:
        """Return the columns of `POSTURE_COLUMNS` as text, ``n/a`` where there is no value."""
        return {name: column.format(getattr(self, name.replace("-", "_"))) for name, column in POSTURE_COLUMNS.items()}


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

    def sagittal(upper: str, lower: str, *, top: bool) -> float | None:
        if upper not in bodies or lower not in bodies:
            return None
        start = bodies[upper].top_normal if top else bodies[upper].bottom_normal
        # Lordosis: the upper end tips backwards against the lower one.
        return _tilt_deg(start, front, up) - _tilt_deg(bodies[lower].bottom_normal, front, up)

    kyphosis = sagittal("T4", "T12", top=True)
    angle, ends = _coronal(bodies, ordered, right, up)
    return Posture(
        cervical_lordosis_deg=_lordosis(sagittal("C3", "C7", top=False)),
        thoracic_kyphosis_deg=kyphosis,
        lumbar_lordosis_deg=_lordosis(sagittal("L1", "L5", top=True)),
        coronal_cobb_deg=angle,
        coronal_cobb_levels=ends,
    )


def _lordosis(forward_tilt: float | None) -> float | None:
    return None if forward_tilt is None else -forward_tilt


def _tilt_deg(normal: Vector, axis: Vector, up: Vector) -> float:
    """Return the angle of a normal towards ``axis``, degrees, in the plane of ``axis`` and ``up``."""
    return float(np.degrees(np.arctan2(float(normal @ axis), float(normal @ up))))


def _coronal(
    bodies: Mapping[str, BodyShape], ordered: list[str], right: Vector, up: Vector
) -> tuple[float | None, str | None]:
    best, ends = None, None
    for upper, lower in itertools.combinations(ordered, 2):
        start = _tilt_deg(bodies[upper].top_normal, right, up)
        angle = abs(start - _tilt_deg(bodies[lower].bottom_normal, right, up))
        if best is None or angle > best:
            best, ends = angle, f"{upper}-{lower}"
    return best, ends
