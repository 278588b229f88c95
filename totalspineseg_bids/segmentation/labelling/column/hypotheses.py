"""Hypotheses of the column: numbers of vertebrae, size of the subject, and the position of every level.

A hypothesis combines one variant of the column (numbers of vertebrae) with one scale of the subject. The phases of the
alternating classes (`parity`) multiply the hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.labelling.column import parameters
from totalspineseg_bids.segmentation.labelling.column.parameters import Chain, chain_of

#: Entry of ``levels_away`` where a chain lacks the level, one after those of the slips.
NO_PLACE = 4


@dataclass(frozen=True)
class Hypotheses:
    """All H combinations of variant and scale."""

    chains: tuple[Chain, ...]
    """Levels of each variant, length V."""
    variant: NDArray[np.int64]
    """Index of the chain of each hypothesis, shape (H,)."""
    scale: NDArray[np.float64]
    """Scale of each hypothesis relative to an adult, shape (H,)."""
    prior: NDArray[np.float64]
    """Log prior probability, shape (H,)."""
    position: NDArray[np.float64]
    """Position along the column, mm, shape (H, P, 2): vertebra ``n`` and the disc below it."""
    exists: NDArray[np.bool_]
    """Whether the place exists, shape (H, P, 2)."""

    @property
    def places(self) -> int:
        """Number of vertebral places of the longest chain."""
        return int(self.position.shape[1])

    @cached_property
    def steps(self) -> list[list[list[NDArray[np.float32]]]]:
        """Distance between places ``q`` apart, mm: ``[from][to][q]`` with 0 for vertebrae, 1 for discs, (H, P - q)."""
        return [
            [
                [
                    (self.position[:, q:, b] - self.position[:, : self.places - q, a]).astype(np.float32)
                    for q in range(parameters.LONGEST_STEP + 1)
                ]
                for b in (0, 1)
            ]
            for a in (0, 1)
        ]

    @cached_property
    def reach(self) -> list[list[list[tuple[float, float]]]]:
        """Smallest and largest of `steps` between places that exist, mm: ``[from][to][q]``."""
        ends = self.exists
        return [
            [
                [
                    (float(inside.min()), float(inside.max())) if inside.size else (np.inf, np.inf)
                    for q in range(parameters.LONGEST_STEP + 1)
                    for inside in [self.steps[a][b][q][ends[:, q:, b] & ends[:, : self.places - q, a]]]
                ]
                for b in (0, 1)
            ]
            for a in (0, 1)
        ]

    @cached_property
    def log_volume(self) -> NDArray[np.float64]:
        """Logarithm of the expected disc volume in mm³ at each place, shape (H, P); 0 if there is no disc."""
        expected = np.ones((len(self.chains), self.places))
        for v, chain in enumerate(self.chains):
            expected[v, 1 : len(chain.discs)] = chain.disc_volume_mm3[1:]
        return np.asarray(np.log(expected)[self.variant] + 3 * np.log(self.scale)[:, None])


@cache
def build_hypotheses() -> Hypotheses:
    """Combine all variants with all scales."""
    chains = tuple(chain_of(v) for v in parameters.VARIANT_PRIOR)
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
    scale_total = sum(w for _, w in parameters.SCALES)
    for v, share in enumerate(parameters.VARIANT_PRIOR.values()):
        for factor, weight in parameters.SCALES:
            variant.append(v)
            scale.append(factor)
            prior.append(np.log(share) + np.log(weight / scale_total))
    index, factors = np.asarray(variant), np.asarray(scale)
    return Hypotheses(chains, index, factors, np.asarray(prior), base[index] * factors[:, None, None], exists[index])


def places_of(chain: Chain, level: str, kind: Structure) -> tuple[int, ...]:
    """Return the places of a chain at which the class of a level may be found.

    A model trained with 12 thoracic and 5 lumbar vertebrae may name the last one of each region T12 and L5; in a column
    with one more, the class may be found on either of the last two.

    Parameters
    ----------
    chain
        Levels of one variant.
    level
        Level of the class.
    kind
        Disc or vertebra.
    """
    if kind is Structure.DISC:
        return (chain.discs.index(level),) if level in chain.discs else ()
    last = {"T12": chain.vertebrae.index("L1") - 1, "L5": len(chain.vertebrae) - 2}
    own = (chain.vertebrae.index(level),) if level in chain.vertebrae else ()
    return tuple(sorted({*own, *((last[level],) if level in last else ())}))


@cache
def levels_away(level: str, kind: Structure) -> NDArray[np.int64]:
    """Return the distance of each place from a level in levels, at most 3, shape (V, P).

    All places of a chain without the level have the value `NO_PLACE`.
    """
    hypotheses = build_hypotheses()
    result = np.full((len(hypotheses.chains), hypotheses.places), NO_PLACE)
    for v, chain in enumerate(hypotheses.chains):
        at = places_of(chain, level, kind)
        if at:
            result[v] = np.minimum(np.min([np.abs(np.arange(hypotheses.places) - place) for place in at], axis=0), 3)
    return result


@cache
def owners(level: str, kind: Structure) -> NDArray[np.float64]:
    """Return 1 at the place of a level in each chain, shape (V, P); none if its class may be on either of two."""
    own = levels_away(level, kind) == 0
    return np.asarray(own & (own.sum(axis=1, keepdims=True) == 1), np.float64)


@cache
def elsewhere(region: str, kind: Structure) -> NDArray[np.float64]:
    """Return 1 outside a region of the column in each chain, otherwise 0, shape (V, P)."""
    hypotheses = build_hypotheses()
    result = np.ones((len(hypotheses.chains), hypotheses.places))
    for v, chain in enumerate(hypotheses.chains):
        names = chain.discs if kind is Structure.DISC else chain.vertebrae
        result[v, : len(names)] = [bool(name) and name[0] != region for name in names]
    return result
