"""Levels of an ordered column: one exact dynamic programme over all components and all hypotheses at once.

The column is a hidden chain of places (C1, C2, C2-C3, C3, … sacrum). Each component is either at a place, after all
earlier ones, or no part of the column; places between two components may go unobserved at a price. The sum over all
assignments (forward and backward recursion) gives each component's posterior probability of every level; the greatest
one (Viterbi) gives the labelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.segmentation.labelling.evidence import (
    NEVER,
    Hypotheses,
    View,
    anchors,
    build_hypotheses,
    emissions,
    false_prices,
    parity_scores,
)
from totalspineseg_bids.segmentation.labelling.observation import Observation
from totalspineseg_bids.segmentation.labelling.reference import Prices
from totalspineseg_bids.segmentation.layout import Kind

#: Most places that one step may pass, and most components that may lie between two that are kept.
_LONGEST_STEP = 8
_WINDOW = 7
_FURTHER_MISSING = 0.4
#: Runs of components that are dearer than this to leave out are not considered, nats.
_LARGEST_SKIP = 14.0


@dataclass(frozen=True, slots=True)
class LevelSolution:
    """Levels of the components of one column.

    Attributes
    ----------
    levels
        Level of each component on the best path; ``None`` for those that are no part of the column.
    confidence
        Posterior probability of that level (of being no part of the column for ``None``).
    runner_up
        The next most probable level, ``None`` if that is "no part of the column".
    variant
        Numbers of vertebrae on the best path.
    variant_confidence
        Posterior probability of that variant.
    scale
        Size of the subject against an adult.
    missing
        Discs between the first and the last component that were not found, on the best path.
    anchored
        Whether anything in view names a level.
    shift_margin
        Log-ratio of the probability of the best path's naming to that of all namings shifted against it by one
        level or more, nats.
    """

    levels: tuple[str | None, ...]
    confidence: tuple[float, ...]
    runner_up: tuple[str | None, ...]
    variant: SpineVariant
    variant_confidence: float
    scale: float
    missing: tuple[str, ...] = ()
    anchored: bool = False
    shift_margin: float = 0.0


@dataclass(frozen=True)
class _Lattice:
    """Everything the recursions need; arrays have axes hypothesis, phase, place."""

    side: NDArray[np.int64]
    emission: list[NDArray[np.floating]]
    start: list[NDArray[np.floating]]
    end: list[NDArray[np.floating]]
    steps: dict[tuple[int, int], NDArray[np.floating]]
    false: NDArray[np.floating]
    shape: tuple[int, int, int]


def solve_levels(observations: Sequence[Observation], view: View, prices: Prices | None = None) -> LevelSolution:
    """Find the levels of a column.

    Parameters
    ----------
    observations
        Discs, vertebral bodies and sacrum, ordered from cranial to caudal by arc length.
    view
        What else the image shows of the column.
    prices
        What each disagreement costs.

    Returns
    -------
    LevelSolution
        Best path, posterior probabilities and what is missing. Without components everything is empty.
    """
    prices = prices or Prices()
    hypotheses = build_hypotheses()
    if not observations:
        return LevelSolution((), (), (), SpineVariant(), 0.0, 1.0)
    lattice = _build_lattice(observations, hypotheses, view, prices)
    forward = _forward(lattice, maximum=False)
    backward = _backward(lattice)
    posterior = _posterior(lattice, forward, backward)
    best = _forward(lattice, maximum=True)
    hypothesis, places = _trace(lattice, best)
    chain = hypotheses.chains[int(hypotheses.variant[hypothesis])]
    tables = [_by_name(posterior[n], o.kind, hypotheses) for n, o in enumerate(observations)]
    levels, confidence, runner_up = [], [], []
    for n, observation in enumerate(observations):
        place = places.get(n)
        names = chain.discs if observation.kind is Kind.DISC else chain.vertebrae
        level = names[place] if place is not None else None
        table = tables[n]
        levels.append(level)
        confidence.append(table.get(level, 0.0))
        others = {name: p for name, p in table.items() if name != level}
        runner_up.append(max(others, key=lambda name: others[name]) if others else None)
    by_variant = np.zeros(len(hypotheses.chains))
    total = np.sum(posterior[0], axis=(1, 2))
    # Every complete path has the same hypothesis throughout; the false share of one component is shared out evenly.
    np.add.at(by_variant, hypotheses.variant, total)
    matched = [n for n in range(len(observations)) if n in places]
    if matched:
        strongest = max(matched, key=lambda n: confidence[n])
        by_variant = np.zeros(len(hypotheses.chains))
        np.add.at(by_variant, hypotheses.variant, np.sum(posterior[strongest], axis=(1, 2)))
    share = float(by_variant[int(hypotheses.variant[hypothesis])] / max(by_variant.sum(), 1e-12))
    named = [confidence[n] for n in matched]
    middle = float(np.median(named)) if named else 0.0
    return LevelSolution(
        levels=tuple(levels),
        confidence=tuple(float(np.clip(c, 0.0, 1.0)) for c in confidence),
        runner_up=tuple(runner_up),
        variant=chain.variant,
        variant_confidence=share,
        scale=float(hypotheses.scale[hypothesis]),
        missing=_missing(observations, places, chain.discs),
        anchored=any(n in places for n in anchors(observations)),
        shift_margin=float(np.log(max(middle, 1e-9)) - np.log(max(1 - middle, 1e-9))),
    )


def _missing(observations: Sequence[Observation], places: dict[int, int], discs: tuple[str, ...]) -> tuple[str, ...]:
    """Discs between the outermost found ones that no component stands for."""
    found = {place for n, place in places.items() if observations[n].kind is Kind.DISC}
    if not found:
        return ()
    return tuple(discs[p] for p in range(min(found), max(found)) if p not in found and discs[p])


def _by_name(posterior: NDArray[np.floating], kind: Kind, hypotheses: Hypotheses) -> dict[str | None, float]:
    """Sum a component's posterior over hypotheses, by level name; ``None`` is "no part of the column"."""
    table: dict[str | None, float] = {}
    for v, chain in enumerate(hypotheses.chains):
        names = chain.discs if kind is Kind.DISC else chain.vertebrae
        share = posterior[hypotheses.variant == v].sum(axis=(0, 1))
        for place, name in enumerate(names):
            if name and share[place] > 1e-9:
                table[name] = table.get(name, 0.0) + float(share[place])
    table[None] = max(0.0, 1.0 - sum(table.values()))
    return table


def _build_lattice(observations: Sequence[Observation], hypotheses: Hypotheses, view: View, prices: Prices) -> _Lattice:
    side = np.array([1 if o.kind is Kind.DISC else 0 for o in observations])
    levels = emissions(observations, hypotheses, view, prices)
    parity, phase_prior = parity_scores(observations, hypotheses.places, prices)
    count, phases, places = len(hypotheses.scale), len(phase_prior), hypotheses.places
    emission = [(levels[n][:, None, :] + parity[n][None]).astype(np.float32) for n in range(len(observations))]
    false = false_prices(observations, prices)
    before = np.concatenate([[0.0], np.cumsum(false)])
    start, end = [], []
    for n, observation in enumerate(observations):
        above = _beyond(hypotheses, int(side[n]), observation.s - view.canal_top, prices, upwards=True)
        below = _beyond(hypotheses, int(side[n]), view.canal_bottom - observation.s, prices, upwards=False)
        prior = hypotheses.prior[:, None] - above - before[n]
        start.append((prior[:, None] + phase_prior[None, :, None] + np.zeros(places)).astype(np.float32))
        tail = -below - (before[-1] - before[n + 1])
        end.append(np.broadcast_to(tail[:, None].astype(np.float32), (count, phases, places)))
    steps = {}
    bodies = bool((side == 0).sum() > 2)
    for n in range(len(observations)):
        for m in range(max(0, n - _WINDOW), n):
            skipped = float(before[n] - before[m + 1])
            if skipped < _LARGEST_SKIP:
                step = _step_score(observations[m], observations[n], hypotheses, prices, bodies=bodies)
                steps[m, n] = (step - skipped).astype(np.float32)
    return _Lattice(side, emission, start, end, steps, false, (count, phases, places))


def _beyond(hypotheses: Hypotheses, side: int, room: float, prices: Prices, *, upwards: bool) -> NDArray[np.floating]:
    """Cost of the discs that should be in view beyond the last component, shape (H, P)."""
    here = hypotheses.position[:, :, side][:, :, None]
    discs = hypotheses.position[:, None, :, 1]
    distance = here - discs if upwards else discs - here
    seen = (distance > 3.0) & (distance < room - 8.0) & hypotheses.exists[:, None, :, 1]
    return np.asarray(np.minimum(seen.sum(axis=2) * prices.end_level, prices.end_limit))


def _step_score(
    upper: Observation, lower: Observation, hypotheses: Hypotheses, prices: Prices, *, bodies: bool
) -> NDArray[np.floating]:
    """Log-likelihood of the step between two components, shape (H, Q, P): Q places down to place P of the lower one."""
    a, b = (1 if o.kind is Kind.DISC else 0 for o in (upper, lower))
    distance = float(np.linalg.norm(lower.center - upper.center))
    if distance > 70.0:
        distance = max(distance, lower.s - upper.s)
    places = hypotheses.places
    jumps = np.arange(_LONGEST_STEP + 1)
    origin = np.arange(places)[None] - jumps[:, None]
    valid = origin >= 0
    expected = hypotheses.position[:, None, :, b] - hypotheses.position[:, np.maximum(origin, 0), a]
    floor = prices.spacing_floor_mm
    extra = sum(
        (1.5**2 if o.kind is Kind.VERTEBRA else 0.0)
        + (6.0**2 if o.kind is Kind.SACRUM else 0.0)
        + (5.0**2 if o.touches_edge else 0.0)
        for o in (upper, lower)
    )
    variance = (prices.spacing_sd * np.maximum(expected, 1.0)) ** 2 + floor**2 + extra
    # The dens and the ring of C1 vary in what the map makes of them.
    if a == 0 or b == 0:
        near_top = np.zeros((1, len(jumps), places))
        near_top[:, :, : 2 + (b == 1)] = 4.0**2
        variance = variance + near_top
    deviation = 0.5 * (distance - expected) ** 2 / variance
    passed = 2 * jumps + b - a - 1
    usable = valid & (passed >= 0)[:, None]
    score = -np.minimum(deviation, prices.spacing_cap)
    score = score - _gap(jumps, a, b, origin, prices, bodies=bodies)[None]
    reachable: NDArray[np.floating] = np.where(usable[None], score, NEVER)
    return reachable


def _gap(
    jumps: NDArray[np.int64],
    a: int,
    b: int,
    origin: NDArray[np.int64],
    prices: Prices,
    *,
    bodies: bool,
) -> NDArray[np.floating]:
    """Price of the places passed over, shape (Q, P); after the first missing one the next ones cost less."""
    # C1 has no disc below it, so that a step that starts there passes one disc less.
    discs = np.maximum(jumps - (1 if a == 1 else 0), 0)[:, None] * np.ones_like(origin)
    discs = np.maximum(discs - ((a == 0) & (origin == 0)), 0)
    vertebrae = np.maximum(jumps - (1 if b == 0 else 0), 0)
    cost = _affine(discs.astype(float), prices.missing_disc)
    if bodies:
        cost = cost + _affine(vertebrae.astype(float), prices.missing_vertebra)[:, None]
    return np.broadcast_to(cost, origin.shape)


def _affine(number: NDArray[np.floating], first: float) -> NDArray[np.floating]:
    return np.where(number > 0, first * (1 + _FURTHER_MISSING * (number - 1)), 0.0)


def _shifted(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """View of shape (H, F, Q, P): value at place ``P - Q``."""
    padded = np.concatenate([np.full((*values.shape[:2], _LONGEST_STEP), NEVER, np.float32), values], axis=2)
    windows = sliding_window_view(padded, values.shape[2], axis=2)
    return np.asarray(windows[:, :, ::-1])


def _log_sum(values: NDArray[np.floating], axis: int | tuple[int, ...]) -> NDArray[np.floating]:
    top = values.max(axis=axis, keepdims=True)
    summed = np.log(np.exp(values - top).sum(axis=axis)) + np.squeeze(top, axis=axis)
    return np.asarray(summed)


def _forward(lattice: _Lattice, *, maximum: bool) -> list[NDArray[np.floating]]:
    result: list[NDArray[np.floating]] = []
    for n, emission in enumerate(lattice.emission):
        parts = [lattice.start[n]]
        for m in range(max(0, n - _WINDOW), n):
            step = lattice.steps.get((m, n))
            if step is not None:
                candidate = _shifted(result[m]) + step[:, None]
                parts.append(candidate.max(axis=2) if maximum else _log_sum(candidate, 2))
        stacked = np.stack(parts)
        incoming = stacked.max(axis=0) if maximum else _log_sum(stacked, 0)
        result.append(np.maximum(emission + incoming, NEVER))
    return result


def _backward(lattice: _Lattice) -> list[NDArray[np.floating]]:
    count = len(lattice.emission)
    result: list[NDArray[np.floating]] = [np.zeros(0)] * count
    hypotheses, phases, places = lattice.shape
    for m in range(count - 1, -1, -1):
        parts = [lattice.end[m]]
        for n in range(m + 1, min(count, m + 1 + _WINDOW)):
            step = lattice.steps.get((m, n))
            if step is None:
                continue
            arriving = (lattice.emission[n] + result[n])[:, :, None] + step[:, None]
            # arriving[..., q, p] starts at place p - q; gather by start.
            padded = np.full((hypotheses, phases, _LONGEST_STEP + 1, places), NEVER, np.float32)
            for q in range(_LONGEST_STEP + 1):
                padded[:, :, q, : places - q] = arriving[:, :, q, q:]
            parts.append(_log_sum(padded, 2))
        result[m] = np.maximum(_log_sum(np.stack(parts), 0), NEVER)
    return result


def _posterior(
    lattice: _Lattice, forward: list[NDArray[np.floating]], backward: list[NDArray[np.floating]]
) -> list[NDArray[np.floating]]:
    """Probability of each component at each place under each hypothesis."""
    totals = [_log_sum(f + e, (0, 1, 2)) for f, e in zip(forward, lattice.end, strict=True)]
    # The path on which every component is false has no place in the column and is left out.
    evidence = float(np.logaddexp.reduce(np.asarray(totals)))
    return [np.exp(np.minimum(f + b - evidence, 0.0)) for f, b in zip(forward, backward, strict=True)]


def _trace(lattice: _Lattice, best: list[NDArray[np.floating]]) -> tuple[int, dict[int, int]]:
    """Follow the best path back; return its hypothesis and the place of each component on it."""
    finals = [float((f + e).max()) for f, e in zip(best, lattice.end, strict=True)]
    n = int(np.argmax(finals))
    scores = best[n] + lattice.end[n]
    h, f, p = (int(k) for k in np.unravel_index(int(np.argmax(scores)), scores.shape))
    places = {n: p}
    while True:
        options = [(float(lattice.start[n][h, f, p]), -1, 0)]
        for m in range(max(0, n - _WINDOW), n):
            step = lattice.steps.get((m, n))
            if step is None:
                continue
            reach = range(min(_LONGEST_STEP, p) + 1)
            options.extend((float(best[m][h, f, p - q] + step[h, q, p]), m, q) for q in reach)
        _, m, q = max(options)
        if m < 0:
            return h, places
        n, p = m, p - q
        places[n] = p
