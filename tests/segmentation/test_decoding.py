"""One naming out of posterior probabilities."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.segmentation.labelling.column.decoding import expected_naming
from totalspineseg_bids.segmentation.labelling.column.parameters import chain_of

REGULAR, SIX = chain_of(SpineVariant()), chain_of(SpineVariant(12, 6))


def _names(places, sides, chain):
    return {n: (chain.discs if sides[n] else chain.vertebrae)[place] for n, place in places.items()}


def test_a_disc_of_unknown_level_is_still_a_disc():
    levels = REGULAR.discs[4:14]
    tables = [{None: 0.3} | dict.fromkeys(levels, 0.07), {None: 0.6} | dict.fromkeys(levels, 0.04)]
    _, places = expected_naming(tables, [1, 1], [REGULAR], [1.0])
    assert set(places) == {0}


def test_the_variant_follows_the_names_and_else_its_probability():
    tables = [{"L5": 0.9, None: 0.0}, {"L6": 0.6, None: 0.4}, {"S": 1.0, None: 0.0}]
    assert expected_naming(tables, [0, 0, 0], [REGULAR, SIX], [0.4, 0.6])[0] == 1
    both = [{"T5": 1.0, None: 0.0}]
    assert expected_naming(both, [0], [REGULAR, SIX], [0.7, 0.3])[0] == 0
    assert expected_naming(both, [0], [REGULAR, SIX], [0.3, 0.7])[0] == 1


@given(st.integers(0, 100_000))
def test_it_is_the_best_of_all_namings(seed):
    rng = np.random.default_rng(seed)
    sides = rng.integers(0, 2, 3).tolist()
    tables = []
    for side in sides:
        names = [n for n in (REGULAR.discs if side else REGULAR.vertebrae)[3:6] if n]
        shares = rng.dirichlet(np.ones(len(names) + 1))
        tables.append({None: float(shares[-1]), **dict(zip(names, shares[:-1].tolist(), strict=True))})

    def spot(n, name):
        return 2 * (REGULAR.discs if sides[n] else REGULAR.vertebrae).index(name) + sides[n]

    def right(n, name):
        """Return how much is right: whether component ``n`` is part of the column, and its level."""
        false = tables[n][None]
        return 2 * false if name is None else tables[n][name] + 1 - false

    best = 0.0
    for chosen in itertools.product(*tables):
        spots = [spot(n, name) for n, name in enumerate(chosen) if name is not None]
        if all(a < b for a, b in itertools.pairwise(spots)):
            best = max(best, sum(right(n, name) for n, name in enumerate(chosen)))
    _, places = expected_naming(tables, sides, [REGULAR], [1.0])
    named = _names(places, sides, REGULAR)
    assert np.isclose(sum(right(n, named.get(n)) for n in range(len(tables))), best)
