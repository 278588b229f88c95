"""Choose one level per component from posterior probabilities, with the largest expected number of correct answers.

The most probable path may have different levels than many less probable paths that together are more probable and
differ only in size, phase or a skipped component. Two answers count for each component: whether it is part of the
column, and its level. The assignment with the largest expected number of correct answers that keeps the order of the
column is chosen (posterior decoding; Käll, Krogh and Sonnhammer, Bioinformatics 21, 2005). If only levels counted, a
disc without any evidence of its level would be rejected, because no single level is as probable as "not part of the
column".
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
        Posterior probability of each level of each component from cranial to caudal; the key ``None`` means "not part
        of the column".
    sides
        1 for a disc, 0 for a vertebra or the sacrum.
    chains
        The variants of the column.
    shares
        Posterior probability of each variant.

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
    """Return the largest expected number of correct answers for one chain, and the places of the components."""
    names = (chain.vertebrae, chain.discs)
    spots = 2 * len(chain.vertebrae)
    # Largest expected number for the components so far within the first ``k`` spots, for every ``k``, and its choices.
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
        # Spots are counted from 1; 0 is a rejected component.
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
