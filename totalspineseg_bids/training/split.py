"""Who is trained on and who is tested on: by person, stratified, and the same for the same seed.

Persons are put in order by a hash of the seed and their name, not by a random generator, so that a dataset that grows
keeps most of its split.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from totalspineseg_bids.training.cases import TrainingCase

Person = tuple[str, str]
MAX_FOLDS = 5


def _rank(person: Person, seed: int, purpose: str) -> str:
    return hashlib.sha256(f"{seed}|{purpose}|{person[0]}|{person[1]}".encode()).hexdigest()


def _strata(cases: Sequence[TrainingCase]) -> dict[tuple[str, ...], list[Person]]:
    """Group persons by dataset and by the contrasts that they have."""
    contrasts: dict[Person, set[str]] = defaultdict(set)
    for case in cases:
        contrasts[case.person].add(case.contrast)
    strata: dict[tuple[str, ...], list[Person]] = defaultdict(list)
    for person, found in sorted(contrasts.items()):
        strata[(person[0], *sorted(found))].append(person)
    return dict(strata)


def held_out_persons(cases: Sequence[TrainingCase], fraction: float = 0.1, seed: int = 0) -> frozenset[Person]:
    """Choose the persons of the test set.

    Parameters
    ----------
    cases
        All cases; those of one person stay together.
    fraction
        Share of the persons, 0 to below 1, held in each stratum (dataset and set of contrasts) as nearly as whole
        persons allow (largest remainders first).
    seed
        Another seed gives another choice.

    Returns
    -------
    frozenset of (dataset, subject)
        At least one person where there are two or more and the fraction is above 0; never all.

    Raises
    ------
    ValueError
        If the fraction is not in [0, 1).
    """
    if not 0 <= fraction < 1:
        msg = f"test fraction must be at least 0 and below 1, not {fraction:g}"
        raise ValueError(msg)
    strata = _strata(cases)
    total = sum(len(persons) for persons in strata.values())
    if fraction == 0 or total < 2:
        return frozenset()
    wanted = min(max(1, round(fraction * total)), total - 1)
    shares = {key: fraction * len(persons) for key, persons in strata.items()}
    counts = {key: int(share) for key, share in shares.items()}
    for key in sorted(shares, key=lambda k: (-(shares[k] - counts[k]), k)):
        if sum(counts.values()) >= wanted:
            break
        counts[key] = min(counts[key] + 1, len(strata[key]))
    chosen: set[Person] = set()
    for key, persons in strata.items():
        chosen.update(sorted(persons, key=lambda p: _rank(p, seed, "test"))[: counts[key]])
    return frozenset(chosen)


def folds(cases: Sequence[TrainingCase], seed: int = 0) -> list[dict[str, list[str]]]:
    """Split training cases into nnU-Net's cross-validation folds, by person.

    Parameters
    ----------
    cases
        Training cases (without the test set).
    seed
        Another seed gives another split.

    Returns
    -------
    list of dict
        Five folds, fewer where there are fewer persons, each with the case ids of ``train`` and ``val``. A single
        person is in both.
    """
    parts: dict[Person, int] = {}
    count = min(MAX_FOLDS, len({case.person for case in cases}))
    for persons in _strata(cases).values():
        for person in sorted(persons, key=lambda p: _rank(p, seed, "fold")):
            # Dealing on from stratum to stratum keeps the folds of equal size.
            parts[person] = len(parts) % count
    splits: list[dict[str, list[str]]] = []
    for fold in range(count):
        held_out = [case.case_id for case in cases if parts[case.person] == fold]
        rest = [case.case_id for case in cases if parts[case.person] != fold]
        splits.append({"train": sorted(rest or held_out), "val": sorted(held_out)})
    return splits
