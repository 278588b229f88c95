"""Bone to vertebrae."""

from __future__ import annotations

import numpy as np
import pytest

from totalspineseg_bids.segmentation.labelling.centerline import centerline_from_canal
from totalspineseg_bids.segmentation.labelling.instances import paint_vertebrae
from totalspineseg_bids.segmentation.labelling.observation import Scene
from totalspineseg_bids.segmentation.layout import Layout

LAYOUT = Layout.named("r20240601-step2")
ODD, EVEN = LAYOUT.labels["vertebrae_O"][0], LAYOUT.labels["vertebrae_E"][0]
LOWER = (slice(10, 30), slice(10, 30), slice(10, 30))


def _painted(values):
    """Paint a map in which the lower block is seeded as vertebra 40 and nothing else is."""
    canal = np.stack([np.full(80, 20.0), np.full(80, 5.0), np.arange(80.0)], axis=1)
    line = centerline_from_canal(canal, 20.0)
    scene = Scene((), np.ones(3), np.zeros(3, int), np.array(values.shape) - 1, line)
    seeds = np.zeros((20, 20, 40), np.uint8)
    seeds[7:13, 7:13, 7:13] = 40
    out = np.zeros(values.shape, np.uint8)
    paint_vertebrae(out, values, LAYOUT, seeds, stride=2, scene=scene)
    return out


def _block(other, size):
    values = np.zeros((40, 40, 80), np.uint8)
    values[LOWER] = ODD
    at = (slice(10, 10 + size), slice(10, 10 + size), slice(32, 32 + size))
    values[at] = other
    return values, at


@pytest.mark.parametrize(("other", "size", "expected"), [(EVEN, 16, 0), (EVEN, 6, 40), (ODD, 16, 40)])
def test_a_large_piece_of_the_other_class_is_no_part_of_its_neighbour(other, size, expected):
    values, at = _block(other, size)
    out = _painted(values)
    assert (out[LOWER] == 40).all()
    assert (out[at] == expected).all()
