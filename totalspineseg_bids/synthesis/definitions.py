"""Measure what the labels of a map mean, and convert maps of other conventions (docs/definitions.md)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.bodies import endplate_thickness
from totalspineseg_bids.synthesis.body_profile import ENDPLATE, FAT, SOFT
from totalspineseg_bids.synthesis.fields_of_view import level_centers
from totalspineseg_bids.synthesis.morphometry import SAC
from totalspineseg_bids.synthesis.rasterize import FIRST_SPINE_LABEL, LocalFrame

_VERTEBRAE = np.isin(anatomy.STRUCTURES, (Structure.VERTEBRA, Structure.SACRUM))
_DISCS = anatomy.STRUCTURES == Structure.DISC
_CANAL = np.isin(anatomy.STRUCTURES, (Structure.CANAL, Structure.CORD))
_LUMBAR_DISCS = ("T12-L1", "L1-L2", "L2-L3", "L3-L4", "L4-L5", "L5-S")
_STEP = 0.25  # mm between samples of a line
#: Tissue nearer than this to both a disc and a body is endplate, mm.
_RIM_MM = 2.3
#: A canal nearer to the bodies than this fills the bony ring, mm.
_CLEAR_MM = 0.9
#: Discs thinner than this keep their voxels.
_THIN_MM = 4.0
#: Length of the dural sac below the top of the sacrum, mm (to S1/S2).
_SAC_IN_SACRUM_MM = 38.0
#: A canal is not reduced below this share of the mean cross-section of a sac at its level.
_LEAST_AREA = 0.85


@dataclass(frozen=True, slots=True)
class DiscGeometry:
    """Size of a disc and its distance from the bodies, mm; NaN where a body is not in the map."""

    thickness: tuple[float, float, float]
    """In front, in the middle and behind."""
    gap: tuple[float, float, float]
    """Unlabelled distance to a body, mean of above and below; in front, in the middle and behind."""
    extent: tuple[float, float]
    """Depth (front to back) of the disc, and mean depth of the endplates above and below."""


@dataclass(frozen=True, slots=True)
class CanalGeometry:
    """The canal behind the middle of a vertebral body."""

    area: float
    """Cross-section with the cord, mm^2."""
    body_area: float
    """Cross-section of the body, mm^2."""
    front: float
    """Distance to the body, mm."""
    back: float
    """Distance to lamina or spinous process in the midline, mm; NaN if there is none at this height."""


def label_points(volume: Volume, *ids: int) -> NDArray[np.float64]:
    """Return the positions of the voxels of labels, shape (N, 3), RAS mm."""
    # Much faster than argwhere, which looks for three indices at once.
    flat = np.flatnonzero(np.isin(volume.data, ids) if len(ids) > 1 else volume.data == ids[0])
    points: NDArray[np.float64] = apply_affine(
        volume.affine, np.stack(np.unravel_index(flat, volume.data.shape), axis=1)
    )
    return points


def disc_frame(volume: Volume, level: str) -> LocalFrame | None:
    """Return centre and axes of a disc, or None if the map has fewer than 30 voxels of it."""
    points = label_points(volume, anatomy.disc(level).id)
    if len(points) < 30:
        return None
    centre = points.mean(axis=0)
    up = np.linalg.svd((points - centre)[:: max(1, len(points) // 4000)], full_matrices=False)[2][2]
    return _frame(centre, up)


def _frame(centre: NDArray[np.float64], up: NDArray[np.float64]) -> LocalFrame:
    up = up / np.linalg.norm(up) * (1.0 if up[2] > 0 else -1.0)
    front = np.array([0.0, 1.0, 0.0]) - up * up[1]
    front /= np.linalg.norm(front)
    return LocalFrame(centre, np.stack([np.cross(front, up), front, up], axis=1))


def _sample(volume: Volume, frame: LocalFrame, right: ArrayLike, front: ArrayLike, up: ArrayLike) -> NDArray[np.uint8]:
    """Return the labels at local coordinates (mm; arrays that broadcast), 0 outside the map."""
    local = np.stack(np.broadcast_arrays(right, front, up), axis=-1).astype(float)
    places = np.rint(apply_affine(np.linalg.inv(volume.affine), local @ frame.axes.T + frame.origin)).astype(int)
    inside = np.all((places >= 0) & (places < volume.data.shape), axis=-1)
    index = tuple(np.where(inside, places[..., axis], 0) for axis in range(3))
    labels: NDArray[np.uint8] = np.where(inside, volume.data[index], 0).astype(np.uint8)
    return labels


def _run(inside: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """Return first and last index of the run of true values around an index, or an empty run."""
    if not inside[at]:
        return at, at - 1
    false = np.flatnonzero(~inside)
    place = int(np.searchsorted(false, at))
    first = int(false[place - 1]) + 1 if place else 0
    return first, (int(false[place]) if place < len(false) else len(inside)) - 1


def measure_disc(volume: Volume, level: str) -> DiscGeometry | None:
    """Measure a disc of a label map along its own axes.

    Parameters
    ----------
    volume : Volume
        Label map with canonical ids, RAS, any voxel size.
    level : str
        Disc, such as ``"L3-L4"``.

    Returns
    -------
    DiscGeometry or None
        None if the map does not show the disc.
    """
    frame = disc_frame(volume, level)
    if frame is None:
        return None
    label = anatomy.disc(level).id
    line = np.arange(-45.0, 45.0, _STEP)
    middle = len(line) // 2
    first, last = _run(_sample(volume, frame, 0.0, line, 0.0) == label, middle)
    if last < first:
        return None
    low, high = float(line[first]), float(line[last]) + _STEP
    aside, along = np.array([-5.0, -2.5, 0.0, 2.5, 5.0]), np.arange(-25.0, 25.0, _STEP)
    thickness, gaps, ends = [], [], []
    for share in (0.83, 0.5, 0.17):
        front = low + share * (high - low) + np.array([-1.5, 0.0, 1.5])
        columns = _sample(volume, frame, aside[:, None, None], front[:, None], along).reshape(-1, len(along))
        found = []
        for column in columns:
            disc = np.flatnonzero(column == label)
            bone = np.flatnonzero(_VERTEBRAE[column])
            if len(disc):
                above, below = bone[bone > disc[-1]], bone[bone < disc[0]]
                found.append((
                    len(disc) * _STEP,
                    (above[0] - disc[-1] - 1) * _STEP if len(above) else np.nan,
                    (disc[0] - below[-1] - 1) * _STEP if len(below) else np.nan,
                ))  # fmt: skip
        rows = np.array(found or [(np.nan,) * 3])
        thickness.append(float(rows[:, 0].mean()))
        gaps.append(float(np.nanmean(rows[:, 1:])) if np.isfinite(rows[:, 1:]).any() else np.nan)
        ends.append(rows.mean(axis=0))
    depths = []
    for side in (1.0, -1.0):
        beyond = side * (ends[1][0] / 2 + ends[1][1 if side > 0 else 2] + 2.5)
        if np.isfinite(beyond):
            first, last = _run(_VERTEBRAE[_sample(volume, frame, 0.0, line, beyond)], middle)
            depths.append((last - first + 1) * _STEP)
    endplates = float(np.mean(depths)) if depths and min(depths) > 0 else np.nan
    return DiscGeometry(
        (thickness[0], thickness[1], thickness[2]), (gaps[0], gaps[1], gaps[2]), (high - low, endplates)
    )


def measure_canal(volume: Volume, above: str, below: str) -> CanalGeometry | None:
    """Measure the canal at the vertebra between two discs, in planes across the line through their centres.

    Parameters
    ----------
    volume : Volume
        Label map with canonical ids, RAS, any voxel size.
    above, below : str
        Neighbouring discs, such as ``"L2-L3"`` and ``"L3-L4"``.

    Returns
    -------
    CanalGeometry or None
        None if the map does not show both discs and the canal.
    """
    ends = [disc_frame(volume, level) for level in (above, below)]
    if ends[0] is None or ends[1] is None:
        return None
    upper, lower = ends[0].origin, ends[1].origin
    frame = _frame((upper + lower) / 2, upper - lower)
    right, front = np.arange(-32.0, 32.0, 0.5), np.arange(-60.0, 32.0, 0.5)
    areas, bodies, ahead, behind = [], [], [], []
    for up in np.arange(-0.3, 0.31, 0.1) * float(np.linalg.norm(upper - lower)):
        plane = _sample(volume, frame, right[:, None], front, up)
        canal, bone = _CANAL[plane], _VERTEBRAE[plane]
        if canal.sum() < 40:
            continue
        if abs(up) < 4.0:
            wall = front[np.flatnonzero(canal.any(axis=0))[-1]]
            areas.append(canal.sum() * 0.25)
            bodies.append((bone & (front > wall)).sum() * 0.25)
        centre = round(float(np.flatnonzero(canal.any(axis=1)).mean()))
        for row in range(centre - 5, centre + 6, 2):
            inside, wall_at = np.flatnonzero(canal[row]), np.flatnonzero(bone[row])
            if not len(inside):
                continue
            forward, backward = wall_at[wall_at > inside[-1]], wall_at[wall_at < inside[0]]
            if len(forward):
                ahead.append((forward[0] - inside[-1] - 1) * 0.5)
            if len(backward):
                behind.append((inside[0] - backward[-1] - 1) * 0.5)
    if not areas or not ahead:
        return None
    return CanalGeometry(
        float(np.median(areas)),
        float(np.median(bodies)),
        float(np.median(ahead)),
        float(np.median(behind)) if behind else float("nan"),
    )


def measure_lumbar_spine(volume: Volume) -> dict[str, float]:
    """Return the measures of the table in docs/definitions.md, medians from T12-L1 to L5-S.

    Parameters
    ----------
    volume : Volume
        Label map with canonical ids, RAS, any voxel size.

    Returns
    -------
    dict of str to float
        mm, or ratios; NaN for what the map does not show.
    """
    discs = [found for level in _LUMBAR_DISCS if (found := measure_disc(volume, level)) is not None]
    pairs = itertools.pairwise(_LUMBAR_DISCS)
    canal = {f"L{n}": measure_canal(volume, *pair) for n, pair in enumerate(pairs, start=1)}
    shown = [found for found in canal.values() if found is not None]

    def median(values: list[float]) -> float:
        return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")

    def share(level: str) -> float:
        found = canal[level]
        return float("nan") if found is None else found.area / found.body_area

    return {
        "endplate": median([gap for disc in discs for gap in disc.gap]),
        "thickness": median([disc.thickness[1] for disc in discs]),
        "disc : gap": median([1 / (1 + 2 * disc.gap[1] / disc.thickness[1]) for disc in discs]),
        "disc : endplate": median([disc.extent[0] / disc.extent[1] for disc in discs]),
        **{f"canal : {level}": share(level) for level in ("L1", "L3", "L5")},
        "in front": median([found.front for found in shown]),
        "behind": median([found.back for found in shown]),
    }


def follow_definitions(volume: Volume) -> Volume:
    """Return a label map whose discs and canal follow the definitions of docs/definitions.md.

    Maps from CT atlases let discs touch the bodies, and let the canal fill the bony ring. Of such discs one layer of
    voxels on either side becomes endplate; where a disc is thin, the layer is taken from the bodies. Of such a canal
    the dural sac remains, with fat around it (other soft tissue in the neck), down to S2. Structures that follow the
    definitions are left as they are.

    Parameters
    ----------
    volume : Volume
        Tissue label map with canonical ids, RAS, isotropic.

    Returns
    -------
    Volume
        The map itself where nothing has to be changed, else a changed copy.
    """
    labels = volume.data.copy()
    boxes = ndimage.find_objects(labels, max_label=255)
    for level in anatomy.DISC_LEVELS:
        geometry = measure_disc(volume, level)
        if geometry is not None:
            label = anatomy.disc(level).id
            around = tuple(slice(max(0, s.start - 3), s.stop + 3) for s in boxes[label - 1])
            _separate_disc(labels[around], label, geometry, volume.spacing[0])
    canals = (measure_canal(volume, *pair) for pair in itertools.pairwise(anatomy.REGULAR_DISCS))
    if np.median([canal.front for canal in canals if canal is not None] or [np.inf]) < _CLEAR_MM:
        _reduce_canal(labels, volume)
    return volume if np.array_equal(labels, volume.data) else Volume(labels, volume.affine)


def _separate_disc(part: NDArray[np.uint8], label: int, geometry: DiscGeometry, spacing: float) -> None:
    """Put endplates between a disc and its bodies, in place, or name those that are there."""
    gap, thickness = float(np.nanmean(geometry.gap)), geometry.thickness[1]
    disc, bone = part == label, _VERTEBRAE[part]
    to_disc, to_bone = (ndimage.distance_transform_edt(~mask, spacing) for mask in (disc, bone))
    between = (part < FIRST_SPINE_LABEL) & (to_disc < _RIM_MM) & (to_bone < _RIM_MM)
    if np.count_nonzero(part[between] == ENDPLATE) < 0.3 * np.count_nonzero(between):
        part[between] = ENDPLATE
    if gap < 0.4 * endplate_thickness(thickness + 2 * gap):
        near = 1.5 * spacing  # a layer of one voxel, with its neighbours across edges where the surface is oblique
        part[disc & (to_bone < near) if thickness > _THIN_MM else bone & (to_disc < near)] = ENDPLATE


def _reduce_canal(labels: NDArray[np.uint8], volume: Volume) -> None:
    """Reduce a canal that fills the bony ring to the dural sac, in place."""
    canal, spacing = _CANAL[labels], volume.spacing[0]
    box = tuple(slice(max(0, s.start - 8), s.stop + 8) for s in ndimage.find_objects(canal.astype(np.uint8))[0])
    part, canal = labels[box], canal[box]
    wall = _VERTEBRAE[part] | _DISCS[part] | (part == ENDPLATE)
    distance, nearest = ndimage.distance_transform_edt(~wall, spacing, return_indices=True)
    heights = volume.affine[2, 3] + spacing * (np.arange(part.shape[2]) + box[2].start)
    known = {level: float(centre[2]) for level, centre in level_centers(volume).items() if level in SAC}
    end_of_neck = known.get("C7", -np.inf if any(name[0] == "C" for name in known) else np.inf)
    sacrum = volume.data == anatomy.SACRUM_ID
    end = -np.inf
    if sacrum.any():
        end = apply_affine(volume.affine, np.argwhere(sacrum))[:, 2].max() - _SAC_IN_SACRUM_MM
    # Clearances in front, beside and behind by height, mm.
    front = np.interp(heights, *_by_height(known, {"C7": 1.0, "T6": 1.0, "L3": 1.2, "L4": 2.0, "L5": 3.0}))
    back = np.interp(heights, *_by_height(known, {"C7": 1.6, "T6": 2.5, "T12": 3.0, "L2": 4.0, "L5": 4.0}))
    y = np.arange(part.shape[1])[None, :, None]
    direction = (nearest[1] - y) * spacing / np.maximum(distance, 1e-3)
    wanted = 1.2 + np.maximum(direction, 0) * (front - 1.2) + np.maximum(-direction, 0) * (back - 1.2)
    # Voxel centres lie half a voxel from the face of the wall.
    depth = (distance - spacing / 2) / wanted
    target = np.interp(heights, *_by_height(known, {name: np.pi / 4 * w * d for name, (w, d, _) in SAC.items()}))
    for z in range(part.shape[2]):
        inside = canal[:, :, z]
        if not inside.any():
            continue
        keep = np.sort(depth[:, :, z][inside])[::-1]
        # A canal that is narrower than a sac to begin with stays as it is.
        least = keep[min(len(keep) - 1, int(_LEAST_AREA * target[z] / spacing**2))]
        lost = inside & (depth[:, :, z] < min(1.0, least)) & (part[:, :, z] != anatomy.CORD_ID)
        if heights[z] < end:
            lost = inside
        # Where the sac is kept for its size, the bone recedes by a voxel.
        touching = _VERTEBRAE[part[:, :, z]] & ndimage.binary_dilation(inside & ~lost)
        part[:, :, z][lost | touching] = SOFT if heights[z] > end_of_neck else FAT


def _by_height(
    known: Mapping[str, float], values: Mapping[str, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the heights (ascending) and values of the levels that a map shows; without any, the values' mean."""
    rows = sorted((known[level], value) for level, value in values.items() if level in known)
    if not rows:
        return np.zeros(1), np.array([float(np.mean(list(values.values())))])
    at, value = np.array(rows).T
    return at, value
