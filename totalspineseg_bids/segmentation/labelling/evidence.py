"""What each component says about its level, as log-likelihoods for every place of every hypothesis.

A *hypothesis* is one variant of the column (numbers of vertebrae), one scale of the subject and one phase of the
alternating classes; they differ in where the places of the chain lie and what is expected there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.segmentation.labelling.observation import Observation, Votes
from totalspineseg_bids.segmentation.labelling.reference import (
    CONUS_LEVEL,
    CONUS_SD_LEVELS,
    SCALES,
    VARIANT_PRIOR,
    Chain,
    Prices,
    chain_of,
)
from totalspineseg_bids.segmentation.layout import Kind

#: Stands for "impossible" without the arithmetic of infinities.
NEVER = -1e9
_ANCHOR_SHARE = 0.2
#: Probability of a scout's level from which it is taken for a named level in view.
_SCOUT_ANCHOR = 0.5


@dataclass(frozen=True, slots=True)
class View:
    """What the image shows of the column besides the components.

    Attributes
    ----------
    canal_top, canal_bottom
        Arc length of the ends of the canal in view, mm.
    conus
        Arc length of the cord's lower end where canal goes on below it, mm.
    """

    canal_top: float
    canal_bottom: float
    conus: float | None = None


@dataclass(frozen=True, slots=True)
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
        or max(o.scout.values(), default=0.0) >= _SCOUT_ANCHOR
    ]


def emissions(
    observations: Sequence[Observation], hypotheses: Hypotheses, view: View, prices: Prices
) -> NDArray[np.float64]:
    """Log-likelihood of each component at each place, shape (N, H, P); parity is left to the phases."""
    count, places = len(hypotheses.scale), hypotheses.places
    result = np.zeros((len(observations), count, places))
    per_variant = np.zeros((len(observations), len(hypotheses.chains), places))
    for n, observation in enumerate(observations):
        for v, chain in enumerate(hypotheses.chains):
            per_variant[n, v] = _vote_score(observation, chain, places, prices)
    _add_scout(per_variant, observations, hypotheses, prices)
    result += per_variant[:, hypotheses.variant]
    for n, observation in enumerate(observations):
        side = 1 if observation.kind is Kind.DISC else 0
        result[n][~hypotheses.exists[:, :, side]] = NEVER
        if observation.kind is Kind.DISC and not observation.touches_edge:
            result[n] += _volume_score(observation, hypotheses, prices)
        last = _last_place(hypotheses)
        if observation.kind is Kind.SACRUM:
            result[n][np.arange(places)[None] != last[:, None]] = NEVER
        elif observation.kind is Kind.VERTEBRA:
            result[n][np.arange(places)[None] == last[:, None]] = NEVER
    if view.conus is not None:
        _add_conus(result, observations, hypotheses, view.conus, prices)
    return result


def _last_place(hypotheses: Hypotheses) -> NDArray[np.int64]:
    """Place of the sacrum in each hypothesis."""
    return np.asarray([len(c.vertebrae) - 1 for c in hypotheses.chains], np.int64)[hypotheses.variant]


def _vote_score(observation: Observation, chain: Chain, places: int, prices: Prices) -> NDArray[np.float64]:
    score = np.zeros(places)
    for votes in observation.votes:
        score += votes.weight * _map_score(votes, observation.kind, chain, places, prices)
    for level, weight in observation.extra_levels.items():
        at = places_of(chain, level, observation.kind)
        if at:
            score += weight * _slip(at, places, prices)
    return score


def _add_scout(
    score: NDArray[np.float64], observations: Sequence[Observation], hypotheses: Hypotheses, prices: Prices
) -> None:
    """Add what a level scout says, shape (N, V, P): a mixture over its levels, each with its slips.

    Its levels of one image are no independent opinions, so that all together count as a few at most.
    """
    told = [n for n, o in enumerate(observations) if o.scout]
    weight = min(1.0, prices.scout_views / max(len(told), 1))
    places = hypotheses.places
    table = np.array([prices.scout_hit, *prices.scout_slip])
    for n in told:
        observation = observations[n]
        for v, chain in enumerate(hypotheses.chains):
            likelihood = np.full(places, (1.0 - min(1.0, sum(observation.scout.values()))) / places)
            for level, share in observation.scout.items():
                at = places_of(chain, level, observation.kind)
                if at:
                    distance = np.min([np.abs(np.arange(places) - place) for place in at], axis=0)
                    likelihood += share * table[np.minimum(distance, 3)]
            score[n, v] += weight * np.log(np.maximum(likelihood, prices.scout_slip[-1]))


def _slip(at: tuple[int, ...], places: int, prices: Prices) -> NDArray[np.float64]:
    """Log-probability that the class of a level that belongs ``at`` some place is seen at each place."""
    near, next_near, far = prices.landmark_slip
    distance = np.min([np.abs(np.arange(places) - place) for place in at], axis=0)
    table = np.array([prices.landmark_hit, near, next_near, far])
    return np.asarray(np.log(table[np.minimum(distance, 3)]))


def _map_score(votes: Votes, kind: Kind, chain: Chain, places: int, prices: Prices) -> NDArray[np.float64]:
    """Log-likelihood of what one map's classes say, at each place of a chain."""
    known = {level: places_of(chain, level, kind) for level in votes.known if ("-" in level) == (kind is Kind.DISC)}
    score = np.zeros(places)
    if not known and not votes.regions:
        return score
    tempered = prices.named_weight if len(known) > 8 else 1.0
    voted = 0.0
    for level, share in votes.levels.items():
        if known.get(level):
            score += share * _slip(known[level], places, prices)
            voted += share
    silent = np.zeros(places)
    for at in known.values():
        # Where the class may be on either of two places, its absence says nothing of the one.
        if len(at) == 1:
            silent[at[0]] = np.log(1.0 - prices.landmark_hit)
    score += (1.0 - min(voted, 1.0)) * silent
    names = chain.discs if kind is Kind.DISC else chain.vertebrae
    for region, share in votes.regions.items():
        elsewhere = np.array([bool(name) and name[0] != region for name in names] + [True] * (places - len(names)))
        score -= 2.0 * share * elsewhere
    return tempered * score


def _volume_score(observation: Observation, hypotheses: Hypotheses, prices: Prices) -> NDArray[np.float64]:
    expected = np.ones((len(hypotheses.chains), hypotheses.places))
    for v, chain in enumerate(hypotheses.chains):
        expected[v, 1 : len(chain.discs)] = chain.disc_volume_mm3[1:]
    log_expected = np.log(expected)[hypotheses.variant] + 3 * np.log(hypotheses.scale)[:, None]
    deviation = (np.log(observation.volume_mm3) - log_expected) / prices.volume_sd
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


def parity_scores(
    observations: Sequence[Observation], places: int, prices: Prices
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-likelihood of the alternating classes for both phases of vertebrae and discs.

    Returns
    -------
    tuple
        Scores of shape (N, F, P) for the F phases, and the log prior of each phase, shape (F,). Which of the classes
        is called odd is left open, because models are trained with both; only the alternation counts.
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
    return scores, np.full(len(sides), -np.log(len(sides)))


def false_prices(observations: Sequence[Observation], prices: Prices) -> NDArray[np.float64]:
    """Cost of taking each component for none, shape (N,): less for small ones and for those out of line."""
    cost = np.zeros(len(observations))
    for n, o in enumerate(observations):
        base = prices.false_disc if o.kind is Kind.DISC else prices.false_vertebra
        if o.kind is Kind.SACRUM:
            cost[n] = 6.0
            continue
        peers = [p.volume_mm3 for p in observations if p.kind is o.kind and abs(p.s - o.s) < 80 and p is not o]
        typical = float(np.median(peers)) if peers else o.volume_mm3
        # What the field of view cuts is small for that reason.
        relative = 1.0 if o.touches_edge else min(o.volume_mm3 / max(typical, 1.0), 1.0)
        cost[n] = 0.4 + (base - 0.4) * float(np.sqrt(relative))
        if o.kind is Kind.DISC and (o.anterior < 3.0 or abs(o.lateral) > 22.0):
            cost[n] = min(cost[n], 0.5)
        voted = max((s for v in o.votes for s in v.levels.values()), default=0.0)
        cost[n] += 1.5 * voted
    return cost
