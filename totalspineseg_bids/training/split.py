"""Split of the cases into training and test set by person, stratified and deterministic.

Persons are put in order by a hash of the seed and their name, not by a random generator, so that a dataset that grows
keeps most of its split. A person with several contrasts counts for each of them, which is why the test set is chosen
person by person for the contrast that still lacks most (after Sechidis et al., "On the stratification of multi-label
data", ECML PKDD 2011).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.training.cases import TrainingCase

Person = tuple[str, str]
#: Dataset and contrast.
Stratum = tuple[str, str]
MAX_FOLDS = 5
#: A contrast that lacks as much of a person gets one more.
_HALF = 0.5


def _rank(person: Person, seed: int, purpose: str) -> str:
    return hashlib.sha256(f"{seed}|{purpose}|{person[0]}|{person[1]}".encode()).hexdigest()


def _strata_of(cases: Sequence[TrainingCase]) -> dict[Person, set[Stratum]]:
    """Return for each person the datasets and contrasts that it counts for."""
    found: dict[Person, set[Stratum]] = defaultdict(set)
    for case in cases:
        found[case.person].add((case.dataset, case.contrast))
    return dict(found)


def held_out_persons(cases: Sequence[TrainingCase], fraction: float = 0.1, seed: int = 0) -> frozenset[Person]:
    """Choose the persons of the test set.

    Parameters
    ----------
    cases : sequence of TrainingCase
        All cases; those of one person stay together.
    fraction : float, default 0.1
        Share of the persons, 0 to below 1, held in each dataset and contrast to within half a person where that can
        be had.
    seed : int, default 0
        Another seed gives another choice.

    Returns
    -------
    frozenset of (dataset, subject)
        At least one person where there are two or more and the fraction is above 0; never all.

    Raises
    ------
    UsageError
        If the fraction is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        msg = f"the share of the test set must be at least 0 and below 1, not {fraction:g}"
        raise UsageError(msg)
    strata = _strata_of(cases)
    total = len(strata)
    if fraction == 0 or total < 2:
        return frozenset()
    wanted = min(max(1, round(fraction * total)), total - 1)
    lacking = {key: fraction * number for key, number in Counter(k for keys in strata.values() for k in keys).items()}
    waiting = sorted(strata, key=lambda person: _rank(person, seed, "test"))
    chosen: set[Person] = set()
    while len(chosen) < total - 1 and (len(chosen) < wanted or max(lacking.values()) >= _HALF):
        key = max(
            (key for key in lacking if any(key in strata[person] for person in waiting)),
            # Equal lacks fall to no contrast by its name, but by a hash.
            key=lambda k: (lacking[k], _rank(k, seed, "stratum")),
        )
        # Of those who have what lacks most, the one whose other contrasts lack most too; then in the order of the hash.
        person = max(
            (p for p in waiting if key in strata[p]), key=lambda p: sum(lacking[k] for k in strata[p]) / len(strata[p])
        )
        waiting.remove(person)
        chosen.add(person)
        for own in strata[person]:
            lacking[own] -= 1.0
    return frozenset(chosen)


def folds(cases: Sequence[TrainingCase], seed: int = 0) -> list[dict[str, list[str]]]:
    """Split training cases into nnU-Net's cross-validation folds, by person.

    Parameters
    ----------
    cases : sequence of TrainingCase
        Training cases (without the test set).
    seed : int, default 0
        Another seed gives another split.

    Returns
    -------
    list of dict
        Five folds, fewer where there are fewer persons, each with the case ids of ``train`` and ``val``. A single
        person is in both.
    """
    parts: dict[Person, int] = {}
    count = min(MAX_FOLDS, len({case.person for case in cases}))
    strata = {person: frozenset(found) for person, found in _strata_of(cases).items()}
    first: dict[frozenset[Stratum], Person] = {}
    for person in sorted(strata):
        first.setdefault(strata[person], person)
    # Dealing on from persons with some contrasts to those with others keeps the folds of equal size.
    for person in sorted(strata, key=lambda p: (first[strata[p]], _rank(p, seed, "fold"))):
        parts[person] = len(parts) % count
    splits: list[dict[str, list[str]]] = []
    for fold in range(count):
        held_out = [case.case_id for case in cases if parts[case.person] == fold]
        rest = [case.case_id for case in cases if parts[case.person] != fold]
        splits.append({"train": sorted(rest or held_out), "val": sorted(held_out)})
    return splits
