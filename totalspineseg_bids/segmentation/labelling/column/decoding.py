"""From posterior probabilities to one naming: the one that gets most right in expectation.

The single most probable path may stand alone between many of another naming that differ in size, phase or a skipped
component, and lose to them together. What counts is the name of each component, and before that whether it is part of
the column at all, so the naming is chosen that gets most of both right in expectation, in the order of the column
(posterior decoding with the grammar of the chain; Käll, Krogh and Sonnhammer, Bioinformatics 21, 2005). Were names all
that counts, a disc of which nothing tells the level would be none, because no level is as probable as that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from totalspineseg_bids.segmentation.labelling.column.parameters import NEGLIGIBLE_VARIANT, TIE, Chain


def expected_naming(
    tables: Sequence[Mapping[str | None, float]],
    sides: Sequence[int],
    chains: Sequence[Chain],
    shares: Sequence[float],
) -> tuple[int, dict[int, int]]:
    """Choose a chain and a place in it for every component that is part of the column.

    Parameters
    ----------
    tables
        Posterior probability of each level of each component from cranial to caudal; ``None`` stands for "no part of
        the column".
    sides
        1 for a disc, 0 for a vertebra or the sacrum.
    chains
        The variants of the column.
    shares
        Probability of each.

    Returns
    -------
    tuple
        Index of the chain, and the place of each component that has one (``n`` for vertebra ``n`` and the disc below).
    """
    results = []
    for number, chain in enumerate(chains):
        if shares[number] < NEGLIGIBLE_VARIANT * max(shares):
            continue
        gain, places = _in_chain(tables, sides, chain)
        results.append((gain + TIE * shares[number], number, places))
    _, number, places = max(results, key=lambda result: result[0])
    return number, places


def _in_chain(
    tables: Sequence[Mapping[str | None, float]], sides: Sequence[int], chain: Chain
) -> tuple[float, dict[int, int]]:
    """Return how much the best naming by one chain gets right in expectation, and the naming."""
    names = (chain.vertebrae, chain.discs)
    spots = 2 * len(chain.vertebrae)
    # The best of the components so far within the first ``k`` spots, for every ``k``, and how it came about.
    best = np.zeros(spots + 1)
    spot_of = np.zeros((len(tables), spots + 1), np.int64)
    for n, (table, side) in enumerate(zip(tables, sides, strict=True)):
        gain = np.full(spots, -np.inf)
        false = table.get(None, 0.0)
        own = [table.get(name, 0.0) if name else 0.0 for name in names[side]]
        gain[side : side + 2 * len(own) : 2] = [share + (1.0 - false) if share else -np.inf for share in own]
        at_spot = np.concatenate([[-np.inf], best[:-1] + gain])
        within = np.maximum.accumulate(at_spot)
        skipped = best + 2.0 * false
        # Spots count from 1; 0 stands for a component that is skipped.
        reached = np.maximum.accumulate(np.where(at_spot >= within, np.arange(spots + 1), 0))
        spot_of[n] = np.where(within > skipped, reached, 0)
        best = np.maximum(within, skipped)
    places: dict[int, int] = {}
    end = spots
    for n in range(len(tables) - 1, -1, -1):
        spot = int(spot_of[n, end])
        if spot:
            places[n] = (spot - 1 - sides[n]) // 2
            end = spot - 1
    return float(best[-1]), places
