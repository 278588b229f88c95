"""What each component says about its level, as log-likelihoods for every place of every hypothesis.

A *hypothesis* is one variant of the column (numbers of vertebrae), one scale of the subject and one phase of the
alternating classes; they differ in where the places of the chain lie and what is expected there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.segmentation.labelling.observation import Observation, View, Votes
from totalspineseg_bids.segmentation.labelling.reference import (
    CONUS_LEVEL,
    CONUS_SD_LEVELS,
    SCALES,
    SCOUT_ENDS,
    VARIANT_PRIOR,
    Chain,
    Prices,
    chain_of,
)
from totalspineseg_bids.segmentation.layout import Kind

#: Stands for "impossible" without the arithmetic of infinities.
NEVER = -1e9
_ANCHOR_SHARE = 0.2
#: Entry of ``_levels_away`` where a chain lacks the level, one after those of the slips.
_NO_PLACE = 4
#: Probability of a scout's level from which it is taken for a named level in view.
_SCOUT_ANCHOR = 0.5
#: Most places that one step may pass.
LONGEST_STEP = 8
#: A map with more level classes of one kind than this names every level.
_MOST_LANDMARKS = 8
#: Extent along the canal of a vertebra with its processes, and of a sacrum, mm.
_VERTEBRA_LONG_MM, _SACRUM_LONG_MM = 40.0, 75.0
#: Least cost of taking a sacrum for none, nats.
_LEAST_FALSE_SACRUM = 0.5
#: What a false disc costs less where the scout sees none.
_UNSEEN_DISC = 0.7
#: Probability that a scout's levels of two pieces agree from which they are one vertebra to it.
_SAME_VERTEBRA = 0.6
#: Share of a component that carries a landmark's class, from which the model has seen a landmark.
_SEEN_SHARE = 0.3


@dataclass(frozen=True)
class Hypotheses:
    """All combinations of variant and scale, and the tables they share.

    Attributes
    ----------
    chains
        One entry a variant.
    variant, scale
        Index of the chain and factor of each hypothesis, shape (H,).
    prior
        Log prior, shape (H,).
    position
        Place along the column, mm, shape (H, P, 2): vertebra ``n`` and the disc below it.
    exists
        Whether the place exists, shape (H, P, 2).
    """

    chains: tuple[Chain, ...]
    variant: NDArray[np.int64]
    scale: NDArray[np.float64]
    prior: NDArray[np.float64]
    position: NDArray[np.float64]
    exists: NDArray[np.bool_]

    @property
    def places(self) -> int:
        """Number of vertebral places of the longest chain."""
        return int(self.position.shape[1])

    @cached_property
    def steps(self) -> list[list[list[NDArray[np.float32]]]]:
        """Distance from a place of one side to one of another ``q`` places on, mm: ``[from][to][q]``, (H, P - q)."""
        return [
            [
                [
                    (self.position[:, q:, b] - self.position[:, : self.places - q, a]).astype(np.float32)
                    for q in range(LONGEST_STEP + 1)
                ]
                for b in (0, 1)
            ]
            for a in (0, 1)
        ]

    @cached_property
    def reach(self) -> list[list[list[tuple[float, float]]]]:
        """Least and greatest of `steps` between places that exist, mm: ``[from][to][q]``."""
        ends = self.exists
        return [
            [
                [
                    (float(inside.min()), float(inside.max())) if inside.size else (np.inf, np.inf)
                    for q in range(LONGEST_STEP + 1)
                    for inside in [self.steps[a][b][q][ends[:, q:, b] & ends[:, : self.places - q, a]]]
                ]
                for b in (0, 1)
            ]
            for a in (0, 1)
        ]

    @cached_property
    def log_volume(self) -> NDArray[np.float64]:
        """Logarithm of the volume that a disc has at each place, shape (H, P); 0 where there is none."""
        expected = np.ones((len(self.chains), self.places))
        for v, chain in enumerate(self.chains):
            expected[v, 1 : len(chain.discs)] = chain.disc_volume_mm3[1:]
        return np.asarray(np.log(expected)[self.variant] + 3 * np.log(self.scale)[:, None])


@cache
def build_hypotheses() -> Hypotheses:
    """Combine all variants with all scales."""
    chains = tuple(chain_of(v) for v in VARIANT_PRIOR)
    places = max(len(c.vertebrae) for c in chains)
    base = np.zeros((len(chains), places, 2))
    exists = np.zeros((len(chains), places, 2), bool)
    for v, chain in enumerate(chains):
        position = np.asarray(chain.position_mm)
        count = len(chain.vertebrae)
        base[v, :count, 0], base[v, : count - 1, 1] = position[0::2], position[1::2]
        base[v, count:, 0] = position[-1] + 1e4
        base[v, count - 1 :, 1] = position[-1] + 1e4
        exists[v, :count, 0] = True
        exists[v, 1 : count - 1, 1] = True
    variant, scale, prior = [], [], []
    scale_total = sum(w for _, w in SCALES)
    for v, share in enumerate(VARIANT_PRIOR.values()):
        for factor, weight in SCALES:
            variant.append(v)
            scale.append(factor)
            prior.append(np.log(share) + np.log(weight / scale_total))
    index, factors = np.asarray(variant), np.asarray(scale)
    return Hypotheses(chains, index, factors, np.asarray(prior), base[index] * factors[:, None, None], exists[index])


def places_of(chain: Chain, level: str, kind: Kind) -> tuple[int, ...]:
    """Return the places of a chain that the class of a level may stand for.

    A model that knows 12 thoracic and 5 lumbar vertebrae calls the last of each region T12 and L5; where there is one
    more, the class may be found on either of the two.
    """
    if kind is Kind.DISC:
        return (chain.discs.index(level),) if level in chain.discs else ()
    last = {"T12": chain.vertebrae.index("L1") - 1, "L5": len(chain.vertebrae) - 2}
    own = (chain.vertebrae.index(level),) if level in chain.vertebrae else ()
    return tuple(sorted({*own, *((last[level],) if level in last else ())}))


def anchors(observations: Sequence[Observation]) -> list[int]:
    """Return the components that name a level: a landmark's class on a fair share of the voxels, or the sacrum."""
    return [
        n
        for n, o in enumerate(observations)
        if o.kind is Kind.SACRUM
        or max((s for v in o.votes for s in v.levels.values()), default=0.0) >= _ANCHOR_SHARE
        or o.extra_levels
        or o.hearsay
        or max(o.scout.values(), default=0.0) >= _SCOUT_ANCHOR
    ]


def emissions(
    observations: Sequence[Observation], hypotheses: Hypotheses, view: View, prices: Prices
) -> NDArray[np.float64]:
    """Log-likelihood of each component at each place, shape (N, H, P); parity is left to the phases."""
    places = hypotheses.places
    per_variant = np.zeros((len(observations), len(hypotheses.chains), places))
    missed = _missed(observations, prices)
    for kind in (Kind.DISC, Kind.VERTEBRA, Kind.SACRUM):
        rows = [n for n, o in enumerate(observations) if o.kind is kind]
        if rows:
            per_variant[rows] = _vote_scores([observations[n] for n in rows], missed, prices)
    _add_scout(per_variant, observations, prices)
    result = per_variant[:, hypotheses.variant]
    last = np.arange(places)[None] == _last_place(hypotheses)[:, None]
    for n, observation in enumerate(observations):
        side = 1 if observation.kind is Kind.DISC else 0
        result[n][~hypotheses.exists[:, :, side]] = NEVER
        if observation.kind is Kind.DISC and not observation.touches_edge:
            result[n] += _volume_score(observation, hypotheses, prices)
        if observation.kind is Kind.SACRUM:
            result[n][~last] = NEVER
        elif observation.kind is Kind.VERTEBRA:
            result[n][last] = NEVER
    if view.conus is not None:
        _add_conus(result, observations, hypotheses, view.conus, prices)
    return result


def _last_place(hypotheses: Hypotheses) -> NDArray[np.int64]:
    """Place of the sacrum in each hypothesis."""
    return np.asarray([len(c.vertebrae) - 1 for c in hypotheses.chains], np.int64)[hypotheses.variant]


@cache
def _slips(level: str, kind: Kind, prices: Prices, *, named: bool) -> NDArray[np.float64] | None:
    """Log-probability that the class of a level is seen at each place, shape (V, P); None where no chain has it.

    A class is seen on a neighbour of its own place with the probability of a slip, greater where every level is
    ``named``; where a chain lacks the level, its class is as unlikely everywhere as one that is far away.
    """
    away = _levels_away(level, kind)
    if (away == _NO_PLACE).all():
        return None
    hit, slip = (prices.named_hit, prices.named_slip) if named else (prices.landmark_hit, prices.landmark_slip)
    table = np.log(np.array([hit, *slip, slip[-1]]))
    return np.asarray(table[away])


@cache
def _levels_away(level: str, kind: Kind) -> NDArray[np.int64]:
    """How many levels each place is from those of a level, 3 for more, shape (V, P).

    Where a chain lacks the level it is ``_NO_PLACE`` all over.
    """
    hypotheses = build_hypotheses()
    result = np.full((len(hypotheses.chains), hypotheses.places), _NO_PLACE)
    for v, chain in enumerate(hypotheses.chains):
        at = places_of(chain, level, kind)
        if at:
            result[v] = np.minimum(np.min([np.abs(np.arange(hypotheses.places) - place) for place in at], axis=0), 3)
    return result


@cache
def _owners(level: str, kind: Kind) -> NDArray[np.float64]:
    """1 at the place of a level in each chain, shape (V, P); 0 all over where the class may be on either of two."""
    hypotheses = build_hypotheses()
    result = np.zeros((len(hypotheses.chains), hypotheses.places))
    for v, chain in enumerate(hypotheses.chains):
        at = places_of(chain, level, kind)
        if len(at) == 1:
            result[v, at[0]] = 1.0
    return result


@cache
def _elsewhere(region: str, kind: Kind) -> NDArray[np.float64]:
    """1 outside a part of the column in each chain, shape (V, P)."""
    hypotheses = build_hypotheses()
    result = np.ones((len(hypotheses.chains), hypotheses.places))
    for v, chain in enumerate(hypotheses.chains):
        names = chain.discs if kind is Kind.DISC else chain.vertebrae
        result[v, : len(names)] = [bool(name) and name[0] != region for name in names]
    return result


def _missed(observations: Sequence[Observation], prices: Prices) -> list[dict[str, float]]:
    """Price, by level, the places of landmarks at which a map does not show their class.

    The model has missed it, or has not learned the class: likelier where it names no landmark at all. Two maps that do
    not show a class say so once, for they are mostly of one training.
    """
    result: list[dict[str, float]] = []
    before: set[str] = set()
    for k in range(len(observations[0].votes) if observations else 0):
        shares: dict[str, float] = {}
        for o in observations:
            for level in o.votes[k].known:
                shares[level] = max(shares.get(level, 0.0), o.votes[k].levels.get(level, 0.0))
        unseen = {level for level, share in shares.items() if share < _SEEN_SHARE}
        others = {level for level in shares if level != "S"} - unseen
        unknown = prices.landmark_unknown[0 if others else 1]
        cost = float(np.log(unknown + (1.0 - unknown) * (1.0 - prices.landmark_hit)))
        result.append({level: 0.0 if level in unseen & before else cost for level in shares})
        before |= unseen
    return result


def _vote_scores(
    observations: Sequence[Observation], missed: Sequence[Mapping[str, float]], prices: Prices
) -> NDArray[np.float64]:
    """Log-likelihood of what the maps' classes and the localizer say, shape (N, V, P), for components of one kind."""
    hypotheses = build_hypotheses()
    kind = observations[0].kind
    score = np.zeros((len(observations), len(hypotheses.chains), hypotheses.places))
    for k in range(len(observations[0].votes)):
        score += _map_scores([o.votes[k] for o in observations], kind, missed[k], prices)
    named = [n for n, o in enumerate(observations) if o.extra_levels]
    # What a localizer says of neighbours is one thing said often: if it is off, it is off for all of them.
    weight = min(1.0, prices.localizer_budget / max(len(named), 1))
    for n in named:
        for level, share in observations[n].extra_levels.items():
            slip = _slips(level, kind, prices, named=True)
            if slip is not None:
                score[n] += weight * share * slip
    for n, observation in enumerate(observations):
        for table, weight in observation.hearsay:
            score[n] += weight * _hearsay(table, kind, prices)
    return score


def _add_scout(score: NDArray[np.float64], observations: Sequence[Observation], prices: Prices) -> None:
    """Add what a level scout says, shape (N, V, P): a mixture over its levels, each with its slips.

    At the ends of the column a level is known by its own shape, and the scout is nearly always right. In between it
    counts, so that its levels there go astray together and are hardly more than one opinion.
    """
    told = [n for n, o in enumerate(observations) if o.scout and o.kind is not Kind.SACRUM]
    ends = {n for n in told if max(observations[n].scout.items(), key=lambda item: item[1])[0] in SCOUT_ENDS}
    end_weight = min(prices.scout_end, prices.scout_ends / max(len(ends), 1))
    between_weight = min(1.0, prices.scout_views / max(len(told) - len(ends), 1))
    # A chain without the level says nothing for any of its places.
    table = np.array([prices.scout_hit, *prices.scout_slip, 0.0])
    for n in told:
        observation = observations[n]
        likelihood = np.full(score.shape[1:], (1.0 - min(1.0, sum(observation.scout.values()))) / score.shape[2])
        for level, share in observation.scout.items():
            likelihood += share * table[_levels_away(level, observation.kind)]
        weight = end_weight if n in ends else between_weight
        score[n] += weight * np.log(np.maximum(likelihood, prices.scout_slip[-1]))


def _hearsay(table: Mapping[str | None, float], kind: Kind, prices: Prices) -> NDArray[np.float64]:
    """Log-probability that another image gives each place, shape (V, P), never surer than the match of the two is."""
    hypotheses = build_hypotheses()
    result = np.zeros((len(hypotheses.chains), hypotheses.places))
    for v, chain in enumerate(hypotheses.chains):
        names = chain.discs if kind is Kind.DISC else chain.vertebrae
        result[v, : len(names)] = [table.get(name, 0.0) if name else 0.0 for name in names]
    return np.asarray(np.log(result * (1 - prices.mismatch) + prices.mismatch / 10))


def _map_scores(votes: Sequence[Votes], kind: Kind, missed: Mapping[str, float], prices: Prices) -> NDArray[np.float64]:
    """Log-likelihood of what one map's classes say of components of one kind, shape (N, V, P)."""
    hypotheses = build_hypotheses()
    score = np.zeros((len(votes), len(hypotheses.chains), hypotheses.places))
    known = [level for level in sorted(votes[0].known) if ("-" in level) == (kind is Kind.DISC) and level != "S"]
    seen = {level: sum(v.levels.get(level, 0.0) for v in votes) for level in known}
    weight = votes[0].weight * _tempering(votes, known, kind, prices)
    # There is one disc L5-S. A class that is seen all along the column says little of where it belongs.
    trust = {level: min(1.0, prices.landmark_repeats / total) ** 2 for level, total in seen.items() if total > 0}
    named = len(known) > _MOST_LANDMARKS
    if named:
        trust = {}
    # Nor does it say much that such a map is silent about other landmarks.
    heard = min(trust.values(), default=1.0)
    silent = {level: _owners(level, kind) * missed[level] * heard for level in known}
    for n, vote in enumerate(votes):
        voted = 0.0
        for level, share in vote.levels.items():
            slip = _slips(level, kind, prices, named=named) if level in seen else None
            if slip is not None:
                score[n] += share * trust.get(level, 1.0) * slip
                voted += share
        for level in known:
            # A class that is seen on another component has slipped, which is priced there.
            moved = min(1.0, seen[level] - vote.levels.get(level, 0.0))
            score[n] += (1.0 - min(voted, 1.0)) * (1.0 - moved) * silent[level]
        for region, share in vote.regions.items():
            score[n] -= 2.0 * share * _elsewhere(region, kind)
    return weight * score


def _tempering(votes: Sequence[Votes], known: Sequence[str], kind: Kind, prices: Prices) -> float:
    """How much each component's class counts, below 1 where errors of neighbours go together.

    A map that names every level is wrong about a run of neighbours at once, so that ten right names are hardly more
    than one: all its names of one kind together count as ``named_budget`` independent ones.
    """
    if len(known) <= _MOST_LANDMARKS:
        return 1.0 if kind is Kind.DISC else prices.vertebra_landmark_weight
    return min(prices.named_weight, prices.named_budget / max(len(votes), 1))


def _volume_score(observation: Observation, hypotheses: Hypotheses, prices: Prices) -> NDArray[np.float64]:
    deviation = (np.log(observation.volume_mm3) - hypotheses.log_volume) / prices.volume_sd
    return np.asarray(-prices.volume_weight * np.minimum(0.5 * deviation**2, 4.0))


def _add_conus(
    result: NDArray[np.float64],
    observations: Sequence[Observation],
    hypotheses: Hypotheses,
    conus: float,
    prices: Prices,
) -> None:
    """Let the disc nearest to the cord's end say how many levels it is away from where the cord usually ends."""
    discs = [n for n, o in enumerate(observations) if o.kind is Kind.DISC]
    if not discs:
        return
    nearest = min(discs, key=lambda n: abs(observations[n].s - conus))
    below = conus - observations[nearest].s
    for v, chain in enumerate(hypotheses.chains):
        rows = hypotheses.variant == v
        target = chain.vertebrae.index(CONUS_LEVEL)
        # In units of levels: a disc lies half a level below its vertebra's centre.
        step = 30.0 * hypotheses.scale[rows][:, None]
        offset = np.arange(hypotheses.places)[None] + 0.5 + below / step - target
        result[nearest, rows] -= prices.conus_weight * np.minimum(0.5 * (offset / CONUS_SD_LEVELS) ** 2, 4.5)


class Parities(NamedTuple):
    """What the alternating classes say.

    Attributes
    ----------
    scores
        Log-likelihood of each component in each phase at each place, shape (N, F, P).
    prior
        Log prior of each phase, shape (F,).
    flips
        Probability of going from one phase to another between two components, shape (F, F).
    """

    scores: NDArray[np.float64]
    prior: NDArray[np.float64]
    flips: NDArray[np.float64]


def parity_scores(observations: Sequence[Observation], places: int, prices: Prices) -> Parities:
    """Weigh the alternating classes of vertebrae and discs.

    Which of the classes is called odd is left open, because models are trained with both: each kind that alternates
    has two phases. A phase may change within the column, at a price, because a model that has lost count goes on
    alternating.
    """
    shares = np.zeros((len(observations), 2))
    for n, o in enumerate(observations):
        total = sum(v.weight for v in o.votes) or 1.0
        shares[n] = [sum(v.weight * v.odd for v in o.votes) / total, sum(v.weight * v.even for v in o.votes) / total]
    is_disc = np.array([o.kind is Kind.DISC for o in observations], bool)
    vertebrae_tell = bool((shares[~is_disc] > 0.3).any())
    discs_tell = bool((shares[is_disc] > 0.3).any())
    sides = [(a, b) for a in range(2 if vertebrae_tell else 1) for b in range(2 if discs_tell else 1)]
    scores = np.zeros((len(observations), len(sides), places))
    right, wrong = np.log(1 - prices.parity_error), np.log(prices.parity_error)
    even_place = np.arange(places) % 2 == 0
    for f, phase in enumerate(sides):
        for n in range(len(observations)):
            weight = 0.5 if is_disc[n] else 1.0
            odd_here = even_place if phase[int(is_disc[n])] == 0 else ~even_place
            odd, even = shares[n]
            scores[n, f] = weight * np.where(odd_here, odd * right + even * wrong, odd * wrong + even * right)
    flips = np.full((len(sides), len(sides)), np.exp(-prices.parity_flip))
    np.fill_diagonal(flips, 1.0 - (len(sides) - 1) * np.exp(-prices.parity_flip))
    return Parities(scores, np.full(len(sides), -np.log(len(sides))), flips)


def false_prices(observations: Sequence[Observation], prices: Prices) -> NDArray[np.float64]:
    """Cost of taking each component for none, shape (N,): less for small ones and for those out of line."""
    cost = np.zeros(len(observations))
    for n, o in enumerate(observations):
        if o.kind is Kind.SACRUM:
            cost[n] = _false_sacrum(o, prices)
            continue
        base = prices.false_disc if o.kind is Kind.DISC else prices.false_vertebra
        peers = [p.volume_mm3 for p in observations if p.kind is o.kind and abs(p.s - o.s) < 80 and p is not o]
        typical = float(np.median(peers)) if peers else o.volume_mm3
        # What the field of view cuts is small for that reason.
        relative = 1.0 if o.touches_edge else min(o.volume_mm3 / max(typical, 1.0), 1.0)
        cost[n] = 0.4 + (base - 0.4) * float(np.sqrt(relative))
        if o.kind is Kind.DISC and (o.anterior < 3.0 or abs(o.lateral) > 22.0):
            cost[n] = min(cost[n], 0.5)
        if o.kind is Kind.DISC and o.scout:
            # A scout that sees a whole field of view sees no disc in the dens, but one vertebra above and below.
            unseen = 1.0 - min(1.0, sum(o.scout.values()))
            cost[n] *= 1.0 - _UNSEEN_DISC * unseen * _alike(observations, n)
        voted = max((s for v in o.votes for s in v.levels.values()), default=0.0)
        cost[n] += 1.5 * voted
    return cost


def _alike(observations: Sequence[Observation], n: int) -> float:
    """How surely a scout takes the vertebrae next to a component for one and the same, 0 to 1."""
    above = next((o.scout for o in reversed(observations[:n]) if o.kind is Kind.VERTEBRA), {})
    below = next((o.scout for o in observations[n + 1 :] if o.kind is Kind.VERTEBRA), {})
    if not above or not below:
        return 1.0
    return min(1.0, sum(share * below.get(level, 0.0) for level, share in above.items()) / _SAME_VERTEBRA)


def _false_sacrum(sacrum: Observation, prices: Prices) -> float:
    """Cost of taking the sacrum for none: high for one as long as a sacrum is, low for one of a vertebra's length.

    A level scout that takes it for one makes it dearer, and one that takes it for vertebrae cheaper.
    """
    short, long = prices.false_sacrum
    share = float(np.clip((sacrum.length_mm - _VERTEBRA_LONG_MM) / (_SACRUM_LONG_MM - _VERTEBRA_LONG_MM), 0.0, 1.0))
    cost = short + (long - short) * share
    if sacrum.scout:
        cost += prices.scout_sacrum * (2.0 * sacrum.scout.get("S", 0.0) - 1.0)
    return max(cost, _LEAST_FALSE_SACRUM)
