"""Evidence of the alternating (odd and even) classes of vertebrae and discs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.labelling.column.parameters import (
    ALTERNATING_SHARE,
    DISC_PARITY_WEIGHT,
    WEIGHTS,
)
from totalspineseg_bids.segmentation.labelling.records import Observation


class Parities(NamedTuple):
    """Likelihoods of the phases of the alternating classes."""

    scores: NDArray[np.float64]
    """Log-likelihood of each component in each phase at each place, shape (N, F, P)."""
    prior: NDArray[np.float64]
    """Log prior of each phase, shape (F,)."""
    flips: NDArray[np.float64]
    """Probability of a change from one phase to another between two components, shape (F, F)."""


def parity_scores(observations: Sequence[Observation], places: int) -> Parities:
    """Return the log-likelihoods of the alternating classes of vertebrae and discs.

    Models are trained with either class as the odd one, so each kind of structure that alternates has two phases. A
    phase may change within the column at a cost, because a model that skips a level continues to alternate.

    Parameters
    ----------
    observations
        Components from cranial to caudal.
    places
        Number of vertebral places, P.
    """
    shares = np.zeros((len(observations), 2))
    for n, o in enumerate(observations):
        total = sum(v.weight for v in o.class_shares) or 1.0
        shares[n] = [
            sum(v.weight * v.odd for v in o.class_shares) / total,
            sum(v.weight * v.even for v in o.class_shares) / total,
        ]
    is_disc = np.array([o.kind is Structure.DISC for o in observations], bool)
    vertebrae_alternate = bool((shares[~is_disc] > ALTERNATING_SHARE).any())
    discs_alternate = bool((shares[is_disc] > ALTERNATING_SHARE).any())
    sides = [(a, b) for a in range(2 if vertebrae_alternate else 1) for b in range(2 if discs_alternate else 1)]
    scores = np.zeros((len(observations), len(sides), places))
    right, wrong = np.log(1 - WEIGHTS.parity_error), np.log(WEIGHTS.parity_error)
    even_place = np.arange(places) % 2 == 0
    for f, phase in enumerate(sides):
        for n in range(len(observations)):
            weight = DISC_PARITY_WEIGHT if is_disc[n] else 1.0
            odd_here = even_place if phase[int(is_disc[n])] == 0 else ~even_place
            odd, even = shares[n]
            scores[n, f] = weight * np.where(odd_here, odd * right + even * wrong, odd * wrong + even * right)
    flips = np.full((len(sides), len(sides)), np.exp(-WEIGHTS.parity_flip))
    np.fill_diagonal(flips, 1.0 - (len(sides) - 1) * np.exp(-WEIGHTS.parity_flip))
    return Parities(scores, np.full(len(sides), -np.log(len(sides))), flips)
