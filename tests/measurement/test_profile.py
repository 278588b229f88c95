import numpy as np
import pytest

from totalspineseg_bids.anatomy import CORD_ID, vertebra

from .phantom import Phantom, components_of, measure, rotation

PHANTOMS = {
    "straight": Phantom(),
    "lordotic": Phantom(bend_forward=-1 / 200),
    "tilted": Phantom(("L2", "L3", "L4"), rotation=rotation("x", 20)),
}


@pytest.mark.parametrize("name", PHANTOMS)
def test_areas_along_the_column_are_those_of_the_phantom(name):
    phantom = PHANTOMS[name]
    labels, affine, components, line = phantom.rasterise((1.0, 1.0, 1.0))
    points = measure(labels, affine, components, line).profile
    assert np.diff([point.distance_mm for point in points]) == pytest.approx(1.0)
    inner = points[6:-6]
    assert len(inner) > 60
    for place in inner:
        assert place.canal_area_mm2 == pytest.approx(np.pi * np.prod(phantom.canal), rel=0.06)
        assert place.cord_area_mm2 == pytest.approx(np.pi * np.prod(phantom.cord), rel=0.06)


def test_levels_go_from_disc_to_disc_and_as_far_at_the_ends():
    phantom = PHANTOMS["straight"]
    labels, affine, components, line = phantom.rasterise((1.0, 1.0, 1.0))
    points = measure(labels, affine, components, line).profile
    for level in ("L2", "L3", "L4"):
        own = [point for point in points if point.level == level]
        assert len(own) == pytest.approx(phantom.pitch, abs=1)
        assert [point.position for point in own] == pytest.approx(np.linspace(0, 1, len(own)), abs=0.04)
    ends = [[point for point in points if point.level == level] for level in ("L1", "L5")]
    assert all(10 < len(own) <= phantom.pitch + 4 for own in ends)
    # A slab from side to side keeps the levels, an edge that cuts the last vertebra from below does not.
    cut = components_of(labels, affine, partial=("L1", "L5"))
    assert {p.level for p in measure(labels, affine, cut, line).profile} >= {"L1", "L5"}
    lowest = int(np.argwhere(labels == vertebra("L5").id)[:, 2].min())
    lower = affine @ np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, lowest + 3], [0, 0, 0, 1]])
    rows = measure(labels[:, :, lowest + 3 :], lower, cut, line).profile
    assert "L5" not in {p.level for p in rows}


def test_a_narrowing_shows_where_it_is_and_no_cord_gives_no_area():
    phantom = PHANTOMS["straight"]
    labels, affine, components, line = phantom.rasterise((1.0, 1.0, 1.0))
    middle = np.argwhere(labels == CORD_ID).mean(axis=0)
    planes = slice(int(middle[2]) - 8, int(middle[2]) + 9)
    narrowed = labels.copy()
    canal = np.isin(narrowed[:, :, planes], (200, 201))
    canal[int(middle[0]) - 5 : int(middle[0]) + 6] = False
    narrowed[:, :, planes][canal] = 0
    points = measure(narrowed, affine, components, line).profile
    areas = [point.canal_area_mm2 for point in points]
    assert min(areas[6:-6]) < 0.8 * np.pi * np.prod(phantom.canal)
    assert points[int(np.argmin(areas[6:-6])) + 6].level == "L3"
    without = np.where(labels == CORD_ID, np.uint8(201), labels)
    assert all(p.cord_area_mm2 is None for p in measure(without, affine, components, line).profile)


def test_without_canal_there_is_no_profile():
    labels, affine, components, line = Phantom(("L3", "L4")).rasterise((2.0, 2.0, 2.0))
    labels = np.where(np.isin(labels, (200, 201)), np.uint8(0), labels)
    assert measure(labels, affine, components, np.zeros((0, 3))).profile == []
    assert measure(labels, affine, components, line).profile == []
