"""Assignment of voxels to vertebrae."""

import numpy as np
import pytest

from totalspineseg_bids.imaging.centerline import Centerline
from totalspineseg_bids.imaging.field_of_view import AcquiredRegion
from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling.instances.vertebrae import draw_vertebrae
from totalspineseg_bids.segmentation.labelling.records import SpineContext

LAYOUT = ClassMap.named("r20240601-step2")
ODD, EVEN = LAYOUT.labels["vertebrae_O"][0], LAYOUT.labels["vertebrae_E"][0]
LOWER = (slice(10, 30), slice(10, 30), slice(10, 30))


def label_vertebrae(values, seeds, canal_at):
    """Label a map from seeds (block of the coarse grid, id) and a straight canal ``canal_at`` voxels from the back."""
    length = values.shape[2]
    canal = np.stack([np.full(length, 20.0), np.full(length, canal_at), np.arange(float(length))], axis=1)
    line = Centerline.from_canal(canal, 20.0)
    context = SpineContext((), np.ones(3), AcquiredRegion(Geometry(values.shape, np.eye(4))), np.zeros(3, int), line)
    coarse = np.zeros([n // 2 for n in values.shape], np.uint8)
    for block, label in seeds:
        coarse[block] = label
    out = np.zeros(values.shape, np.uint8)
    draw_vertebrae(out, values, LAYOUT, coarse, stride=2, context=context)
    return out


def _body(height):
    """Seed of a body whose middle is at a height (voxels)."""
    return slice(6, 14), slice(19, 26), slice(height // 2 - 4, height // 2 + 4)


def _block(other, size):
    values = np.zeros((40, 40, 80), np.uint8)
    values[LOWER] = ODD
    at = (slice(10, 10 + size), slice(10, 10 + size), slice(32, 32 + size))
    values[at] = other
    return values, at


@pytest.mark.parametrize(("other", "size", "expected"), [(EVEN, 16, 0), (EVEN, 6, 40), (ODD, 16, 40)])
def test_a_large_piece_of_the_other_class_is_no_part_of_its_neighbour(other, size, expected):
    values, at = _block(other, size)
    out = label_vertebrae(values, [((slice(7, 13),) * 3, 40)], canal_at=5.0)
    assert (out[LOWER] == 40).all()
    assert (out[at] == expected).all()


def test_a_process_that_points_down_to_its_neighbour_stays_with_its_own_body():
    """Neither arch has a class of its own, and the voxels between them connect them."""
    values = np.zeros((40, 60, 80), np.uint8)
    expected = np.zeros(values.shape, np.uint8)
    loose = LAYOUT.labels["vertebrae"][0]
    bodies = ((56, 40, ODD), (30, 39, EVEN))
    for height, label, parity in bodies:
        values[12:28, 38:52, height - 8 : height + 8] = parity
        for y in range(4, 38):
            # As in an adult's chest: a spinous process ends about a level below its body.
            middle = height - round(0.6 * max(0, 28 - y))
            values[17:23, y, middle - 3 : middle + 4] = loose
            expected[17:23, y, middle - 3 : middle + 4] = label
    between = values[17:23, 4:38, 20:60]
    between[between == 0] = loose
    out = label_vertebrae(values, [(_body(height), label) for height, label, _ in bodies], canal_at=30.0)
    tips = expected[:, :16] > 0
    assert (out == expected)[:, :16][tips].mean() > 0.98


def test_bone_of_the_same_class_two_levels_further_down_is_left_out():
    values = np.zeros((40, 60, 120), np.uint8)
    values[12:28, 38:52, 92:108] = ODD
    values[12:28, 14:38, 100:104] = ODD
    values[17:23, 10:20, 10:104] = ODD
    values[12:28, 38:52, 66:82] = EVEN
    out = label_vertebrae(values, [(_body(100), 40), (_body(74), 39)], canal_at=30.0)
    assert (out[17:23, 10:20, 94:104] == 40).all()
    assert not (out[:, :, :60] == 40).any()


def test_an_arch_without_a_way_to_its_body_stays_with_it():
    """It hangs on its neighbour by undecided bone, and its lower end is as near to the height of that one."""
    loose = LAYOUT.labels["vertebrae"][0]
    values = np.zeros((40, 60, 80), np.uint8)
    for height, parity in ((56, EVEN), (30, ODD)):
        values[12:28, 38:52, height - 8 : height + 8] = parity
    values[12:28, 22:38, 24:34] = loose
    values[14:26, 24:30, 34:40] = loose
    values[12:28, 24:35, 40:60] = EVEN
    out = label_vertebrae(values, [(_body(56), 40), (_body(30), 39)], canal_at=30.0)
    assert (out[12:28, 24:35, 47:60] == 40).all()
    assert (out[12:28, 22:38, 24:34] == 39).all()
