"""Fields of view of common scans, and their placement on label maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.imaging.volume import Volume


@dataclass(frozen=True, slots=True)
class FieldOfView:
    """Field of view of a kind of scan."""

    name: str
    """Name on the command line."""
    top: tuple[str, ...]
    """Levels at which the field may end cranially; each draw picks one."""
    bottom: tuple[str, ...]
    """Levels at which the field may end caudally; each draw picks one."""
    beyond: tuple[float, float]
    """Mean margins above and below, mm; negative values cut into the level."""
    depth: tuple[float, float]
    """Range of the anteroposterior extent, mm."""
    core: tuple[str, str]
    """First and last level that a label map must contain for this field."""


#: Every field of view by its name.
FIELDS: dict[str, FieldOfView] = {
    field.name: field
    for field in (
        FieldOfView("whole", ("C1",), ("S",), (45.0, 70.0), (200.0, 250.0), ("C2", "L5")),
        FieldOfView("cervical", ("C1",), ("T2", "T3", "T4"), (38.0, 8.0), (150.0, 210.0), ("C2", "C7")),
        FieldOfView("cervicothoracic", ("C1",), ("T8", "T9", "T10", "T11"), (35.0, 10.0), (170.0, 230.0), ("C2", "T8")),
        FieldOfView("thoracolumbar", ("T4", "T5", "T6", "T7"), ("S",), (10.0, 55.0), (180.0, 240.0), ("T8", "L5")),
        FieldOfView("lumbar", ("T10", "T11", "T12"), ("S",), (10.0, 50.0), (170.0, 240.0), ("L2", "L5")),
    )
}
FIELDS_OF_VIEW: tuple[str, ...] = tuple(FIELDS)


@dataclass(frozen=True, slots=True)
class PlacedField:
    """Field of view placed on a label map.

    Examples
    --------
    >>> field = PlacedField("lumbar", np.zeros(3), np.array([60.0, 240.0, 280.0]), 2.0)
    >>> field.size.tolist()
    [60.0, 240.0, 280.0]
    """

    name: str
    """Its kind."""
    center: NDArray[np.float64]
    """Shape (3,), RAS mm."""
    size: NDArray[np.float64]
    """Shape (3,): extent left-right, front-back and up-down, mm."""
    lean_deg: float = 0.0
    """How far the column leans to the right of vertical toward its top; a technologist turns the slices along."""


def check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Check that there are names, and that all are known.

    Raises
    ------
    UsageError
        If a name is unknown or there is none.
    """
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        msg = f"unknown {what}: {', '.join(unknown) or 'nothing'}; known are {', '.join(known)}"
        raise UsageError(msg)


def level_centers(volume: Volume) -> dict[str, NDArray[np.float64]]:
    """Return the centre (RAS mm) of every vertebra and the sacrum in a label map, by level.

    Parameters
    ----------
    volume : Volume
        Label map with canonical ids, axes parallel to RAS.
    """
    levels = {label.id: label.level for label in anatomy.LABELS if label.level and not label.level.count("-")}
    found = cc3d.statistics(np.ascontiguousarray(volume.data[::2, ::2, ::2]))
    shown = {label: level for label, level in levels.items() if found["voxel_counts"][label : label + 1].sum() > 8}
    return {level: apply_affine(volume.affine, 2 * found["centroids"][label]) for label, level in shown.items()}


def possible(volume: Volume, names: Sequence[str]) -> tuple[str, ...]:
    """Return the fields of view whose core levels a label map contains."""
    present = level_centers(volume)
    return tuple(name for name in names if all(level in present for level in FIELDS[name].core))


def draw_field(volume: Volume, name: str, rng: np.random.Generator, *, slab: tuple[float, float]) -> PlacedField:
    """Place a field of view on a label map, with the variation of manual planning.

    Parameters
    ----------
    volume : Volume
        Tissue label map, RAS; the field is limited to it.
    name : str
        Name of the field of view.
    rng : numpy.random.Generator
        Draws extent and position.
    slab : tuple of 2 float
        Range of the extent from left to right, mm.

    Returns
    -------
    PlacedField
        Field inside the label map, except for the random variation.

    Raises
    ------
    ValueError
        If the map has no vertebra.

    Examples
    --------
    >>> labels = np.zeros((80, 200, 300), np.uint8)
    >>> for number, label in enumerate(range(22, 17, -1)):  # T12 to L4
    ...     labels[20:60, 60:100, 250 - 40 * number : 280 - 40 * number] = label
    >>> field = draw_field(Volume(labels, np.eye(4)), "lumbar", np.random.default_rng(0), slab=(50.0, 60.0))
    >>> field.name, bool((field.size > 40).all())
    ('lumbar', True)
    """
    field = FIELDS[name]
    centers = level_centers(volume)
    if not centers:
        msg = "no vertebra in the label map"
        raise ValueError(msg)
    heights = {level: float(center[2]) for level, center in centers.items()}
    shape, affine = np.array(volume.data.shape), volume.affine
    corners = np.sort(np.stack([affine[:3, 3], apply_affine(affine, shape - 1)]), axis=0)
    top = _end(heights, str(rng.choice(field.top)), first=True) + field.beyond[0] * float(rng.uniform(0.75, 1.25))
    bottom = _end(heights, str(rng.choice(field.bottom)), first=False) - field.beyond[1] * float(
        rng.uniform(0.75, 1.25)
    )
    top, bottom = min(top, corners[1, 2]), max(bottom, corners[0, 2])
    inside = np.array([c for c in centers.values() if bottom <= c[2] <= top] or list(centers.values()))
    low, high = inside.min(axis=0), inside.max(axis=0)
    depth = float(rng.uniform(*field.depth))
    # In the anteroposterior direction the column lies behind the middle of the field.
    depth = min(max(depth, high[1] - low[1] + 90.0), corners[1, 1] - corners[0, 1])
    y = (low[1] + high[1]) / 2 + depth * float(rng.uniform(0.02, 0.14))
    y = float(np.clip(y, corners[0, 1] + depth / 2, corners[1, 1] - depth / 2))
    slope, offset = np.polyfit(inside[:, 2], inside[:, 0], 1) if len(inside) > 2 else (0.0, inside[:, 0].mean())
    aside = inside[:, 0] - (slope * inside[:, 2] + offset)
    width = min(float(rng.uniform(*slab)) + 0.6 * float(np.ptp(aside)), corners[1, 0] - corners[0, 0])
    z = (top + bottom) / 2
    x = slope * z + offset + (aside.min() + aside.max()) / 2 + float(rng.normal(0, 2.5))
    lean = float(np.rad2deg(np.arctan(slope)))
    return PlacedField(name, np.array([x, y, z]), np.array([width, depth, top - bottom]), lean)


def _end(heights: dict[str, float], level: str, *, first: bool) -> float:
    """Return the height of a level, or of the nearest level outward that the map contains."""
    if level in heights:
        return heights[level]
    order = anatomy.VERTEBRA_LEVELS
    at = order.index(level)
    outward = reversed(order[:at]) if first else iter(order[at:])
    for other in outward:
        if other in heights:
            return heights[other]
    return max(heights.values()) if first else min(heights.values())
