"""Describe a labelled map: components, flags and the points of the disc levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.imaging.grid import Box
from totalspineseg_bids.imaging.masks import indices_of, rows_by_value
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.labelling import plausibility
from totalspineseg_bids.segmentation.labelling.parameters import END_RATIOS
from totalspineseg_bids.segmentation.labelling.records import (
    ComponentVoxels,
    LabelledComponents,
    LevelSolution,
    Naming,
    Observation,
    SpineContext,
)
from totalspineseg_bids.segmentation.result import ColumnHypothesis, Component, DiscPoint, LabelledSpine, SpineStatus

_SIZE_FLAGS = {plausibility.TOO_LARGE: "odd-size", plausibility.TOO_SMALL: "odd-size", plausibility.SLIVER: "sliver"}


def summarize(
    labels: Volume,
    box: Box,
    found: LabelledComponents,
    naming: Naming,
) -> LabelledSpine:
    """Build the result of the labelling from the label map and the named components.

    Parameters
    ----------
    labels
        Label map of the whole field of view, canonical ids.
    box
        Foreground within the field of view.
    found
        Components of the box with their levels.
    naming
        Ids of the components.
    """
    context, observations, solution, discs = found.context, found.observations, found.solution, found.discs
    offset = np.array([s.start for s in box], float)
    affine = labels.affine

    def to_scanner(local: NDArray[np.float64]) -> NDArray[np.float64]:
        index = local / context.spacing + offset
        return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])

    components = _components(labels.data[box], context, solution, naming, to_scanner)
    odd_sizes = [f"{_SIZE_FLAGS[c.reason]}:{c.level}" for c in components if c.reason in _SIZE_FLAGS]
    return LabelledSpine(
        labels=labels.data,
        affine=affine,
        components=components,
        status=naming.status,
        reason=naming.reason,
        flags=(*_flags(observations, solution, naming), *odd_sizes),
        hypothesis=_hypothesis(solution),
        centerline_mm=to_scanner(context.centerline.seen),
        disc_points=tuple(
            DiscPoint(level, (float(p[0]), float(p[1]), float(p[2])))
            for level, s in _disc_places(observations, solution, naming, context, discs)
            for p in [to_scanner(context.centerline.at(s)[None])[0]]
        ),
    )


def _hypothesis(solution: LevelSolution) -> ColumnHypothesis:
    rows = sorted((n for n, level in enumerate(solution.levels) if level), key=lambda n: solution.confidence[n])
    return ColumnHypothesis(
        thoracic=solution.variant.thoracic,
        lumbar=solution.variant.lumbar,
        confidence=solution.variant_confidence,
        scale=solution.scale,
        margin=solution.shift_margin,
        runner_up=solution.runner_up[rows[len(rows) // 2]] if rows else None,
    )


def _components(
    part: NDArray[np.uint8],
    context: SpineContext,
    solution: LevelSolution,
    naming: Naming,
    to_scanner: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> tuple[Component, ...]:
    by_id = {label: n for n, label in enumerate(naming.ids) if label is not None}
    drawn = indices_of(part > 0)
    value = part[tuple(drawn.T)]
    counts = np.bincount(value, minlength=256)
    cuts: dict[int, Cut] = {}
    rows: list[tuple[float, Component]] = []
    for number, label_rows in rows_by_value(value).items():
        index = drawn[label_rows]
        known = anatomy.BY_ID[number]
        local = index.mean(axis=0) * context.spacing
        projection = context.centerline.project(local[None])
        width = (np.ptp(index[:, 0]) + 1) * context.spacing[0]
        cuts[number] = context.cut_of(index, local, float(projection.lateral[0] / width))
        place, center = float(projection.s[0]), to_scanner(local[None])[0]
        n = by_id.get(number)
        level = known.level or None
        confidence, runner_up, reason = 1.0, None, None
        if known.structure in (Structure.VERTEBRA, Structure.DISC, Structure.SACRUM):
            confidence, runner_up, reason = _certainty(n, level, solution, naming, by_id)
        else:
            place += 1e6 + number
        component = Component(
            label_id=number,
            structure=known.structure,
            level=level,
            confidence=confidence,
            runner_up=runner_up,
            reason=reason,
            touches_edge=cuts[number] is not Cut.NONE,
            volume_mm3=float(counts[number] * context.voxel_mm3),
            centroid_mm=(float(center[0]), float(center[1]), float(center[2])),
        )
        rows.append((place, component))
    odd_sizes = _odd_sizes(counts, cuts)
    ordered = [component for _, component in sorted(rows, key=lambda row: row[0])]
    return tuple(replace(c, reason=c.reason or odd_sizes.get(c.label_id)) for c in ordered)


def _odd_sizes(counts: NDArray[np.int64], cuts: Mapping[int, Cut]) -> dict[int, str]:
    """Return why the size of an id is implausible, by id.

    Parameters
    ----------
    counts
        Number of voxels of each id, shape (256,).
    cuts
        How the field of view cuts each id that has voxels.
    """
    bones = {v: anatomy.vertebra(v).id for v in anatomy.VERTEBRA_LEVELS if v != "S"}
    discs = {d: anatomy.disc(d).id for d in anatomy.DISC_LEVELS}
    reasons: dict[int, str] = {}
    for ids in (bones, discs):
        volumes = {level: float(counts[label]) for level, label in ids.items() if counts[label]}
        at_edge = {level for level in volumes if cuts[ids[level]] is not Cut.NONE}
        implausible = dict.fromkeys(plausibility.slivers(volumes, at_edge, tuple(ids)), plausibility.SLIVER)
        if ids is bones:
            # A slab leaves similar shares of neighbours in view, except for C1 and C2.
            implausible |= plausibility.size_outliers(
                volumes, {v for v in at_edge if v in END_RATIOS or cuts[ids[v]] > Cut.SIDES}
            )
        reasons |= {ids[level]: reason for level, reason in implausible.items()}
    return reasons


def _certainty(
    n: int | None,
    level: str | None,
    solution: LevelSolution,
    naming: Naming,
    by_id: dict[int, int],
) -> tuple[float, str | None, str | None]:
    """Return confidence, runner-up and reason of one component."""
    if n is None:
        # A vertebra without a component of its own is as certain as the discs around it.
        if level is None:
            return 0.0, None, naming.reason or "its discs have no level"
        beside = "C2" if level == "C1" else level
        near = [m for label, m in by_id.items() if beside in anatomy.BY_ID[label].level.split("-")]
        sure = min((solution.confidence[m] for m in near), default=0.0)
        doubts = [naming.reasons[m] for m in near if naming.reasons[m]]
        return sure, None, next(iter(doubts), naming.doubt)
    if level is None:
        return 0.0, solution.levels[n], naming.reasons[n]
    return solution.confidence[n], solution.runner_up[n], naming.reasons[n]


def _flags(observations: Sequence[Observation], solution: LevelSolution, naming: Naming) -> tuple[str, ...]:
    """List the findings to review."""
    flags: list[str] = []
    if naming.status is SpineStatus.LABELLED:
        seen = {level for n, level in enumerate(solution.levels) if naming.ids[n] is not None}
        variant = solution.variant
        if variant.thoracic == 13 and seen & {"T13", "T12-T13"}:
            flags.append("T13")
        if variant.lumbar == 6 and seen & {"L6", "L5-L6"}:
            flags.append("L6")
        if variant.thoracic == 11 and {"T12-L1", "T10-T11"} <= seen:
            flags.append("11-thoracic")
        if variant.lumbar == 4 and {"T12-L1", "L5-S"} <= seen:
            flags.append("4-lumbar")
        flags.extend(f"missing-disc:{level}" for level in solution.missing)
        if any(reason is not None for reason in naming.reasons):
            flags.append("doubtful-levels")
    for n, observation in enumerate(observations):
        name = solution.levels[n] if naming.status is SpineStatus.LABELLED else None
        what = "disc" if observation.kind is Structure.DISC else "vertebra"
        if naming.ids[n] is None:
            flags.append(f"false-{what}")
        elif observation.note:
            flags.append(f"{observation.note}-{what}" + (f":{name}" if name else ""))
    return tuple(dict.fromkeys(flags))


def _disc_places(
    observations: Sequence[Observation],
    solution: LevelSolution,
    naming: Naming,
    context: SpineContext,
    discs: ComponentVoxels,
) -> list[tuple[str, float]]:
    """Return the arc length of the posterior third of each named disc, mm, and of the joint between C1 and C2."""
    places: list[tuple[str, float]] = []
    tops: dict[str, float] = {}
    for n, observation in enumerate(observations):
        label, level = naming.ids[n], solution.levels[n]
        if label is None or level is None or anatomy.is_unnamed(label):
            continue
        if observation.kind is Structure.VERTEBRA and level in {"C1", "C2"}:
            tops[level] = observation.s
        if observation.kind is not Structure.DISC:
            continue
        rows = discs.part == observation.part
        projection = (
            context.centerline.project(discs.index[rows] * context.spacing)
            if discs.place is None
            else discs.place.rows(rows)
        )
        hind = projection.anterior <= np.percentile(projection.anterior, 33)
        places.append((level, float(projection.s[hind].mean())))
    if {"C1", "C2"} <= tops.keys():
        places.insert(0, ("C1-C2", (tops["C1"] + tops["C2"]) / 2))
    return places
