"""Bodies of a map: blocks are cut, pieces of one body go together."""

import itertools

import numpy as np
import pytest

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.labelling.components.bodies import cut_fused, pieces_between_discs
from totalspineseg_bids.segmentation.labelling.records import ComponentVoxels

from .observations import make_observation

#: Lengths of the bodies of a neck with chest along the canal, C3 to T4, mm: those of the chest are twice as long.
NECK_AND_CHEST = [10, 10, 9, 10, 10, 15, 15, 19, 12]


def discs_at(*places):
    discs = tuple(make_observation(Structure.DISC, s) for s in places)
    return ComponentVoxels(np.zeros((0, 3), np.int64), np.zeros(0, np.int64), discs)


def pieces_after_cut(lengths):
    """Return how many pieces each body of a column becomes whose bodies have such lengths, discs of 5 mm between."""
    starts = list(itertools.accumulate((length + 5 for length in lengths), initial=0))[:-1]
    bodies = [np.arange(start, start + length, 0.25) for start, length in zip(starts, lengths, strict=True)]
    s, part = np.concatenate(bodies), np.repeat(np.arange(len(bodies)), [len(body) for body in bodies])
    cut, fused = cut_fused(part, s, discs_at(*(start - 2.5 for start in starts[1:])))
    numbers = [len(np.unique(cut[part == n])) for n in range(len(bodies))]
    assert bool(fused) == (max(numbers) > 1)
    return numbers


@pytest.mark.parametrize("place", [None, 2, 5, 6])
def test_a_block_is_cut_wherever_it_is_and_longer_bodies_of_the_chest_are_none(place):
    lengths = [2 * length + 5 if n == place else length for n, length in enumerate(NECK_AND_CHEST)]
    assert pieces_after_cut(lengths) == [2 if n == place else 1 for n in range(9)]


def test_pieces_of_a_body_where_the_chest_begins_are_one():
    """T1 came out in two classes; seen from the disc above it the next gaps are those of the neck, far smaller."""
    discs = discs_at(67.3, 83.7, 100.4, 114.1, 127.9, 143.2, 163.9, 186.4, 209.2, 233.8)
    bodies = [
        make_observation(Structure.VERTEBRA, s, part=part, s_low=s - 5, s_high=s + 5)
        for part, s in enumerate((135.8, 151.1, 153.0, 175.2))
    ]
    assert [[piece.part for piece in group] for group in pieces_between_discs(bodies, discs)] == [[1, 2]]
