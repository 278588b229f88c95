from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.training import class_maps
from totalspineseg_bids.training.class_maps import dataset_json
from totalspineseg_bids.training.semantic_targets import (
    odd_disc_mask,
    odd_discs,
    semantic_map,
    semantic_table,
    spine_variant,
)


def column(variant: SpineVariant) -> np.ndarray:
    """Vertebrae and discs of a spine in craniocaudal order: C1, C2, C2-C3, C3, ..."""
    vertebrae, discs = variant.vertebrae(), variant.discs()
    ids = [anatomy.vertebra(vertebrae[0]).id, anatomy.vertebra(vertebrae[1]).id]
    for disc, below in zip(discs, vertebrae[2:], strict=True):
        ids += [anatomy.disc(disc).id, anatomy.vertebra(below).id]
    return np.array(ids, np.uint8)


@pytest.mark.parametrize(("dataset", "name"), [(101, "step1"), (102, "step2"), (103, "full")])
def test_layout_is_the_public_one(dataset: class_maps.DatasetId, name: str, data_dir: Path) -> None:
    public = json.loads((data_dir / f"layouts/r20240601-{name}.json").read_text())
    ours = dataset_json(dataset, 3)
    assert ours["labels"] == public["labels"]
    assert ours["channel_names"] == public["channel_names"]
    assert sorted(ours["regions_class_order"]) == public["regions_class_order"]
    assert len(ours["regions_class_order"]) == len(ours["labels"]) - 1


@pytest.mark.parametrize("dataset", class_maps.DATASETS)
def test_decoding_regions_gives_back_the_semantic_map(dataset: class_maps.DatasetId) -> None:
    """nnU-Net writes regions in order; perfect region masks must decode to the map they came from."""
    values = np.unique(semantic_table(dataset))
    decoded = np.zeros_like(values)
    spec = dataset_json(dataset, 1)
    for (name, owned), value in zip(list(spec["labels"].items())[1:], spec["regions_class_order"], strict=True):
        owned_values = [owned] if isinstance(owned, int) else owned
        assert value in owned_values, name
        decoded[np.isin(values, owned_values)] = value
    np.testing.assert_array_equal(decoded, values)


def test_step1_values() -> None:
    table = semantic_table(101)
    assert [table[anatomy.disc(d).id] for d in anatomy.LANDMARK_DISCS] == [2, 3, 4, 5]
    assert table[anatomy.disc("C3-C4").id] == 1
    assert {int(table[anatomy.vertebra(v).id]) for v in anatomy.VERTEBRA_LEVELS} == {6}
    assert table[anatomy.CANAL_ID] == 8
    assert table[anatomy.CORD_ID] == 9
    assert not table[:10].any()


def test_step2_values_of_the_public_convention() -> None:
    table = semantic_table(102)

    def names(levels: str) -> list[int]:
        return [int(table[anatomy.vertebra(v).id]) for v in levels.split()]

    assert names("C1 C3 C5 C7 T2 T4 L2 L4") == [9] * 8
    assert names("C4 C6 T3 T5 L1 L3 L5") == [10] * 7
    assert names("C2 T1 T12 S") == [11, 12, 13, 14]
    assert [int(table[anatomy.disc(d).id]) for d in ("C4-C5", "C3-C4", "C2-C3", "C7-T1", "T12-L1", "L5-S")] == [
        2,
        3,
        4,
        5,
        6,
        7,
    ]


def test_swapping_exchanges_parities_and_keeps_landmarks() -> None:
    table, swapped = semantic_table(102), semantic_table(102, swap_parity=True)
    exchange = np.arange(18)
    exchange[[2, 3, 9, 10]] = [3, 2, 10, 9]
    np.testing.assert_array_equal(swapped, exchange[table])
    for dataset in (101, 103):
        np.testing.assert_array_equal(semantic_table(dataset), semantic_table(dataset, swap_parity=True))


@pytest.mark.parametrize("thoracic", [11, 12, 13])
@pytest.mark.parametrize("lumbar", [4, 5, 6])
@pytest.mark.parametrize("swap", [False, True])
def test_parities_alternate_in_every_variant(thoracic: int, lumbar: int, swap: bool) -> None:
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


def test_regular_odd_discs_are_those_of_anatomy() -> None:
    assert odd_discs() == anatomy.ODD_DISCS
    assert odd_discs(swap_parity=True) == anatomy.REGULAR_DISCS[1::2]


def test_partial_view_is_taken_for_regular() -> None:
    lumbar = np.array([22, 21, 20, 206, 205], np.uint8)
    assert spine_variant(lumbar) == SpineVariant()
    assert spine_variant(np.zeros(3, np.uint8)) == SpineVariant()


def test_unnamed_and_supernumerary() -> None:
    assert semantic_table(102)[101] == 8
    assert semantic_table(102)[151] == 1
    full = semantic_table(103)
    assert [int(full[i]) for i in (230, 231, 232, 233, 101, 151)] == [37, 50, 9, 22, 28, 1]
    regular = [label for label in anatomy.LABELS if label.level and label.id < 230]
    assert len({int(full[label.id]) for label in regular}) == len(regular)


def test_table_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        semantic_table(101)[0] = 1
