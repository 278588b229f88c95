"""Find the discs, vertebral bodies and sacrum of a semantic map, ordered from cranial to caudal.

Discs are connected parts of the union of the disc classes: bridged discs are split at their waist, pieces of one disc
are joined, specks are removed. Bodies are connected parts of one vertebra class in front of the canal, where neighbours
do not touch as they do at the facets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.centerline import Projection
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.imaging.grid import foreground_box
from totalspineseg_bids.imaging.masks import connected_parts, indices_of, rows_by_value
from totalspineseg_bids.segmentation.class_map import ClassMap, Parity
from totalspineseg_bids.segmentation.labelling.components import parameters
from totalspineseg_bids.segmentation.labelling.components.disc_repair import join_pieces, split_bridged
from totalspineseg_bids.segmentation.labelling.disc_planes import disc_plane, slots_between_planes
from totalspineseg_bids.segmentation.labelling.parameters import DISC_FRONT_MM
from totalspineseg_bids.segmentation.labelling.records import (
    ClassShares,
    ComponentVoxels,
    Observation,
    SpineContext,
    in_front,
    volume_around,
)
from totalspineseg_bids.segmentation.semantic_map import SemanticMap


def extent(values: NDArray[np.float64], tail: float) -> tuple[float, float]:
    """Return the ``tail`` and ``1 - tail`` quantiles of values, without interpolation."""
    low = int(tail * (len(values) - 1))
    high = len(values) - 1 - low
    ordered = np.partition(values, (low, high))
    return float(ordered[low]), float(ordered[high])


def measure(
    kind: Structure,
    index: NDArray[np.int64],
    part: NDArray[np.int64],
    context: SpineContext,
    stride: int = 1,
    *,
    place: Projection | None = None,
) -> list[Observation]:
    """Measure numbered components.

    Parameters
    ----------
    kind
        Structure of the components.
    index
        Voxel indices on the grid of the maps, shape (N, 3).
    part
        Component of each voxel, -1 to leave it out, shape (N,).
    context
        Maps, grid and centreline.
    stride
        Step of the subsample that the voxels come from.
    place
        Position of the voxels relative to the centreline; computed if ``None``.

    Returns
    -------
    list[Observation]
        Ordered from cranial to caudal.
    """
    used = part >= 0
    index, part = index[used], part[used]
    if len(part) == 0:
        return []
    points = index * context.spacing
    projection = context.centerline.project(points) if place is None else place.rows(used)
    voxel = context.voxel_mm3 * stride**3
    number = int(part.max()) + 1
    tables = [_tally(m, index, part, number) for m, _ in context.maps]
    found = []
    for n, whole in rows_by_value(part).items():
        rows = whole
        s = projection.s[rows]
        ends = extent(s, 0.01) if kind is Structure.SACRUM else (0.0, 0.0)
        if kind is Structure.SACRUM:
            rows = _sacrum_top(rows, projection)
            s = projection.s[rows]
        low, high = extent(s, 0.05)
        center, lateral = points[rows].mean(axis=0), float(projection.lateral[rows].mean())
        width = float(np.ptp(points[rows, 0]) + stride * context.spacing[0])
        cut = context.cut_of(index[whole], center, lateral / width, stride)
        found.append(
            Observation(
                kind=kind,
                center=center,
                s=float(projection.s[rows].mean()),
                s_low=float(low),
                s_high=float(high),
                anterior=float(projection.anterior[rows].mean()),
                lateral=lateral,
                volume_mm3=len(whole) * voxel,
                cut=cut,
                class_shares=tuple(
                    _class_shares(counts[n], m.class_map, weight, kind)
                    for counts, (m, weight) in zip(tables, context.maps, strict=True)
                ),
                part=n,
                length_mm=float(ends[1] - ends[0]) if kind is Structure.SACRUM else float(high - low),
                width_mm=width,
            )
        )
    return sorted(found, key=lambda o: o.s)


def _sacrum_top(rows: NDArray[np.int64], projection: Projection) -> NDArray[np.int64]:
    """Return the rows of the upper end of the body of a sacrum; its wings and arches reach above the disc L5-S."""
    body = rows[in_front(projection.rows(rows))]
    if len(body) < parameters.SACRUM_BODY_SHARE * len(rows):
        body = rows
    s = projection.s[body]
    return body[s <= extent(s, 0.01)[0] + parameters.SACRUM_TOP_MM]


def _tally(semantic: SemanticMap, index: NDArray[np.int64], part: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Count the voxels of each class in each component, shape (number, 256)."""
    values = semantic.labels[index[:, 0], index[:, 1], index[:, 2]].astype(np.int64)
    return np.bincount(part * 256 + values, minlength=number * 256).reshape(number, 256)


def _class_shares(counts: NDArray[np.int64], layout: ClassMap, weight: float, kind: Structure) -> ClassShares:
    levels: dict[str, float] = {}
    regions: dict[str, float] = {}
    parity = {Parity.ODD: 0.0, Parity.EVEN: 0.0}
    total = max(float(counts.sum()), 1.0)
    for value, meaning in layout.meanings.items():
        share = float(counts[value]) / total
        if share == 0 or meaning.kind != kind:
            continue
        if meaning.level is not None:
            levels[meaning.level] = levels.get(meaning.level, 0.0) + share
        elif meaning.region is not None:
            regions[meaning.region] = regions.get(meaning.region, 0.0) + share
        if meaning.parity:
            parity[meaning.parity] += share
    return ClassShares(levels, regions, parity[Parity.ODD], parity[Parity.EVEN], weight, layout.level_names)


def connected(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find and number the connected parts of a mask.

    Returns
    -------
    tuple
        Voxel indices, shape (N, 3), and the part of each, from 0.
    """
    box = foreground_box(mask)
    if box is None:
        return np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    inside = np.ascontiguousarray(mask[box])
    numbered, _ = connected_parts(inside)
    index = indices_of(inside) + np.array([s.start for s in box])
    return index, np.asarray(numbered[inside], np.int64) - 1


def label_discs(mask: NDArray[np.bool_], voxel_mm3: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Assign numbers to the connected parts of the disc mask.

    Returns
    -------
    tuple
        Voxel indices, shape (N, 3), and the part of each from 0, -1 for specks.
    """
    index, part = connected(mask)
    counts = np.bincount(part) if len(part) else np.zeros(0, np.int64)
    large = counts * voxel_mm3 >= parameters.DISC_SPECK_MM3
    renumbered = np.where(large, np.cumsum(large) - 1, -1)
    return index, renumbered[part] if len(part) else part


def disc_parts(
    index: NDArray[np.int64],
    part: NDArray[np.int64],
    context: SpineContext,
) -> ComponentVoxels:
    """Repair and measure the discs.

    Parameters
    ----------
    index
        Voxel indices of the disc classes, shape (N, 3).
    part
        Connected part of each voxel, as `label_discs` returns it, shape (N,).
    context
        Maps, grid and centreline.

    Returns
    -------
    ComponentVoxels
        Discs from cranial to caudal.
    """
    projection = context.centerline.project(index * context.spacing)
    part, cut = split_bridged(part, projection.s, projection.anterior, projection.lateral)
    first = measure(Structure.DISC, index, part, context, place=projection)
    part, joined = join_pieces(first, part, cut)
    if joined or len(first) != len(np.unique(part[part >= 0])):
        first = measure(Structure.DISC, index, part, context, place=projection)
    observations = []
    for found in first:
        if found.volume_mm3 < parameters.SMALL_DISC_MM3 and found.cut is Cut.NONE:
            part[part == found.part] = -1
            continue
        note = "joined" if found.part in joined else "split" if found.part in cut else ""
        observations.append(replace(found, note=note) if note else found)
    return ComponentVoxels(index, part, tuple(observations), projection)


def body_parts(
    values: NDArray[np.uint8],
    layout: ClassMap,
    context: SpineContext,
    discs: ComponentVoxels,
    stride: int,
) -> tuple[ComponentVoxels, ComponentVoxels]:
    """Find and measure the vertebral bodies and the sacrum on every ``stride``-th voxel.

    Bodies are found only for classes of one level, or if the layout separates neighbouring vertebrae.

    Parameters
    ----------
    values
        Semantic map at every ``stride``-th voxel.
    layout
        Meaning of the integers of the map.
    context
        Maps, grid and centreline.
    discs
        Discs, at whose planes connected bodies are cut.
    stride
        Step of the subsample.

    Returns
    -------
    tuple of ComponentVoxels
        Vertebrae and sacrum, indices on the full grid.
    """
    vertebra_values = [v for v, m in layout.meanings.items() if m.kind is Structure.VERTEBRA]
    separating = [v for v in vertebra_values if layout.separates_vertebrae or layout.meanings[v].level is not None]
    row_lists, part_lists, offset = [], [], 0
    voxel = context.voxel_mm3 * stride**3
    table = np.zeros(256, bool)
    table[separating] = True
    coarse = indices_of(table[values])
    projection = context.centerline.project(coarse * (stride * context.spacing))
    front = np.flatnonzero(in_front(projection))
    body = coarse[front]
    classes = values[body[:, 0], body[:, 1], body[:, 2]]
    for value in separating:
        rows = front[classes == value]
        mine = coarse[rows]
        if len(mine) * voxel < parameters.BODY_SPECK_MM3:
            continue
        low = mine.min(axis=0)
        grid = np.zeros(mine.max(axis=0) - low + 1, bool)
        local = mine - low
        grid[local[:, 0], local[:, 1], local[:, 2]] = True
        numbered, number = connected_parts(grid)
        part = np.asarray(numbered[local[:, 0], local[:, 1], local[:, 2]], np.int64) - 1
        part[np.bincount(part, minlength=number)[part] * voxel < parameters.BODY_SPECK_MM3] = -1
        row_lists.append(rows[part >= 0])
        part_lists.append(part[part >= 0] + offset)
        offset += number
    rows = np.concatenate(row_lists) if row_lists else np.zeros(0, np.int64)
    part = np.concatenate(part_lists) if part_lists else np.zeros(0, np.int64)
    index, place = coarse[rows] * stride, projection.rows(rows)
    part = _cut_long(index, part, place.s, context, discs)
    part, fused = cut_fused(part, place.s, discs)
    bodies = measure(Structure.VERTEBRA, index, part, context, stride, place=place)
    pieces = pieces_between_discs(bodies, discs)
    if pieces:
        part = _merge_groups(part, pieces)
        bodies = measure(Structure.VERTEBRA, index, part, context, stride, place=place)
    part, bodies = _join_bodies(index, part, bodies, context, stride, place=place)
    sacrum = _sacrum_parts(values, layout, context, stride)
    noted = tuple(replace(b, note="fused") if b.part in fused else b for b in bodies)
    return ComponentVoxels(index, part, noted, place), sacrum


def _ordinary(discs: ComponentVoxels) -> list[Observation]:
    """Return the discs that can separate bodies: in front of the canal and not much smaller than their neighbours."""
    found = [d for d in discs.observations if d.anterior > DISC_FRONT_MM and d.volume_mm3 > parameters.SMALL_DISC_MM3]
    return [
        d
        for d in found
        if d.cut > Cut.SIDES
        or d.volume_mm3 > parameters.SLIGHT_DISC_SHARE * volume_around(d, found, parameters.NEIGHBOURS_MM)
    ]


def _cut_long(
    index: NDArray[np.int64],
    part: NDArray[np.int64],
    s: NDArray[np.float64],
    context: SpineContext,
    discs: ComponentVoxels,
) -> NDArray[np.int64]:
    """Cut parts that are longer than a vertebra at the discs within them: bodies of one class that touch."""
    ordinary = _ordinary(discs)
    if len(part) == 0 or len(ordinary) < 2:
        return part
    step = float(np.median(np.diff([d.s for d in ordinary])))
    places = np.array([d.s for d in ordinary])
    part = part.copy()
    fresh = int(part.max()) + 1
    for n in range(fresh):
        rows = np.flatnonzero(part == n)
        if len(rows) == 0:
            continue
        low, high = extent(s[rows], 0.03)
        end = parameters.BODY_END_SHARE * step
        inside = np.flatnonzero((places > low + end) & (places < high - end))
        if high - low < parameters.LONG_RATIO * step or len(inside) == 0:
            continue
        cuts = [disc_plane(discs.index[discs.part == ordinary[k].part], context) for k in inside]
        slot = slots_between_planes(index[rows] * context.spacing, cuts, context)
        part[rows] = np.where(slot > 0, fresh + slot - 1, n)
        fresh += len(cuts)
    return part


def cut_fused(
    part: NDArray[np.int64], s: NDArray[np.float64], discs: ComponentVoxels
) -> tuple[NDArray[np.int64], frozenset[int]]:
    """Cut block vertebrae, which are as long as two or three of their neighbours, into equal bodies.

    Only parts between two discs and below another body are cut, because C2 with its dens, alone or connected to C1, is
    as long as two bodies, and voxels of the class disc above it are false.

    Parameters
    ----------
    part
        Body of each voxel, -1 for none, shape (N,).
    s
        Arc length of each voxel, mm, shape (N,).
    discs
        Discs of the image.

    Returns
    -------
    tuple
        New part numbers, and the numbers of those that came from a cut.
    """
    numbers = [int(n) for n in np.unique(part) if n >= 0]
    ordinary = _ordinary(discs)
    places = np.array([d.s for d in ordinary])
    if len(numbers) < 4 or len(places) < 2:
        return part, frozenset()
    ends = {n: extent(s[part == n], 0.03) for n in numbers}
    thick = float(np.median([d.s_high - d.s_low for d in ordinary]))
    fused: set[int] = set()
    part = part.copy()
    fresh = max(numbers) + 1
    for n in numbers:
        low, high = ends[n]
        middle, length = (low + high) / 2, high - low
        others = [((e[0] + e[1]) / 2, e[1] - e[0]) for m, e in ends.items() if m != n]
        near = _nearest(middle, others)
        if len(near) < 3:
            continue
        typical = max(float(np.median(near)), 1.0)
        end = parameters.BODY_END_SHARE * typical
        inside = (places > low + end) & (places < high - end)
        between = (places < low + end).any() and (places > high - end).any()
        first = not any(e[1] < low + end for m, e in ends.items() if m != n)
        # The height of the missing discs is part of the block.
        pieces = max(2, round((float(length) + thick) / (typical + thick)))
        if first or length < parameters.FUSED_RATIO * typical or pieces > 3 or inside.any() or not between:
            continue
        rows = np.flatnonzero(part == n)
        slot = np.clip(((s[rows] - low) / length * pieces).astype(np.int64), 0, pieces - 1)
        part[rows] = np.where(slot > 0, fresh + slot - 1, n)
        fused |= {n, *range(fresh, fresh + pieces - 1)}
        fresh += pieces - 1
    return part, frozenset(fused)


def _nearest(place: float, others: Sequence[tuple[float, float]]) -> list[float]:
    """Return the values of the `NEIGHBOURING_BODIES` places nearest to a place; ``others`` are places and values."""
    near = sorted((abs(at - place), value) for at, value in others)
    return [value for distance, value in near[: parameters.NEIGHBOURING_BODIES] if distance < parameters.NEIGHBOURS_MM]


def _merge_groups(part: NDArray[np.int64], groups: Sequence[Sequence[Observation]]) -> NDArray[np.int64]:
    """Renumber the pieces of each group to the number of its largest piece."""
    target = np.arange(int(part.max()) + 1)
    for pieces in groups:
        target[[piece.part for piece in pieces]] = max(pieces, key=lambda o: o.volume_mm3).part
    return np.where(part >= 0, target[part], -1)


def _join_bodies(
    index: NDArray[np.int64],
    part: NDArray[np.int64],
    bodies: list[Observation],
    context: SpineContext,
    stride: int,
    *,
    place: Projection,
) -> tuple[NDArray[np.int64], list[Observation]]:
    """Join pieces of one body, whose extent along the canal lies mostly within that of a larger piece."""
    target = np.arange(int(part.max()) + 1 if len(part) else 0)
    changed = False
    for small in sorted(bodies, key=lambda o: o.volume_mm3):
        best: tuple[float, Observation] | None = None
        for large in bodies:
            # The dens of C2 and the ring of C1 have similar heights but are two vertebrae.
            if large is small or large.volume_mm3 <= small.volume_mm3 or _named_apart(small, large):
                continue
            common = min(small.s_high, large.s_high) - max(small.s_low, large.s_low)
            share = common / max(small.s_high - small.s_low, 1.0)
            near = (
                abs(small.s - large.s)
                < parameters.PIECE_OFFSET_RATIO * (large.s_high - large.s_low) + parameters.PIECE_OFFSET_MM
            )
            if share > parameters.PIECE_OVERLAP and near and (best is None or share > best[0]):
                best = share, large
        if best is not None:
            target[target == small.part] = target[best[1].part]
            changed = True
    if not changed:
        return part, bodies
    part = np.where(part >= 0, target[part], -1)
    return part, measure(Structure.VERTEBRA, index, part, context, stride, place=place)


def pieces_between_discs(bodies: Sequence[Observation], discs: ComponentVoxels) -> list[list[Observation]]:
    """Return groups of bodies between two neighbouring discs, which are pieces of one body.

    If a disc was not found, there are two bodies between its neighbours, so discs that are further apart than those
    around them are skipped.

    Parameters
    ----------
    bodies
        Bodies of the image.
    discs
        Discs of the image.
    """
    ordinary = _ordinary(discs)
    places = np.array([d.s for d in ordinary])
    gaps = np.diff(places)
    middles = (places[:-1] + places[1:]) / 2
    found = []
    for n, gap in enumerate(gaps):
        # Gaps grow from the neck to the chest, so the nearest ones on both sides are compared.
        around = _nearest(middles[n], [(middles[m], g) for m, g in enumerate(gaps) if m != n])
        if not around or gap > parameters.ONE_BODY_GAP_RATIO * float(np.median(around)):
            continue
        pieces = [o for o in bodies if places[n] < o.s < places[n + 1]]
        if len(pieces) > 1:
            found.append(pieces)
    return found


def _named_apart(a: Observation, b: Observation) -> bool:
    """Return whether the classes name the two components as different levels."""
    first, second = _named(a), _named(b)
    return (first is not None or second is not None) and first != second


def _named(observation: Observation) -> str | None:
    for class_shares in observation.class_shares:
        for level, share in class_shares.levels.items():
            if share > 0.5:
                return level
    return None


def _sacrum_parts(
    values: NDArray[np.uint8],
    layout: ClassMap,
    context: SpineContext,
    stride: int,
) -> ComponentVoxels:
    """Find the sacrum: the largest part of its class."""
    table = layout.kind_table == Structure.SACRUM
    index, part = connected(table[values])
    if len(index) == 0:
        return ComponentVoxels(index, part, ())
    largest = int(np.argmax(np.bincount(part)))
    part = np.where(part == largest, 0, -1)
    volume = np.count_nonzero(part == 0) * context.voxel_mm3 * stride**3
    if volume < parameters.SACRUM_SPECK_MM3:
        part = np.full_like(part, -1)
    found = measure(Structure.SACRUM, index * stride, part, context, stride)
    return ComponentVoxels(index * stride, part, tuple(found))
