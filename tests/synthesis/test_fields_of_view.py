import numpy as np
import pytest

from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.fields_of_view import (
    FIELDS,
    FIELDS_OF_VIEW,
    check_names,
    draw_field,
    level_centers,
    possible,
)


@pytest.mark.parametrize("name", FIELDS_OF_VIEW)
def test_field_shows_its_core_and_fits(spine, name):
    centers = level_centers(spine)
    for seed in range(4):
        field = draw_field(spine, name, np.random.default_rng(seed), slab=(50.0, 90.0))
        low, high = field.center - field.size / 2, field.center + field.size / 2
        for level in FIELDS[name].core:
            assert np.all((centers[level] > low) & (centers[level] < high)), level
        assert 50 <= field.size[0] <= 120


def test_short_fields_leave_levels_out(spine):
    centers = level_centers(spine)
    for name, absent in (("cervical", "T6"), ("lumbar", "T8"), ("cervicothoracic", "L1"), ("thoracolumbar", "T2")):
        field = draw_field(spine, name, np.random.default_rng(0), slab=(50.0, 60.0))
        assert abs(centers[absent][2] - field.center[2]) > field.size[2] / 2


def test_level_centers_are_in_millimetres(spine):
    part = Volume(
        spine.data[:, :, 100:], spine.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 100], [0, 0, 0, 1]])
    )
    assert np.allclose(level_centers(part)["T6"], level_centers(spine)["T6"], atol=0.6)


def test_only_what_a_map_shows_is_possible(spine):
    assert possible(spine, FIELDS_OF_VIEW) == FIELDS_OF_VIEW
    neck = Volume(spine.data[:, :, 560:], spine.affine)
    assert possible(neck, FIELDS_OF_VIEW) == ("cervical",)


@pytest.mark.parametrize("names", [[], ["lumbar", "knee"]])
def test_unknown_names(names):
    with pytest.raises(UsageError, match="known are whole"):
        check_names("field of view", names, FIELDS_OF_VIEW)
