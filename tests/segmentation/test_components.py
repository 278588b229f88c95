"""Components found in a map, and the cost of rejecting them."""

import itertools

import numpy as np
import pytest

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.labelling.column.rejection import rejection_costs
from totalspineseg_bids.segmentation.labelling.components.bodies import cut_fused, pieces_between_discs
from totalspineseg_bids.segmentation.labelling.records import ComponentVoxels, Observation

#: Lengths of the bodies of a neck with chest along the canal, C3 to T4, mm: those of the chest are twice as long.
NECK_AND_CHEST = [10, 10, 9, 10, 10, 15, 15, 19, 12]


def disc(s, *, volume=2000.0, cut=Cut.NONE):
    return Observation(Structure.DISC, np.array([0.0, 15.0, -s]), s, s - 3, s + 3, 15.0, 0.0, volume, cut, (), 0)


def pieces_after_cut(lengths):
    """Return how many pieces each body of a column becomes whose bodies have such lengths, discs of 5 mm between."""
    starts = list(itertools.accumulate((length + 5 for length in lengths), initial=0))[:-1]
    bodies = [np.arange(start, start + length, 0.25) for start, length in zip(starts, lengths, strict=True)]
    s, part = np.concatenate(bodies), np.repeat(np.arange(len(bodies)), [len(body) for body in bodies])
    discs = tuple(disc(start - 2.5) for start in starts[1:])
    empty = np.zeros(0, np.int64)
    cut, fused = cut_fused(part, s, ComponentVoxels(np.zeros((0, 3), np.int64), empty, discs))
    numbers = [len(np.unique(cut[part == n])) for n in range(len(bodies))]
    assert bool(fused) == (max(numbers) > 1)
    return numbers


def test_longer_bodies_of_the_chest_are_no_blocks():
    assert pieces_after_cut(NECK_AND_CHEST) == [1] * 9


@pytest.mark.parametrize("place", [2, 5, 6])
def test_a_block_is_cut_wherever_it_is(place):
    lengths = list(NECK_AND_CHEST)
    lengths[place] = 2 * lengths[place] + 5
    assert pieces_after_cut(lengths) == [2 if n == place else 1 for n in range(9)]


def test_a_sliver_at_the_edge_is_less_sure_than_what_the_edge_cuts_in_half():
    whole = [disc(s) for s in (60.0, 90.0, 120.0)]
    sliver, half, small = (
        rejection_costs([disc(30.0, volume=volume, cut=cut), *whole])[0]
        for volume, cut in ((40.0, Cut.ALONG), (1000.0, Cut.ALONG), (1000.0, Cut.NONE))
    )
    assert sliver < 0.6 * half
    assert small < half


def test_pieces_of_a_body_where_the_chest_begins_are_one():
    """T1 came out in two classes; seen from the disc above it the next gaps are those of the neck, far smaller."""
    places = [67.3, 83.7, 100.4, 114.1, 127.9, 143.2, 163.9, 186.4, 209.2, 233.8]
    bodies = [_body(s, part) for part, s in enumerate((135.8, 151.1, 153.0, 175.2))]
    empty = np.zeros(0, np.int64)
    groups = pieces_between_discs(
        bodies, ComponentVoxels(np.zeros((0, 3), np.int64), empty, tuple(disc(s) for s in places))
    )
    assert [[piece.part for piece in group] for group in groups] == [[1, 2]]


def _body(s, part):
    return Observation(
        Structure.VERTEBRA, np.array([0.0, 15.0, -s]), s, s - 5, s + 5, 15.0, 0.0, 4000.0, Cut.NONE, (), part
    )
