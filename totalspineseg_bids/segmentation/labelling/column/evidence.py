"""Log-likelihoods of each component at every place of every hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling.column import parameters
from totalspineseg_bids.segmentation.labelling.column.hypotheses import (
    NO_PLACE,
    Hypotheses,
    build_hypotheses,
    elsewhere,
    levels_away,
    owners,
)
from totalspineseg_bids.segmentation.labelling.column.parameters import WEIGHTS
from totalspineseg_bids.segmentation.labelling.records import CanalExtent, ClassShares, Observation

#: Log-likelihood of an impossible place; finite, so that differences are defined.
NEVER = -1e9


def anchors(observations: Sequence[Observation]) -> list[int]:
    """Return the components with evidence that identifies a level, such as the class of a landmark or the sacrum."""
    return [
        n
        for n, o in enumerate(observations)
        if o.kind is Structure.SACRUM
        or max((s for v in o.class_shares for s in v.levels.values()), default=0.0) >= parameters.ANCHOR_SHARE
        or o.localizer_levels
        or o.session_evidence
        or max(o.level_prior.values(), default=0.0) >= parameters.PRIOR_ANCHOR
    ]


def emissions(observations: Sequence[Observation], hypotheses: Hypotheses, view: CanalExtent) -> NDArray[np.float64]:
    """Return the log-likelihood of each component at each place without parity, shape (N, H, P).

    Parameters
    ----------
    observations
        Components from cranial to caudal, N.
    hypotheses
        Hypotheses of the column, H, with P places.
    view
        Extent of the canal in view.
    """
    places = hypotheses.places
    per_variant = np.zeros((len(observations), len(hypotheses.chains), places))
    missed = _missed(observations)
    for kind in (Structure.DISC, Structure.VERTEBRA, Structure.SACRUM):
        rows = [n for n, o in enumerate(observations) if o.kind is kind]
        if rows:
            per_variant[rows] = _class_scores([observations[n] for n in rows], missed)
    _add_level_prior(per_variant, observations)
    result = per_variant[:, hypotheses.variant]
    sacrum = np.array([len(chain.vertebrae) - 1 for chain in hypotheses.chains])[hypotheses.variant]
    last = np.arange(places) == sacrum[:, None]
    for n, observation in enumerate(observations):
        side = 1 if observation.kind is Structure.DISC else 0
        result[n][~hypotheses.exists[:, :, side]] = NEVER
        if observation.kind is Structure.DISC and observation.cut <= Cut.SIDES:
            result[n] += _size_score(observation, _volume_in_view(hypotheses.log_volume, observation))
        if observation.kind is Structure.SACRUM:
            result[n][~last] = NEVER
        elif observation.kind is Structure.VERTEBRA:
            result[n][last] = NEVER
            result[n][:, parameters.AXIS_PLACE] += _axis_score(observations, n)
    if view.conus is not None:
        _add_conus(result, observations, hypotheses, view.conus)
    return result


@cache
def _slips(level: str, kind: Structure, *, named: bool) -> NDArray[np.float64] | None:
    """Return the log-probability of the class of a level at each place, shape (V, P); ``None`` if no chain has it.

    The class is found near its own place with the probability of a slip, which is larger in maps in which every level
    is ``named``. In a chain without the level, all places have the probability of a distant one.
    """
    away = levels_away(level, kind)
    if (away == NO_PLACE).all():
        return None
    hit, slip = (WEIGHTS.named_hit, WEIGHTS.named_slip) if named else (WEIGHTS.landmark_hit, WEIGHTS.landmark_slip)
    table = np.log(np.array([hit, *slip, slip[-1]]))
    return np.asarray(table[away])


def _missed(observations: Sequence[Observation]) -> list[dict[str, float]]:
    """Return the log-likelihood of a landmark whose class a map does not show, by map and level.

    The model has missed the landmark or has not learned its class, which is more probable if it finds no landmark at
    all. A class that two maps do not show counts once, because their models mostly share one training.
    """
    result: list[dict[str, float]] = []
    before: set[str] = set()
    for k in range(len(observations[0].class_shares) if observations else 0):
        shares: dict[str, float] = {}
        for o in observations:
            for level in o.class_shares[k].known:
                shares[level] = max(shares.get(level, 0.0), o.class_shares[k].levels.get(level, 0.0))
        unseen = {level for level, share in shares.items() if share < parameters.SEEN_SHARE}
        others = {level for level in shares if level != "S"} - unseen
        unknown = WEIGHTS.landmark_unknown[0 if others else 1]
        cost = float(np.log(unknown + (1.0 - unknown) * (1.0 - WEIGHTS.landmark_hit)))
        result.append({level: 0.0 if level in unseen & before else cost for level in shares})
        before |= unseen
    return result


def _class_scores(observations: Sequence[Observation], missed: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
    """Return the log-likelihood of classes and localizer for components of one kind, shape (N, V, P)."""
    hypotheses = build_hypotheses()
    kind = observations[0].kind
    score = np.zeros((len(observations), len(hypotheses.chains), hypotheses.places))
    for k in range(len(observations[0].class_shares)):
        score += _map_scores([o.class_shares[k] for o in observations], kind, missed[k])
    named = [n for n, o in enumerate(observations) if o.localizer_levels]
    # A localizer that is shifted is shifted for all neighbours, so its weight is limited.
    weight = min(1.0, WEIGHTS.localizer_budget / max(len(named), 1))
    for n in named:
        for level, share in observations[n].localizer_levels.items():
            slip = _slips(level, kind, named=True)
            if slip is not None:
                score[n] += weight * share * slip
    for n, observation in enumerate(observations):
        for evidence in observation.session_evidence:
            score[n] += evidence.weight * _session_scores(evidence.table, kind)
    return score


def _add_level_prior(score: NDArray[np.float64], observations: Sequence[Observation]) -> None:
    """Add the log-likelihood of the level prior to ``score``, shape (N, V, P).

    It is that of a mixture over levels, each with its slips. At the ends of the column, where vertebrae have a distinct
    shape, the prior is reliable. In between its errors correlate, so that its levels together have little weight.
    """
    informed = [n for n, o in enumerate(observations) if o.level_prior and o.kind is not Structure.SACRUM]
    ends = {
        n
        for n in informed
        if max(observations[n].level_prior.items(), key=lambda item: item[1])[0] in parameters.PRIOR_END_LEVELS
    }
    end_weight = min(WEIGHTS.prior_end_weight, WEIGHTS.prior_end_budget / max(len(ends), 1))
    between_weight = min(1.0, WEIGHTS.prior_budget / max(len(informed) - len(ends), 1))
    # A chain without the level gives no probability to any of its places.
    table = np.array([WEIGHTS.prior_hit, *WEIGHTS.prior_slip, 0.0])
    logs = np.zeros((len(informed), *score.shape[1:]))
    for row, n in enumerate(informed):
        observation = observations[n]
        likelihood = np.full(score.shape[1:], (1.0 - min(1.0, sum(observation.level_prior.values()))) / score.shape[2])
        for level, share in observation.level_prior.items():
            likelihood += share * table[levels_away(level, observation.kind)]
        logs[row] = np.log(np.maximum(likelihood, WEIGHTS.prior_slip[-1]))
    # An uninformative prior, as in a view of two vertebrae, is no evidence against single components.
    usual = float(np.median(logs.max(axis=(1, 2)))) if informed else 0.0
    if usual < np.log(parameters.UNINFORMATIVE_PRIOR):
        logs -= usual
    for row, n in enumerate(informed):
        score[n] += (end_weight if n in ends else between_weight) * logs[row]


def _session_scores(table: Mapping[str | None, float], kind: Structure) -> NDArray[np.float64]:
    """Return the log-probability of each place by another image, shape (V, P), limited by that of a mismatch."""
    hypotheses = build_hypotheses()
    result = np.zeros((len(hypotheses.chains), hypotheses.places))
    for v, chain in enumerate(hypotheses.chains):
        names = chain.discs if kind is Structure.DISC else chain.vertebrae
        result[v, : len(names)] = [table.get(name, 0.0) if name else 0.0 for name in names]
    return np.asarray(np.log(result * (1 - WEIGHTS.mismatch) + WEIGHTS.mismatch / 10))


def _map_scores(
    class_shares: Sequence[ClassShares], kind: Structure, missed: Mapping[str, float]
) -> NDArray[np.float64]:
    """Return the log-likelihood of the classes of one map for components of one kind, shape (N, V, P)."""
    hypotheses = build_hypotheses()
    score = np.zeros((len(class_shares), len(hypotheses.chains), hypotheses.places))
    known = [
        level for level in sorted(class_shares[0].known) if ("-" in level) == (kind is Structure.DISC) and level != "S"
    ]
    seen = {level: sum(v.levels.get(level, 0.0) for v in class_shares) for level in known}
    weight = class_shares[0].weight * _tempering(class_shares, known, kind)
    # Each landmark exists once, so a class that is found all along the column is weak evidence of a level.
    trust = {level: min(1.0, WEIGHTS.landmark_repeats / total) ** 2 for level, total in seen.items() if total > 0}
    named = len(known) > parameters.MOST_LANDMARKS
    if named:
        trust = {}
    # Missing landmarks are weak evidence in such a map too.
    least_trust = min(trust.values(), default=1.0)
    unseen_cost = {level: owners(level, kind) * missed[level] * least_trust for level in known}
    for n, shares_here in enumerate(class_shares):
        named_share = 0.0
        for level, share in shares_here.levels.items():
            slip = _slips(level, kind, named=named) if level in seen else None
            if slip is not None:
                score[n] += share * trust.get(level, 1.0) * slip
                named_share += share
        for level in known:
            # A class that is found on another component is a slip, whose cost is counted there.
            moved = min(1.0, seen[level] - shares_here.levels.get(level, 0.0))
            score[n] += (1.0 - min(named_share, 1.0)) * (1.0 - moved) * unseen_cost[level]
        for region, share in shares_here.regions.items():
            score[n] -= parameters.WRONG_REGION * share * elsewhere(region, kind)
    return weight * score


def _tempering(class_shares: Sequence[ClassShares], known: Sequence[str], kind: Structure) -> float:
    """Return the weight of the class of each component, below 1 if the errors of neighbours correlate.

    A map that names every level is shifted for a run of neighbours at once. All its names of one kind together count as
    ``named_budget`` independent ones.
    """
    if len(known) <= parameters.MOST_LANDMARKS:
        return 1.0 if kind is Structure.DISC else WEIGHTS.vertebra_landmark_weight
    return min(WEIGHTS.named_weight, WEIGHTS.named_budget / max(len(class_shares), 1))


def _axis_score(observations: Sequence[Observation], n: int) -> float:
    """Return the log-likelihood of the volume of a vertebra at C2, for which a fragment of its dens is too small.

    The volume is compared with the vertebrae below instead of the scale of the subject, so that a false C2 does not
    change the scale.
    """
    below = [o.volume_mm3 for o in observations[n + 1 :] if o.kind is Structure.VERTEBRA and o.cut <= Cut.SIDES]
    if observations[n].cut > Cut.SIDES or len(below) < parameters.AXIS_NEIGHBOURS:
        return 0.0
    expected = np.log(parameters.AXIS_VOLUME * np.median(below[: parameters.AXIS_NEIGHBOURS]))
    return float(_size_score(observations[n], expected))


def _volume_in_view(log_volume: NDArray[np.float64], disc: Observation) -> NDArray[np.float64]:
    """Return the logarithm of the part of expected volumes that is in view if the sides of the ellipse are cut off."""
    if disc.cut is Cut.NONE:
        return log_volume
    share = np.minimum(
        disc.width_mm / (parameters.DISC_WIDTH_MM * np.exp(parameters.DISC_WIDTH_POWER * log_volume)), 1.0
    )
    return np.asarray(log_volume + np.log(2 / np.pi * (share * np.sqrt(1 - share**2) + np.arcsin(share))))


def _size_score(observation: Observation, expected: NDArray[np.float64] | float) -> NDArray[np.float64]:
    deviation = (np.log(observation.volume_mm3) - expected) / WEIGHTS.volume_sd
    return np.asarray(-WEIGHTS.volume_weight * np.minimum(0.5 * deviation**2, parameters.VOLUME_CAP))


def _add_conus(
    result: NDArray[np.float64], observations: Sequence[Observation], hypotheses: Hypotheses, conus: float
) -> None:
    """Add the log-likelihood of the lower end of the cord to the disc nearest to it."""
    discs = [n for n, o in enumerate(observations) if o.kind is Structure.DISC]
    if not discs:
        return
    nearest = min(discs, key=lambda n: abs(observations[n].s - conus))
    below = conus - observations[nearest].s
    for v, chain in enumerate(hypotheses.chains):
        rows = hypotheses.variant == v
        target = chain.vertebrae.index(parameters.CONUS_LEVEL)
        # Offset in levels; a disc lies half a level below the centre of its vertebra.
        step = parameters.LUMBAR_STEP_MM * hypotheses.scale[rows][:, None]
        offset = np.arange(hypotheses.places)[None] + 0.5 + below / step - target
        result[nearest, rows] -= WEIGHTS.conus_weight * np.minimum(
            0.5 * (offset / parameters.CONUS_SD_LEVELS) ** 2, parameters.CONUS_CAP
        )
