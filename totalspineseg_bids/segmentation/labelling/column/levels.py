"""Find the levels of an ordered column by exact dynamic programming over all components and hypotheses.

The column is a hidden chain of places (C1, C2, C2-C3, C3, … sacrum). Each component is either at a place after those of
earlier components, or not part of the column; empty places between two components have a cost. The forward and backward
recursions sum over all assignments and give the posterior probability of every level of each component, from which
`decoding` chooses one level.

The recursions use probabilities instead of their logarithms. The table of each component is stored relative to its
largest entry together with the logarithm of that entry. In double precision this covers about 700 nats below the most
probable assignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling.column import parameters
from totalspineseg_bids.segmentation.labelling.column.decoding import expected_naming
from totalspineseg_bids.segmentation.labelling.column.evidence import anchors, emissions
from totalspineseg_bids.segmentation.labelling.column.hypotheses import Hypotheses, build_hypotheses
from totalspineseg_bids.segmentation.labelling.column.parameters import WEIGHTS, Chain
from totalspineseg_bids.segmentation.labelling.column.parity import Parities, parity_scores
from totalspineseg_bids.segmentation.labelling.column.rejection import rejection_costs
from totalspineseg_bids.segmentation.labelling.records import CanalExtent, LevelSolution, Observation

Table = NDArray[np.float64]


class _Step(NamedTuple):
    """Probabilities of a step from one component to another by the number of places."""

    jumps: tuple[int, ...]
    """Numbers of places."""
    weight: tuple[NDArray[np.float32], ...]
    """One table per jump relative to the largest entry, shape (H, 1, P - jump), by the place where the step ends."""
    scale: float
    """Logarithm of the largest entry."""


class _Scaled(NamedTuple):
    """Table of probabilities relative to a scale, shape (H, F, P), and the logarithm of the scale."""

    table: Table
    scale: float


@dataclass(frozen=True)
class _Lattice:
    """Input of the recursions; tables have the axes hypothesis, phase, place."""

    emission: list[_Scaled]
    start: list[_Scaled | None]
    end: list[_Scaled | None]
    steps: dict[tuple[int, int], _Step]
    flips: Table
    shape: tuple[int, int, int]


def solve_levels(observations: Sequence[Observation], view: CanalExtent) -> LevelSolution:
    """Find the levels of a column.

    Parameters
    ----------
    observations
        Discs, vertebral bodies and sacrum, ordered from cranial to caudal by arc length.
    view
        Extent of the canal in view.

    Returns
    -------
    LevelSolution
        Levels, posterior probabilities and missing discs; empty without components.
    """
    if not observations:
        return LevelSolution((), (), (), SpineVariant(), 0.0, 1.0)
    solution = _solve(observations, view)
    if solution is not None:
        return solution
    costs = rejection_costs(observations)
    for least in parameters.REJECT_BELOW:
        kept = [n for n, cost in enumerate(costs) if cost >= least]
        solution = _solve([observations[n] for n in kept], view) if kept else None
        if solution is not None:
            rejected = float(sum(cost for cost in costs if cost < least))
            solution = replace(solution, log_likelihood=solution.log_likelihood - rejected)
            return _insert_rejected(solution, kept, len(observations))
    return _insert_rejected(LevelSolution((), (), (), SpineVariant(), 0.0, 1.0), (), len(observations))


def _insert_rejected(solution: LevelSolution, kept: Sequence[int], count: int) -> LevelSolution:
    """Extend a solution of the ``kept`` components to all ``count`` components; the others are rejected."""
    row = {n: k for k, n in enumerate(kept)}
    return replace(
        solution,
        levels=tuple(solution.levels[row[n]] if n in row else None for n in range(count)),
        confidence=tuple(solution.confidence[row[n]] if n in row else 1.0 for n in range(count)),
        runner_up=tuple(solution.runner_up[row[n]] if n in row else None for n in range(count)),
        tables=tuple(solution.tables[row[n]] if n in row else {None: 1.0} for n in range(count)),
    )


def _solve(observations: Sequence[Observation], view: CanalExtent) -> LevelSolution | None:
    """Find the levels; ``None`` if no order of levels explains the components."""
    hypotheses = build_hypotheses()
    lattice = _build_lattice(observations, hypotheses, view)
    forward = _forward(lattice)
    rows = _plausible_hypotheses(lattice, forward)
    if len(rows) == 0:
        return None
    lattice, forward = _select(lattice, rows), [f._replace(table=f.table[rows]) for f in forward]
    variant = hypotheses.variant[rows]
    evidence = _log_likelihood(lattice, forward)
    posterior = _posterior(forward, _backward(lattice), evidence)
    tables = [_by_name(posterior[n], o.kind, hypotheses.chains, variant) for n, o in enumerate(observations)]
    # A path has one variant, so the component that is most certainly part of the column gives the share of variants.
    by_hypothesis = posterior[min(range(len(tables)), key=lambda n: tables[n][None])].sum(axis=1)
    by_variant = np.bincount(variant, by_hypothesis / max(by_hypothesis.sum(), 1e-12), len(hypotheses.chains))
    sides = [1 if o.kind is Structure.DISC else 0 for o in observations]
    number, places = expected_naming(tables, sides, hypotheses.chains, by_variant.tolist())
    chain = hypotheses.chains[number]
    scale = hypotheses.scale[rows[int(np.argmax(np.where(variant == number, by_hypothesis, -1.0)))]]
    levels, confidence, runner_up = [], [], []
    for n, observation in enumerate(observations):
        place = places.get(n)
        names = chain.discs if observation.kind is Structure.DISC else chain.vertebrae
        level = names[place] if place is not None else None
        table = tables[n]
        levels.append(level)
        confidence.append(table.get(level, 0.0))
        others = {name: p for name, p in table.items() if name != level}
        runner_up.append(max(others, key=lambda name: others[name]) if others else None)
    matched = [n for n in range(len(observations)) if n in places]
    middle = float(np.median([confidence[n] for n in matched])) if matched else 0.0
    return LevelSolution(
        levels=tuple(levels),
        confidence=tuple(float(np.clip(c, 0.0, 1.0)) for c in confidence),
        runner_up=tuple(runner_up),
        variant=chain.variant,
        variant_confidence=float(by_variant[number]),
        scale=float(scale),
        missing=_missing(observations, places, chain.discs),
        anchored=any(n in places for n in anchors(observations)),
        shift_margin=float(np.log(max(middle, 1e-9)) - np.log(max(1 - middle, 1e-9))),
        tables=tuple(tables),
        log_likelihood=evidence,
    )


def _missing(observations: Sequence[Observation], places: dict[int, int], discs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the levels of discs between the outermost ones found that have no component."""
    found = {place for n, place in places.items() if observations[n].kind is Structure.DISC}
    if not found:
        return ()
    return tuple(discs[p] for p in range(min(found), max(found)) if p not in found and discs[p])


def _by_name(
    posterior: Table, kind: Structure, chains: Sequence[Chain], variant: NDArray[np.int64]
) -> dict[str | None, float]:
    """Sum the posterior of a component, shape (H, P), by level; the key ``None`` means "not part of the column"."""
    table: dict[str | None, float] = {}
    for v, chain in enumerate(chains):
        names = chain.discs if kind is Structure.DISC else chain.vertebrae
        share = posterior[variant == v].sum(axis=0)
        for place, name in enumerate(names):
            if name and share[place] > 1e-9:
                table[name] = table.get(name, 0.0) + float(share[place])
    table[None] = max(0.0, 1.0 - sum(table.values()))
    return table


def _scaled(logs: Table) -> _Scaled:
    top = float(logs.max())
    return _Scaled(np.exp(logs - top), top)


def _build_lattice(observations: Sequence[Observation], hypotheses: Hypotheses, view: CanalExtent) -> _Lattice:
    side = [1 if o.kind is Structure.DISC else 0 for o in observations]
    levels = emissions(observations, hypotheses, view)
    parities: Parities = parity_scores(observations, hypotheses.places)
    count, phases, places = len(hypotheses.scale), len(parities.prior), hypotheses.places
    emission = [_scaled(levels[n][:, None, :] + parities.scores[n][None]) for n in range(len(observations))]
    before = np.concatenate([[0.0], np.cumsum(rejection_costs(observations))])
    start: list[_Scaled | None] = []
    end: list[_Scaled | None] = []
    for n, observation in enumerate(observations):
        ahead, after = float(before[n]), float(before[-1] - before[n + 1])
        first = last = None
        if ahead < 2 * parameters.LARGEST_SKIP:
            above = _end_costs(hypotheses, side[n], observation.s - view.top, upwards=True)
            prior = hypotheses.prior[:, None] - above - ahead
            first = _scaled(prior[:, None] + parities.prior[None, :, None])
        if after < 2 * parameters.LARGEST_SKIP:
            below = _end_costs(hypotheses, side[n], view.bottom - observation.s, upwards=False)
            last = _scaled(np.broadcast_to((-below - after)[:, None], (count, phases, places)))
        start.append(first)
        end.append(last)
    steps = {}
    bodies = side.count(0) > 2
    for n in range(len(observations)):
        for m in range(max(0, n - parameters.WINDOW), n):
            skipped = float(before[n] - before[m + 1])
            if skipped < parameters.LARGEST_SKIP:
                step = _step(observations[m], observations[n], hypotheses, bodies=bodies)
                steps[m, n] = step._replace(scale=step.scale - skipped)
    return _Lattice(emission, start, end, steps, parities.flips, (count, phases, places))


def _end_costs(hypotheses: Hypotheses, side: int, room: float, *, upwards: bool) -> Table:
    """Return the cost of the discs that should be in view beyond the outermost component, shape (H, P)."""
    here = hypotheses.position[:, :, side][:, :, None]
    discs = hypotheses.position[:, None, :, 1]
    distance = here - discs if upwards else discs - here
    seen = (
        (distance > parameters.NEXT_DISC_MM)
        & (distance < room - parameters.END_ROOM_MM)
        & hypotheses.exists[:, None, :, 1]
    )
    return np.asarray(np.minimum(seen.sum(axis=2) * WEIGHTS.end_level, WEIGHTS.end_limit))


def _step(upper: Observation, lower: Observation, hypotheses: Hypotheses, *, bodies: bool) -> _Step:
    """Return the probabilities of the steps between two components by their distance and the levels between them."""
    a, b = (1 if o.kind is Structure.DISC else 0 for o in (upper, lower))
    # A piece at the side of a disc is not farther along the column than its middle.
    straight = np.square(lower.center - upper.center).sum() - (lower.lateral - upper.lateral) ** 2
    distance = float(np.sqrt(max(straight, 0.0)))
    if distance > parameters.STRAIGHT_MM:
        distance = max(distance, lower.s - upper.s)
    extra = WEIGHTS.spacing_floor_mm**2 + sum(
        (parameters.VERTEBRA_SD_MM**2 if o.kind is Structure.VERTEBRA else 0.0)
        + (parameters.SACRUM_SD_MM**2 if o.kind is Structure.SACRUM else 0.0)
        + (parameters.EDGE_SD_MM**2 if o.cut is Cut.ALONG else 0.0)
        for o in (upper, lower)
    )
    jumps, logs = [], []
    for q in _plausible(distance, (a, b), extra, hypotheses):
        expected = hypotheses.steps[a][b][q]
        variance = np.square(np.float32(WEIGHTS.spacing_sd) * np.maximum(expected, np.float32(1.0))) + np.float32(extra)
        # The class of the dens and of the ring of C1 varies.
        if a == 0 or b == 0:
            variance[:, : max(0, 2 + (b == 1) - q)] += parameters.TOP_SD_MM**2
        deviation = np.square(np.float32(distance) - expected) / (2 * variance)
        jumps.append(q)
        logs.append(-np.minimum(deviation, WEIGHTS.spacing_cap) - _gap(q, (a, b), hypotheses.places, bodies=bodies))
    top = max(float(log.max()) for log in logs)
    return _Step(tuple(jumps), tuple(np.exp(log - top)[:, None] for log in logs), top)


def _plausible(distance: float, sides: tuple[int, int], extra: float, hypotheses: Hypotheses) -> tuple[int, ...]:
    """Return the numbers of places that a distance may span under any hypothesis."""
    costs = {}
    a, b = sides
    for q in range(1 if b <= a else 0, parameters.LONGEST_STEP + 1):
        low, high = hypotheses.reach[a][b][q]
        nearest = min(max(distance, low), high)
        variance = (WEIGHTS.spacing_sd * nearest) ** 2 + extra + parameters.TOP_SD_MM**2
        costs[q] = 0.5 * (distance - nearest) ** 2 / variance
    least = min(costs.values())
    return tuple(q for q, cost in costs.items() if cost <= max(parameters.HOPELESS, least))


@cache
def _gap(q: int, sides: tuple[int, int], places: int, *, bodies: bool) -> NDArray[np.float32]:
    """Return the cost of the empty places in a step of ``q`` places, shape (places - q,)."""
    a, b = sides
    # C1 has no disc below it, so a step from C1 skips one disc less.
    discs = np.full(places - q, max(q - (1 if a == 1 else 0), 0), float)
    if a == 0:
        discs[:1] = np.maximum(discs[:1] - 1, 0)
    cost: NDArray[np.floating] = _affine(discs, WEIGHTS.missing_disc)
    if bodies:
        vertebrae = max(q - (1 if b == 0 else 0), 0)
        cost = cost + _affine(np.asarray(float(vertebrae)), WEIGHTS.missing_vertebra)
        if a == 0 and vertebrae:
            cost[:1] += WEIGHTS.missing_axis
    return cost.astype(np.float32)


def _affine(number: Table, first: float) -> Table:
    return np.where(number > 0, first * (1 + parameters.FURTHER_MISSING * (number - 1)), 0.0)


def _apply_flips(values: Table, flips: Table) -> Table:
    """Apply the probabilities of a change of phase between two components."""
    if len(flips) == 1:
        return values
    return np.asarray(np.einsum("hfp,fg->hgp", values, flips))


def _sum_scaled(parts: list[_Scaled]) -> _Scaled:
    """Add tables of different scales."""
    top = max(part.scale for part in parts)
    total = np.zeros_like(parts[0].table)
    for part in parts:
        total = total + part.table * np.exp(part.scale - top)
    return _Scaled(total, top)


def _rescaled(table: Table, scale: float) -> _Scaled:
    top = float(table.max())
    if top <= 0.0:
        return _Scaled(table, scale)
    return _Scaled(table / top, scale + float(np.log(top)))


def _forward(lattice: _Lattice) -> list[_Scaled]:
    """Return the joint probability of each place of a component and all components above it."""
    result: list[_Scaled] = []
    moved: list[Table] = []
    for n, emission in enumerate(lattice.emission):
        parts = []
        first = lattice.start[n]
        if first is not None:
            parts.append(_Scaled(np.broadcast_to(first.table, lattice.shape), first.scale))
        for m in range(max(0, n - parameters.WINDOW), n):
            step = lattice.steps.get((m, n))
            if step is None:
                continue
            arriving = np.zeros(lattice.shape)
            for q, weight in zip(step.jumps, step.weight, strict=True):
                arriving[:, :, q:] += moved[m][:, :, : lattice.shape[2] - q] * weight
            parts.append(_Scaled(arriving, result[m].scale + step.scale))
        incoming = _sum_scaled(parts)
        result.append(_rescaled(incoming.table * emission.table, incoming.scale + emission.scale))
        moved.append(_apply_flips(result[-1].table, lattice.flips))
    return result


def _plausible_hypotheses(lattice: _Lattice, forward: list[_Scaled]) -> NDArray[np.int64]:
    """Return the hypotheses with more than `NEGLIGIBLE_HYPOTHESIS` of the probability."""
    finals = [(f, e) for f, e in zip(forward, lattice.end, strict=True) if e is not None]
    top = max(f.scale + e.scale for f, e in finals)
    mass = sum(np.einsum("hfp,hfp->h", f.table, e.table) * np.exp(f.scale + e.scale - top) for f, e in finals)
    return np.flatnonzero(np.asarray(mass) > parameters.NEGLIGIBLE_HYPOTHESIS * np.sum(mass))


def _select(lattice: _Lattice, rows: NDArray[np.int64]) -> _Lattice:
    """Return the lattice of some of the hypotheses."""

    def cut(part: _Scaled | None) -> _Scaled | None:
        return None if part is None else part._replace(table=part.table[rows])

    return _Lattice(
        emission=[part._replace(table=part.table[rows]) for part in lattice.emission],
        start=[cut(part) for part in lattice.start],
        end=[cut(part) for part in lattice.end],
        steps={k: step._replace(weight=tuple(w[rows] for w in step.weight)) for k, step in lattice.steps.items()},
        flips=lattice.flips,
        shape=(len(rows), *lattice.shape[1:]),
    )


def _backward(lattice: _Lattice) -> list[_Scaled]:
    """Return the probability of all components below each component given its place."""
    count = len(lattice.emission)
    result: list[_Scaled] = [_Scaled(np.zeros(0), 0.0)] * count
    arriving: list[_Scaled] = [_Scaled(np.zeros(0), 0.0)] * count
    for m in range(count - 1, -1, -1):
        parts = []
        last = lattice.end[m]
        if last is not None:
            parts.append(last)
        for n in range(m + 1, min(count, m + 1 + parameters.WINDOW)):
            step = lattice.steps.get((m, n))
            if step is None:
                continue
            leaving = np.zeros(lattice.shape)
            for q, weight in zip(step.jumps, step.weight, strict=True):
                leaving[:, :, : lattice.shape[2] - q] += arriving[n].table[:, :, q:] * weight
            leaving = _apply_flips(leaving, lattice.flips)
            parts.append(_Scaled(leaving, arriving[n].scale + step.scale))
        gathered = _sum_scaled(parts)
        result[m] = _rescaled(gathered.table, gathered.scale)
        emission = lattice.emission[m]
        arriving[m] = _rescaled(result[m].table * emission.table, result[m].scale + emission.scale)
    return result


def _log_likelihood(lattice: _Lattice, forward: list[_Scaled]) -> float:
    """Return the logarithm of the sum over all paths but the one that rejects every component."""
    totals = [
        f.scale + e.scale + float(np.log(max(float((f.table * e.table).sum()), 1e-300)))
        for f, e in zip(forward, lattice.end, strict=True)
        if e is not None
    ]
    return float(np.logaddexp.reduce(np.asarray(totals)))


def _posterior(forward: list[_Scaled], backward: list[_Scaled], evidence: float) -> list[Table]:
    """Return the posterior probability of each component at each place under each hypothesis, N of shape (H, P)."""
    return [
        np.asarray((f.table * b.table).sum(axis=1) * np.exp(min(f.scale + b.scale - evidence, 50.0)))
        for f, b in zip(forward, backward, strict=True)
    ]
