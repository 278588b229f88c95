import numpy as np
import pytest

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.training import class_maps
from totalspineseg_bids.training.class_maps import dataset_json
from totalspineseg_bids.training.semantic_targets import odd_disc_mask, semantic_map, semantic_table, spine_variant


def column(variant: SpineVariant) -> np.ndarray:
    """Vertebrae and discs of a spine in craniocaudal order: C1, C2, C2-C3, C3, ..."""
    vertebrae, discs = variant.vertebrae(), variant.discs()
    ids = [anatomy.vertebra(vertebrae[0]).id, anatomy.vertebra(vertebrae[1]).id]
    for disc, below in zip(discs, vertebrae[2:], strict=True):
        ids += [anatomy.disc(disc).id, anatomy.vertebra(below).id]
    return np.array(ids, np.uint8)


@pytest.mark.parametrize("dataset", class_maps.DATASETS)
def test_decoding_regions_gives_back_the_semantic_map(dataset):
    """nnU-Net writes regions in order; perfect region masks must decode to the map they came from."""
    values = np.unique(semantic_table(dataset))
    decoded = np.zeros_like(values)
    spec = dataset_json(dataset, 1)
    for (name, owned), value in zip(list(spec["labels"].items())[1:], spec["regions_class_order"], strict=True):
        owned_values = [owned] if isinstance(owned, int) else owned
        assert value in owned_values, name
        decoded[np.isin(values, owned_values)] = value
    np.testing.assert_array_equal(decoded, values)


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (101, {1: "C3-C4", 2: "C2-C3", 3: "C7-T1", 4: "T12-L1", 5: "L5-S", 6: "C1 T3 L5 S"}),
        (102, {2: "C4-C5", 3: "C3-C4", 4: "C2-C3", 5: "C7-T1", 6: "T12-L1", 7: "L5-S"}),
        (102, {9: "C1 C3 C5 C7 T2 T4 L2 L4", 10: "C4 C6 T3 T5 L1 L3 L5", 11: "C2", 12: "T1", 13: "T12", 14: "S"}),
        (103, {9: "T12-T13", 22: "L5-L6", 37: "T13", 50: "L6"}),
    ],
)
def test_values_of_the_public_convention(dataset, expected):
    table = semantic_table(dataset)
    for value, levels in expected.items():
        labels = [anatomy.disc(level) if "-" in level else anatomy.vertebra(level) for level in levels.split()]
        assert [int(table[label.id]) for label in labels] == [value] * len(labels)
    assert not table[:10].any()


@pytest.mark.parametrize("thoracic", [11, 12, 13])
@pytest.mark.parametrize("lumbar", [4, 5, 6])
@pytest.mark.parametrize("swap", [False, True])
def test_parities_alternate_in_every_variant(thoracic, lumbar, swap):
    variant = SpineVariant(thoracic, lumbar)
    ids = column(variant)
    assert spine_variant(ids) == variant
    mask = odd_disc_mask(ids, swap)
    discs = [i for i, label in enumerate(ids) if anatomy.BY_ID[int(label)].structure is anatomy.Structure.DISC]
    assert [int(mask[i]) for i in discs] == [(k + swap) % 2 ^ 1 for k in range(len(discs))]
    assert mask.sum() == sum(mask[i] for i in discs)
    values = semantic_map(ids, 102, swap_parity=swap)
    for i in discs:
        if values[i] in (2, 3):
            assert (values[i] == 2) == bool(mask[i])
        if values[i + 1] in (9, 10):  # the vertebra below has the parity of its disc
            assert (values[i + 1] == 9) == bool(mask[i])


def test_partial_view_is_taken_for_regular():
    lumbar = np.array([22, 21, 20, 206, 205], np.uint8)
    assert spine_variant(lumbar) == SpineVariant()
    assert spine_variant(np.zeros(3, np.uint8)) == SpineVariant()


def test_components_without_a_level_are_of_the_union_and_each_level_has_its_class():
    assert [int(semantic_table(dataset)[number]) for dataset in (102, 103) for number in (101, 151)] == [8, 1, 28, 1]
    regular = [label for label in anatomy.LABELS if label.level and label.id < 230]
    assert len({int(semantic_table(103)[label.id]) for label in regular}) == len(regular)
