"""Decide which components get a level, and assign canonical ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.segmentation.labelling.column import parameters
from totalspineseg_bids.segmentation.labelling.column.parameters import chain_of
from totalspineseg_bids.segmentation.labelling.records import ClassShares, LevelSolution, Naming, Observation
from totalspineseg_bids.segmentation.result import SpineStatus

NO_ANCHOR = "no landmark of the column is in view"
SHIFT_POSSIBLE = "a shift by one level cannot be ruled out"
ONE_LANDMARK = "the levels rest on a single landmark"
CONTESTED = "the only landmark in view is seen at two levels"
RARE_VARIANT = "counted with {} thoracic and {} lumbar vertebrae, which is rare: a landmark may be in the wrong place"
UNEXPLAINED = "most of what was found fits no order of levels"
#: Landmarks by which C2 is found.
_AXIS = ("C2", "C2-C3")


def name_components(
    observations: Sequence[Observation],
    solution: LevelSolution,
    unnamed: str | None = None,
    cautions: Mapping[int, str] | None = None,
) -> Naming:
    """Assign an id to each component: that of its level, or a number if the level is uncertain.

    The column is named if evidence in view identifies a level and the posterior probability of the levels is high.
    Components of a named column whose own level is uncertain are numbered.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    solution
        Their levels.
    unnamed
        Reason for which the column is numbered whatever its levels; ``None`` to name it.
    cautions
        Further reasons why the levels of components are doubtful, by index.
    """
    cautions = cautions or {}
    kept = [n for n, level in enumerate(solution.levels) if level is not None]
    reason = unnamed or abstention_reason(observations, solution)
    doubt = ONE_LANDMARK if _sure_support(observations, solution.levels) < parameters.ENOUGH_LANDMARKS else None
    rare = _rare_variant(observations, solution)
    ids: list[int | None] = [None] * len(observations)
    reasons: list[str | None] = [None] * len(observations)
    numbers = {Structure.DISC: 0, Structure.VERTEBRA: 0}
    for n in kept:
        kind, level = observations[n].kind, solution.levels[n]
        if kind is Structure.SACRUM or level is None:
            ids[n] = anatomy.SACRUM_ID
            continue
        numbers[kind] += 1
        if reason is not None or solution.confidence[n] < parameters.SURE:
            ids[n] = anatomy.unnamed(kind, min(numbers[kind], anatomy.MAX_UNNAMED)).id
            reasons[n] = reason or SHIFT_POSSIBLE
        else:
            ids[n] = (anatomy.disc(level) if kind is Structure.DISC else anatomy.vertebra(level)).id
            found = cautions.get(n) or _caution(observations[n], n, solution) or _disputed(n, solution)
            reasons[n] = found or doubt or rare.get(level)
    status = SpineStatus.LABELLED if reason is None else SpineStatus.ABSTAINED
    slots, cuts = _slots(observations, solution, ids)
    steps = [b.s - a.s for a, b in zip(_discs(observations, kept)[:-1], _discs(observations, kept)[1:], strict=True)]
    step = float(np.median(steps)) if steps else 30.0
    return Naming(status, reason, tuple(ids), tuple(reasons), doubt, slots, cuts, step)


def abstention_reason(observations: Sequence[Observation], solution: LevelSolution) -> str | None:
    """Return why a column is not named; ``None`` if it is.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    solution
        Their levels.
    """
    if solution.contradiction is not None:
        return solution.contradiction
    if not solution.anchored:
        return NO_ANCHOR
    bare = [
        n
        for n, level in enumerate(solution.levels)
        if level is not None and observations[n].kind is not Structure.SACRUM
    ]
    volumes = {n: o.volume_mm3 for n, o in enumerate(observations) if o.kind is not Structure.SACRUM}
    if sum(volumes[n] for n in bare) < parameters.LEAST_EXPLAINED * sum(volumes.values()):
        return UNEXPLAINED
    landmarks = landmarks_of(observations, solution.levels)
    if sum(landmarks.values()) < parameters.ENOUGH_LANDMARKS:
        contested = contested_levels(observations, solution.levels)
        clear = sum(count for level, count in landmarks.items() if level not in contested)
        if contested and clear < parameters.LEAST_CLEAR_LANDMARKS:
            return CONTESTED
    if bare and np.median([solution.confidence[n] for n in bare]) < parameters.SURE_COLUMN:
        return _doubt(solution, bare)
    return None


def _names_every_level(class_shares: ClassShares) -> bool:
    """Return whether a map has classes for all levels instead of landmarks only."""
    return len(class_shares.known) > 2 * parameters.MOST_LANDMARKS


def contested_levels(observations: Sequence[Observation], levels: Sequence[str | None]) -> set[str]:
    """Return the landmarks that have about as much of their class in another component as in the one of that name.

    The first map is the most accurate one and is checked on its own; then all maps are added up with their weights.
    """
    contested = set()
    for observation, level in zip(observations, levels, strict=True):
        if level is None:
            continue
        for maps in (1, None):
            own = _landmark_share(observation, level, maps)
            others = (_landmark_share(o, level, maps) for o in observations if o is not observation)
            if own and max(others, default=0.0) >= max(
                parameters.LANDMARK_SEEN, parameters.LANDMARK_SEEN_ELSEWHERE * own
            ):
                contested.add(level)
    return contested


def _landmark_share(observation: Observation, level: str, maps: int | None) -> float:
    """Return the share of a component with the class of a landmark, over the first ``maps`` maps, weighted."""
    return sum(
        shares.weight * shares.levels.get(level, 0.0)
        for shares in observation.class_shares[:maps]
        if not _names_every_level(shares)
    )


def _disputed(n: int, solution: LevelSolution) -> str | None:
    """Return a warning if the levels of a component with and without the level prior differ."""
    if solution.disputed is None or solution.disputed[n] == solution.levels[n]:
        return None
    return f"the level prior is at odds with the landmarks: may be {solution.disputed[n] or 'no part of the column'}"


def landmark_support(observations: Sequence[Observation], levels: Sequence[str | None]) -> float:
    """Return the sum of `landmarks_of`."""
    return sum(landmarks_of(observations, levels).values())


def _sure_support(observations: Sequence[Observation], levels: Sequence[str | None]) -> float:
    """Return `landmark_support` without C2 and C2-C3 where the dens is not in view.

    Networks call the vertebra that is cut at the top C2, and then tend to place the landmarks below it to match.
    """
    found = landmarks_of(observations, levels)
    named = [(o, level) for o, level in zip(observations, levels, strict=True) if level is not None]
    doubtful = () if _has_dens(named) else _AXIS
    return sum(count for level, count in found.items() if level not in doubtful)


def landmarks_of(observations: Sequence[Observation], levels: Sequence[str | None]) -> dict[str, float]:
    """Count the landmarks that agree with the levels.

    A landmark disc counts by the share of its voxels with its class, a landmark vertebra less (`VERTEBRA_LANDMARKS`),
    because its errors correlate with those of the disc next to it; both less what a map shows at another level. C2 and
    the disc below it count half if the field of view cuts the dens, since any vertebra that is cut at the top resembles
    C2. A whole sacrum counts 1, a shorter one 0.5. A level prior or a second map that names every level counts 0.5 in
    total, and 1.5 if that map is the first one. A localizer that agrees on two components counts 1.5. The landmarks of
    another image of the session that agrees on two components count as if they were in view; a landmark that both
    images show counts once.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    levels
        Level of each component, ``None`` if it is not part of the column.

    Returns
    -------
    dict
        Count by landmark.
    """
    named = [(o, level) for o, level in zip(observations, levels, strict=True) if level is not None]
    found = _landmarks_in_view(named)
    session: dict[int, list[Mapping[str, float]]] = {}
    for observation, level in named:
        for evidence in observation.session_evidence:
            if evidence.table.get(level, 0.0) > 0.5:
                session.setdefault(evidence.image, []).append(evidence.landmarks)
    for agreeing in session.values():
        if len(agreeing) >= 2:
            found |= {name: max(count, found.get(name, 0.0)) for name, count in agreeing[0].items()}
    return found


def _landmarks_in_view(named: Sequence[tuple[Observation, str]]) -> dict[str, float]:
    """Count the landmarks of one image and of its localizer and level prior."""
    found: dict[str, float] = {}
    whole_axis = _has_dens(named)
    named_matches = [0] * max((len(o.class_shares) for o, _ in named), default=0)
    for observation, level in named:
        if observation.kind is Structure.SACRUM:
            found["S"] = 1.0 if observation.length_mm >= parameters.WHOLE_SACRUM_MM else 0.5
            continue
        best = 0.0
        for k, class_shares in enumerate(observation.class_shares):
            share = class_shares.levels.get(level, 0.0)
            if _names_every_level(class_shares):
                named_matches[k] += share >= 0.5
            else:
                best = max(best, share)
        weight = parameters.VERTEBRA_LANDMARKS.get(level, 0.5) if observation.kind is Structure.VERTEBRA else 1.0
        if level in _AXIS and not whole_axis:
            weight *= 0.5
        found[level] = weight * max(0.0, best - _seen_elsewhere(observation, level, named)) if best else 0.0
    for k, number in enumerate(named_matches):
        if number >= 3:
            found[f"map {k}"] = 1.5 if k == 0 else 0.5
    bare = [(o, level) for o, level in named if o.kind is not Structure.SACRUM]
    if sum(level in o.localizer_levels for o, level in bare) >= 2:
        found["localizer"] = 1.5
    if sum(o.level_prior.get(level, 0.0) >= 0.5 for o, level in bare) >= 3:
        found["level prior"] = 0.5
    return found


def _seen_elsewhere(observation: Observation, level: str, named: Sequence[tuple[Observation, str]]) -> float:
    """Return the largest weighted share that a map with landmarks has of a level in another component."""
    return max(
        (
            shares.weight * other.class_shares[k].levels.get(level, 0.0)
            for k, shares in enumerate(observation.class_shares)
            if not _names_every_level(shares)
            for other, _ in named
            if other is not observation
        ),
        default=0.0,
    )


def _has_dens(named: Sequence[tuple[Observation, str]]) -> bool:
    """Return whether C2 is so much longer along the canal than C3 that its dens is in view."""
    length = {level: o.s_high - o.s_low for o, level in named if o.kind is Structure.VERTEBRA}
    return length.get("C2", 0.0) >= parameters.DENS_LENGTH * length.get("C3", np.inf)


def _caution(observation: Observation, n: int, solution: LevelSolution) -> str | None:
    """Return why the level of a component is doubtful; ``None`` if it is not."""
    level, other = solution.levels[n], solution.runner_up[n]
    if solution.confidence[n] < parameters.BEYOND_DOUBT:
        return f"{SHIFT_POSSIBLE}: may be {other}" if other else "may be no part of the column"
    for class_shares in observation.class_shares[:1]:
        for name, share in class_shares.levels.items():
            if share >= 0.5 and name != level and {name, level} not in ({"T12", "T13"}, {"L5", "L6"}):
                return f"carries the class of {name}"
    return None


def _rare_variant(observations: Sequence[Observation], solution: LevelSolution) -> dict[str, str]:
    """Return a reason for each level that depends on other numbers of vertebrae than 12 and 5.

    A landmark above them fixes the thoracic levels; without one, all levels but L5-S depend on the numbers. No level
    does if all kinds of evidence agree at the last thoracic vertebra.
    """
    found = landmarks_of(observations, solution.levels)
    variant = solution.variant
    if (
        variant == SpineVariant()
        or sum(found.get(name, 0.0) for name in parameters.VARIANT_EVIDENCE) >= parameters.ENOUGH_FOR_VARIANT
    ):
        return {}
    chain = chain_of(variant)
    last = chain.vertebrae.index("T11")
    above = any(found.get(level) for level in (*chain.vertebrae[:last], *chain.discs[:last]))
    first = last + 1 if above else 0
    reason = RARE_VARIANT.format(variant.thoracic, variant.lumbar)
    return dict.fromkeys((*chain.vertebrae[first:-1], *chain.discs[first:-1]), reason)


def _discs(observations: Sequence[Observation], kept: Sequence[int]) -> list[Observation]:
    return [observations[n] for n in kept if observations[n].kind is Structure.DISC]


def _doubt(solution: LevelSolution, bare: Sequence[int]) -> str:
    weakest = min(bare, key=lambda n: solution.confidence[n])
    other = solution.runner_up[weakest]
    best = solution.levels[weakest]
    return f"{SHIFT_POSSIBLE}: {best} may be {other}" if other else SHIFT_POSSIBLE


def _slots(
    observations: Sequence[Observation], solution: LevelSolution, ids: Sequence[int | None]
) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """Return ids of the vertebrae between the discs, and the discs, for maps that do not separate vertebrae."""
    chain = chain_of(solution.variant)
    bodies = [n for n, o in enumerate(observations) if o.kind is Structure.VERTEBRA and ids[n] is not None]
    discs = [n for n, o in enumerate(observations) if o.kind is Structure.DISC and ids[n] is not None]
    if len(bodies) > 1 or not discs:
        return (), ()
    place = {chain.discs.index(str(solution.levels[n])): n for n in discs}
    first, last = min(place), max(place)
    # One more level at each end, so that bone beyond the last disc is not a single long vertebra.
    low, high = max(1, first - 1), min(len(chain.discs) - 1, last + 1)
    cuts: list[int | None] = [place.get(p) for p in range(low, high + 1)]
    sure = {p for p, n in place.items() if not anatomy.is_unnamed(ids[n] or 0)}
    slots = []
    for k, p in enumerate(range(low, high + 2)):
        # The nearest disc decides; vertebra ``p`` lies between discs ``p - 1`` and ``p``.
        near = min(place, key=lambda q: (abs(q + 0.5 - p), q not in sure))
        if near in sure:
            slots.append(anatomy.vertebra(chain.vertebrae[p]).id)
        else:
            slots.append(anatomy.unnamed(Structure.VERTEBRA, min(k + 1, anatomy.MAX_UNNAMED)).id)
    return tuple(slots), tuple(cuts)
