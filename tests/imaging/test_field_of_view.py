"""The acquired field of view, and how its edges cut structures."""

import numpy as np
import pytest
from scipy import ndimage

from tests.columns import half_space
from totalspineseg_bids.imaging.centerline import Centerline
from totalspineseg_bids.imaging.field_of_view import AcquiredRegion, Cut, find_padding
from totalspineseg_bids.imaging.grid import to_working_grid
from totalspineseg_bids.imaging.volume import Geometry, Volume

SHAPE = (40, 60, 70)
MIDDLE = np.array(SHAPE) / 2
X, Y, Z = np.indices(SHAPE)
BALL = (X - 20) ** 2 + (Y - 30) ** 2 + (Z - 35) ** 2 < 12**2


def beyond(normal, distance=0.0):
    """Return the voxels beyond a plane at a distance from the middle of the array."""
    unit = np.array(normal) / np.linalg.norm(normal)
    return half_space(SHAPE, MIDDLE + distance * unit, unit)


def with_constant(where, value=0.0):
    return np.where(where, np.float32(value), tissue())


def tissue():
    return np.random.default_rng(0).uniform(50, 200, SHAPE).astype(np.float32)


PADDED = {
    "rotated": beyond((0.0, 0.4, 0.9)),
    "rotated slab": beyond((0.97, 0.0, 0.2), 12) | beyond((-0.97, 0.0, -0.2), 12),
    "distortion corrected": np.hypot(Y - 30, Z - 90) > 85,
    "stitched": ((Z < 35) & (Y < 15)) | ((Z >= 35) & (Y >= 50)),
    "defaced": (Y > 40) & (Z > 40),
    "one corner": beyond((1.0, 1.0, 1.0), 35),
}


@pytest.mark.parametrize("value", [0, -1024, 70], ids=["zero", "offset", "grey"])
@pytest.mark.parametrize("kind", PADDED)
def test_padding_of_any_shape_and_value_is_found(kind, value):
    outside = PADDED[kind]
    found = find_padding(with_constant(outside, value))
    assert found is not None
    # Corners of the padding that are narrower than a block are left out.
    assert not (found & ~outside).any()
    assert np.count_nonzero(outside & ~found) < 0.1 * np.count_nonzero(outside)


def test_padding_survives_resampling():
    outside = PADDED["rotated"]
    image = to_working_grid(Volume(with_constant(outside), np.diag([0.7, 0.8, 1.3, 1.0])))
    found = find_padding(image.data)
    zoom = [n / m for n, m in zip(image.data.shape, SHAPE, strict=True)]
    inside = ndimage.binary_erosion(ndimage.zoom(outside, zoom, order=0), iterations=4, border_value=1)
    assert found[inside].all()
    assert found.mean() < 1.05 * outside.mean()


NOT_PADDED = {
    "tissue": tissue(),
    "clipped noise of air": with_constant(np.random.default_rng(1).random(SHAPE) < 0.9),
    "flow void": with_constant(np.hypot(X - 20, Y - 30) < 8),
    "clipped fat": with_constant(PADDED["one corner"], 5000),
    "one value": np.zeros(SHAPE, np.float32),
    "small": np.zeros((1, 2, 3), np.float32),
}


@pytest.mark.parametrize("kind", NOT_PADDED)
def test_dark_and_bright_tissue_is_not_padding(kind):
    assert find_padding(NOT_PADDED[kind]) is None


UP, RIGHT, FRONT = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
#: Direction of the canal, face of the array (axis, and whether the last) and how it cuts.
FACES = {
    "upright, top": (UP, 2, True, Cut.ALONG),
    "upright, bottom": (UP, 2, False, Cut.ALONG),
    "upright, side": (UP, 0, True, Cut.SIDES),
    "upright, front": (UP, 1, True, Cut.ACROSS),
    "leaning, side": (UP + 0.4 * RIGHT, 0, True, Cut.SIDES),
    "lying on the side, side of the array": (0.3 * UP + RIGHT, 0, True, Cut.ALONG),
    "lying on the side, top of the array": (0.3 * UP + RIGHT, 2, True, Cut.SIDES),
    "bent forward, front of the array": (0.3 * UP + FRONT, 1, True, Cut.ALONG),
    "bent forward, top of the array": (0.3 * UP + FRONT, 2, True, Cut.ACROSS),
}


def cut_of(field, up, structure):
    line = Centerline.from_polyline(MIDDLE + np.linspace(60, -60, 40)[:, None] * up / np.linalg.norm(up))
    assert line is not None
    index = np.argwhere(structure)
    return field.cut_of(index, line, index.mean(axis=0))


@pytest.mark.parametrize("kind", FACES)
def test_the_direction_of_the_canal_decides_how_a_face_of_the_array_cuts(kind):
    up, axis, last, expected = FACES[kind]
    low = (MIDDLE - 4.5).astype(int)
    low[axis] = SHAPE[axis] - 9 if last else 0
    structure = np.zeros(SHAPE, bool)
    structure[tuple(slice(start, start + 9) for start in low)] = True
    field = AcquiredRegion(Geometry(SHAPE, np.eye(4)))
    assert cut_of(field, up, structure) is expected
    inwards = np.roll(structure, -3 if last else 3, axis=axis)
    assert cut_of(field, up, inwards) is Cut.NONE


#: Direction of the canal and of the padding, and how the padding cuts.
PLANES = {
    "above": (UP, UP, Cut.ALONG),
    "oblique above": (UP, UP + 0.6 * FRONT + 0.3 * RIGHT, Cut.ALONG),
    "side": (UP, RIGHT, Cut.SIDES),
    "oblique side": (UP, RIGHT + 0.3 * UP + 0.3 * FRONT, Cut.SIDES),
    "oblique front": (UP, FRONT + 0.3 * UP - 0.3 * RIGHT, Cut.ACROSS),
    "across a tilted canal": (UP + 0.6 * FRONT, FRONT - 0.6 * UP, Cut.ACROSS),
    "along a tilted canal": (UP + FRONT, UP + FRONT, Cut.ALONG),
}


@pytest.mark.parametrize("kind", PLANES)
def test_padding_cuts_as_its_own_border_runs(kind):
    up, normal, expected = PLANES[kind]
    outside = beyond(normal)
    field = AcquiredRegion(Geometry(SHAPE, np.eye(4)), outside)
    assert cut_of(field, up, BALL & ~outside) is expected
    assert cut_of(field, up, BALL & ~beyond(normal, -4)) is Cut.NONE


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        pytest.param(beyond((1, 0, 0.2), 6) | beyond((-1, 0, -0.2), 6), Cut.SIDES, id="slab"),
        pytest.param(beyond((1, 0, 0)) | beyond((0, 0, 1)), Cut.ALONG, id="corner"),
    ],
)
def test_slabs_cut_both_sides_and_corners_most_harmfully(padding, expected):
    assert cut_of(AcquiredRegion(Geometry(SHAPE, np.eye(4)), padding), UP, BALL & ~padding) is expected
