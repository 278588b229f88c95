import numpy as np
import pytest
from scipy.spatial import cKDTree

from totalspineseg_bids.imaging.centerline import Centerline


def _tube(curve, radius=8.0, step=2.0):
    """Grid points within ``radius`` of a densely sampled curve."""
    low, high = curve.min(axis=0) - radius, curve.max(axis=0) + radius
    points = low + step * np.argwhere(np.ones(np.ceil((high - low) / step).astype(int)))
    return points[cKDTree(curve).query(points)[0] < radius]


def _arc(length: float, turn_degrees: float, plane: str, tilt: float = 0.0) -> np.ndarray:
    """An arc that starts downwards and turns by an angle."""
    angle = np.deg2rad(turn_degrees)
    along = np.linspace(0, 1, 400)
    heading = np.deg2rad(tilt) + angle * (along - 0.5)
    down = np.cumsum(np.cos(heading)) * length / 400
    aside = np.cumsum(np.sin(heading)) * length / 400
    zero = np.zeros_like(down)
    return np.stack([aside, zero, -down] if plane == "coronal" else [zero, aside, -down], axis=1)


@pytest.mark.parametrize(
    ("turn", "plane", "tilt"),
    [(0, "sagittal", 0), (90, "sagittal", 0), (140, "sagittal", 20), (80, "coronal", 0), (30, "coronal", 50)],
)
def test_curve_follows_bends_and_tilts(turn, plane, tilt):
    curve = _arc(400, turn, plane, tilt)
    line = Centerline.from_canal(_tube(curve), 8.0)
    assert line.length == pytest.approx(400, rel=0.08)
    true_s = np.linspace(0, 400, 400)
    found = line.project(curve[20:-20:10]).s
    assert (np.diff(found) > 0).all()
    np.testing.assert_allclose(found - found[0], true_s[20:-20:10] - true_s[20], atol=8)
    assert np.abs(line.project(curve[20:-20]).anterior).max() < 3


def test_gaps_and_blobs_elsewhere_do_not_matter():
    curve = _arc(400, 60, "sagittal")
    tube = _tube(curve)
    height = tube[:, 2]
    gap = (height < -150) & (height > -210)
    blob = np.array([120.0, 90.0, -200.0]) + np.random.default_rng(0).uniform(-4, 4, (30, 3))
    whole, holed = (Centerline.from_canal(points, 8.0) for points in (tube, np.vstack([tube[~gap], blob])))
    assert holed.length == pytest.approx(whole.length, rel=0.03)
    middle = curve[200:201]
    assert np.hypot(holed.project(middle).anterior, holed.project(middle).lateral)[0] < 10


@pytest.mark.parametrize("at", [100, 200, 310])
@pytest.mark.parametrize(("sideways", "forward"), [(-35, 30), (25, 30), (0, 45)])
def test_a_vessel_beside_the_canal_is_no_part_of_it(at, sideways, forward):
    curve = _arc(400, 60, "sagittal")
    tube = _tube(curve)
    vessel = _tube(curve[at - 25 : at + 25] + np.array([sideways, forward, 0]), radius=5)
    alone, both = (Centerline.from_canal(points, 8.0) for points in (tube, np.vstack([tube, vessel])))
    np.testing.assert_array_equal(both.points, alone.points)


@pytest.mark.parametrize(("turn", "plane"), [(140, "sagittal"), (80, "coronal")])
@pytest.mark.parametrize(("first", "last"), [(160, 250), (40, 130), (60, 90)])
def test_parts_of_a_torn_canal_are_joined(turn, plane, first, last):
    curve = _arc(400, turn, plane)
    line = Centerline.from_canal(np.vstack([_tube(curve[:first]), _tube(curve[last:])]), 8.0)
    assert line.length == pytest.approx(400, rel=0.08)


def test_front_is_front():
    line = Centerline.from_canal(_tube(_arc(200, 40, "sagittal")), 8.0)
    point = line.at(100.0)
    seen = line.project(point + np.array([[0, 20, 0], [15, 0, 0], [0, -10, 0]]))
    assert seen.anterior[0] > 15
    assert abs(seen.lateral[1]) > 12
    assert seen.anterior[2] < -7


def test_a_short_canal_is_ordered_by_height():
    tube = _tube(_arc(24, 0, "sagittal"), radius=9)
    line = Centerline.from_canal(tube, 8.0)
    assert line.project(np.array([[0.0, 20.0, -2.0]])).s[0] < line.project(np.array([[0.0, 20.0, -20.0]])).s[0]


def test_without_canal_the_discs_make_the_curve():
    centers = _arc(300, 70, "sagittal")[::25] + np.array([0, 18, 0])
    shuffled = centers[np.random.default_rng(1).permutation(len(centers))]
    line = Centerline.from_discs(shuffled)
    assert (np.diff(line.project(centers).s) > 5).all()
    assert Centerline.from_discs(np.zeros((0, 3))) is None
    single = Centerline.from_discs(centers[:1])
    assert single.project(centers[:1]).anterior[0] > 10


def test_discs_beyond_the_canal_bend_the_curve():
    curve = _arc(400, 100, "sagittal")
    centers = curve[::30] + np.array([0, 18, 0])
    half = Centerline.from_canal(_tube(curve[:200]), 8.0)
    longer = half.extend_along_discs(centers)
    assert longer.length > half.length + 120
    assert (np.diff(longer.project(centers).s) > 10).all()


@pytest.mark.parametrize("points", [0, 3])
def test_too_little_canal_is_none(points):
    assert Centerline.from_canal(np.zeros((points, 3)), 8.0) is None


def test_many_points_are_projected_like_few():
    curve = _arc(400, 100, "sagittal", 15)
    line = Centerline.from_canal(_tube(curve), 8.0)
    rng = np.random.default_rng(0)
    points = curve[rng.integers(0, 400, 5000)] + rng.uniform(-30, 30, (5000, 3))
    many = line.project(points)
    few = [line.project(part) for part in np.array_split(points, 5)]
    for one, other in zip(many, zip(*few, strict=True), strict=True):
        assert np.mean(np.abs(one - np.concatenate(other)) < 1.0) > 0.99
