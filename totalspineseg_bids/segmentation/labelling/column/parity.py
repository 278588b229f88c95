"""What the alternating classes of vertebrae and discs say of the column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.labelling.column.parameters import EvidenceWeights
from totalspineseg_bids.segmentation.labelling.records import Observation


class Parities(NamedTuple):
    """What the alternating classes say."""

    scores: NDArray[np.float64]
    """Log-likelihood of each component in each phase at each place, shape (N, F, P)."""
    prior: NDArray[np.float64]
    """Log prior of each phase, shape (F,)."""
    flips: NDArray[np.float64]
    """Probability of going from one phase to another between two components, shape (F, F)."""


def parity_scores(observations: Sequence[Observation], places: int, weights: EvidenceWeights) -> Parities:
    """Weigh the alternating classes of vertebrae and discs.

    Which of the classes is called odd is left open, because models are trained with both: each kind that alternates
    has two phases. A phase may change within the column, at a price, because a model that has lost count goes on
    alternating.
    """
    shares = np.zeros((len(observations), 2))
    for n, o in enumerate(observations):
        total = sum(v.weight for v in o.class_shares) or 1.0
        shares[n] = [
            sum(v.weight * v.odd for v in o.class_shares) / total,
            sum(v.weight * v.even for v in o.class_shares) / total,
        ]
    is_disc = np.array([o.kind is Structure.DISC for o in observations], bool)
    vertebrae_tell = bool((shares[~is_disc] > 0.3).any())
    discs_tell = bool((shares[is_disc] > 0.3).any())
    sides = [(a, b) for a in range(2 if vertebrae_tell else 1) for b in range(2 if discs_tell else 1)]
    scores = np.zeros((len(observations), len(sides), places))
    right, wrong = np.log(1 - weights.parity_error), np.log(weights.parity_error)
    even_place = np.arange(places) % 2 == 0
    for f, phase in enumerate(sides):
        for n in range(len(observations)):
            weight = 0.5 if is_disc[n] else 1.0
            odd_here = even_place if phase[int(is_disc[n])] == 0 else ~even_place
            odd, even = shares[n]
            scores[n, f] = weight * np.where(odd_here, odd * right + even * wrong, odd * wrong + even * right)
    flips = np.full((len(sides), len(sides)), np.exp(-weights.parity_flip))
    np.fill_diagonal(flips, 1.0 - (len(sides) - 1) * np.exp(-weights.parity_flip))
    return Parities(scores, np.full(len(sides), -np.log(len(sides))), flips)
