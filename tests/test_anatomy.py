import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant, Structure

SEED_LIST = {
    **{name: 18 + i for i, name in enumerate(f"vertebrae_L{n}" for n in range(5, 0, -1))},
    **{name: 23 + i for i, name in enumerate(f"vertebrae_T{n}" for n in range(12, 0, -1))},
    **{name: 35 + i for i, name in enumerate(f"vertebrae_C{n}" for n in range(7, 0, -1))},
    "sacrum": 92, "spinal_cord": 200, "spinal_canal": 201, "disc_L5_S": 202, "disc_L4_L5": 203, "disc_L1_L2": 206,
    "disc_T12_L1": 207, "disc_T11_T12": 208, "disc_T1_T2": 218, "disc_C7_T1": 219, "disc_C2_C3": 224,
}  # fmt: skip
PUBLIC_LIST = {
    "spinal_cord": 1, "spinal_canal": 2, "vertebrae_C1": 11, "vertebrae_C7": 17, "vertebrae_T1": 21,
    "vertebrae_T12": 32, "vertebrae_L1": 41, "vertebrae_L6": 46, "sacrum": 50, "disc_C2_C3": 63, "disc_C6_C7": 67,
    "disc_C7_T1": 71, "disc_T1_T2": 72, "disc_T11_T12": 82, "disc_T12_L1": 91, "disc_L1_L2": 92, "disc_L4_L5": 95,
    "disc_L5_L6": 96, "disc_L5_S": 100,
}  # fmt: skip


BY_NAME = {label.name: label for label in anatomy.LABELS}


@pytest.mark.parametrize(("name", "value"), SEED_LIST.items())
def test_ids_are_those_of_the_original_readme(name, value):
    assert BY_NAME[name].id == value


@pytest.mark.parametrize(("name", "value"), PUBLIC_LIST.items())
def test_public_ids_are_those_of_the_later_releases(name, value):
    assert BY_NAME[name].public_id == value


def test_ids_names_and_colours_tell_neighbours_apart():
    for key in ("id", "name", "public_id"):
        values = [getattr(label, key) for label in anatomy.LABELS]
        assert len(values) == len(set(values)), key
    named = [label for label in anatomy.LABELS if label.level]
    assert len({label.color for label in named}) == len(named)


@given(st.lists(st.sampled_from([0, *anatomy.BY_ID]), min_size=1), st.sampled_from(anatomy.LABEL_SCHEMES))
def test_schemes_go_there_and_back(ids, scheme):
    labels = np.array(ids, np.uint8)
    np.testing.assert_array_equal(anatomy.from_scheme(anatomy.to_scheme(labels, scheme), scheme), labels)


def test_unknown_ids_of_a_file_become_background():
    np.testing.assert_array_equal(anatomy.from_scheme(np.array([-3, 7, 500, 41]), "seed"), [0, 0, 0, 41])


@pytest.mark.parametrize("thoracic", [11, 12, 13])
@pytest.mark.parametrize("lumbar", [4, 5, 6])
def test_variants_keep_the_landmark_discs(thoracic, lumbar):
    variant = SpineVariant(thoracic, lumbar)
    discs, vertebrae = variant.discs(), variant.vertebrae()
    assert len(discs) == len(vertebrae) - 2
    assert set(anatomy.LANDMARK_DISCS) <= set(discs)
    assert discs.index("T12-L1") == vertebrae.index("L1") - 2
    assert discs[-1] == "L5-S"


def test_a_variant_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="thoracic"):
        SpineVariant(14, 5)


def test_odd_discs_are_every_second_one_from_c2_c3():
    assert [anatomy.disc(level).id for level in anatomy.REGULAR_DISCS[::2]] == list(range(224, 201, -2))


def test_level_points_are_numbered_as_in_the_spinal_cord_toolbox():
    assert [anatomy.level_point_value(d) for d in ("C1-C2", "C2-C3", "C7-T1", "T12-L1", "L5-S")] == [2, 3, 8, 20, 25]
    assert anatomy.level_point_value("T12-T13") is None


def test_unnamed_labels():
    assert anatomy.unnamed(Structure.VERTEBRA, 1).id == 101
    assert anatomy.unnamed(Structure.DISC, 30).id == 180
    assert anatomy.is_unnamed(151)
    assert not anatomy.is_unnamed(200)
    with pytest.raises(ValueError, match="unnamed"):
        anatomy.unnamed(Structure.CORD, 1)
