import json

import numpy as np
import pytest

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.errors import MissingInputError, UsageError
from totalspineseg_bids.segmentation.class_map import ClassMap, Parity, class_map_names


@pytest.mark.parametrize("name", class_map_names())
def test_every_release_has_what_the_labelling_needs(name):
    layout = ClassMap.named(name)
    assert layout.has("disc")
    assert layout.has("cord")
    assert layout.has("canal")
    for level in ("C2-C3", "C7-T1", "T12-L1", "L5-S"):
        assert level in layout.level_names
    assert layout.has_parity == name.endswith("step2")
    assert layout.separates_vertebrae == (not name.endswith("step1"))
    assert (layout.kind_table > 0).sum() == len(layout.meanings)


def test_specific_names_override_the_regions_that_hold_them():
    layout = ClassMap.named("r20240601-step2")
    kinds = {1: Structure.DISC, 14: Structure.SACRUM, 15: Structure.CANAL, 16: Structure.CANAL, 17: Structure.CORD}
    assert {value: layout.meanings[value].kind for value in kinds} == kinds
    assert layout.meanings[2].parity is Parity.ODD
    assert layout.meanings[5].level == "C7-T1"
    assert 14 not in layout.values_of("vertebrae")
    assert layout.values_of("canal") == (15, 16, 17)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, MissingInputError, r"map\.json"),
        ("{", UsageError, "not valid JSON"),
        ("[]", UsageError, r"not a dataset\.json"),
    ],
)
def test_files_that_are_no_class_map(tmp_path, content, error, message):
    if content:
        (tmp_path / "map.json").write_text(content)
    with pytest.raises(error, match=message):
        ClassMap.from_file(tmp_path / "map.json")


def test_unknown_names():
    with pytest.raises(UsageError, match="r20240601-step2"):
        ClassMap.named("r1999-step1")


def test_order_of_the_names_does_not_matter():
    labels = dict(ClassMap.named("r20241115-step1").labels)
    backwards = ClassMap.from_labels(dict(reversed(labels.items())))
    np.testing.assert_array_equal(backwards.kind_table, ClassMap.from_labels(labels).kind_table)


def test_later_releases_share_the_numbers():
    assert ClassMap.named("r20251124-step2").labels == ClassMap.named("r20241115-step2").labels
    assert ClassMap.named("r20240826-step1").labels == ClassMap.named("r20240601-step1").labels


def test_a_plain_dataset_json_is_enough(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0, "disc": 1, "disc_L5_S": 2, "vertebrae": 3, "canal": 4}}))
    layout = ClassMap.resolve(path)
    assert layout.values_of("disc") == (1, 2)
    assert ClassMap.resolve(str(path)).labels == layout.labels
    assert ClassMap.resolve({"disc": 7, "canal": 9}).kind_table[7] == Structure.DISC


@pytest.mark.parametrize(
    "labels", [{}, {"background": 0, "liver": 1}, {"disc": "one"}, {"disc": 300}, {"disc": [1, "x"]}]
)
def test_useless_labels_are_refused_in_one_line(labels):
    with pytest.raises(UsageError) as caught:
        ClassMap.resolve({"labels": labels})
    assert "\n" not in str(caught.value)
