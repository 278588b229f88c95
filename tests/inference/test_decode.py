import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from totalspineseg_bids.inference.decode import Heads, decode

from .samples import SOFTMAX, STEP1, STEP2

DATASETS = {"step1": STEP1, "step2": STEP2, "softmax": SOFTMAX}


def heads_of(dataset: dict) -> Heads:
    labels = {name: tuple(v) if isinstance(v, list) else (v,) for name, v in dataset["labels"].items()}
    return Heads.from_dataset(labels, dataset.get("regions_class_order"))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(sorted(DATASETS)), scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_equals_nnunets_label_manager(seed, name, scale):
    dataset = DATASETS[name]
    heads = heads_of(dataset)
    manager = LabelManager(dataset["labels"], dataset.get("regions_class_order"))
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (len(heads.names), 3, 4, 5)))
    expected = manager.convert_logits_to_segmentation(logits.float())
    probabilities = manager.apply_inference_nonlin(logits.clone())
    keep = heads.names[::2]
    found = decode(lambda index: logits[index].clone(), heads, keep)
    np.testing.assert_array_equal(found.labels.numpy(), expected.numpy())
    assert set(found.probabilities) == set(keep)
    for role, values in found.probabilities.items():
        np.testing.assert_allclose(values, probabilities[heads.names.index(role)], atol=1e-5)


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_several_outputs_make_one_probability(name):
    heads = heads_of(DATASETS[name])
    logits = torch.from_numpy(np.random.default_rng(0).normal(0, 2, (len(heads.names), 3, 4, 5))).float()
    single = decode(lambda index: logits[index].clone(), heads, heads.names).probabilities
    joined = decode(lambda index: logits[index].clone(), heads, {"some": heads.names[1:4]}).probabilities
    parts = torch.stack([single[role] for role in heads.names[1:4]])
    assert set(joined) == {"some"}
    torch.testing.assert_close(joined["some"], parts.amax(0) if heads.regions else parts.sum(0))


def test_a_region_that_yields_is_overwritten_with_its_parts():
    labels = {"background": (0,), "disc": (1, 2), "disc_O": (2,), "vertebrae": (3, 4), "vertebrae_O": (4,)}
    heads = Heads.from_dataset(labels, [1, 2, 3, 4])
    assert heads.families == (0, 0, 2, 2)
    #          both     disc only  bone only  parts of both
    logits = torch.tensor([[1.0, 1, -1, 1], [-1, -1, -1, 1], [2, -1, 1, 2], [-1, -1, 1, 2]])[:, None, None]
    assert decode(logits.__getitem__, heads).labels.flatten().tolist() == [3, 1, 4, 4]
    assert decode(logits.__getitem__, heads, low_priority_roles=["vertebrae"]).labels.flatten().tolist() == [1, 1, 4, 2]


def test_the_most_probable_part_gets_what_is_divided_even_below_one_half():
    labels = {"background": (0,), "disc": (1,), "vertebrae": (2, 3, 4), "vertebrae_O": (3,), "vertebrae_E": (4,)}
    heads = Heads.from_dataset(labels, [1, 2, 3, 4])
    #                        no part  odd more  a disc  bone by its part  both above one half  neither
    logits = torch.tensor(
        [
            [-1.0, -1, 1, -1, -1, -1],
            [-1.0, 1, 1, -1, 1, 1],
            [-1.0, -1, -1, 1, 3, -4],
            [-1.0, -2, -2, -1, 2, -5],
        ]
    )[:, None, None]
    plain = decode(logits.__getitem__, heads, low_priority_roles=["vertebrae"]).labels.flatten().tolist()
    exclusive_parts = (
        decode(logits.__getitem__, heads, low_priority_roles=["vertebrae"], exclusive_parts=True)
        .labels.flatten()
        .tolist()
    )
    assert plain == [0, 2, 1, 3, 4, 2]
    assert exclusive_parts == [0, 3, 1, 3, 3, 2]


def test_ignore_label_has_no_output():
    heads = Heads.from_dataset({"background": (0,), "a": (1, 2), "b": (2,), "ignore": (3,)}, [1, 2])
    assert heads.names == ("a", "b")
    assert heads.values == (1, 2)


@pytest.mark.parametrize(
    ("labels", "order", "word"),
    [
        ({"background": (0,), "a": (1, 2), "b": (2,)}, [1], "regions_class_order"),
        ({"background": (0,), "a": (1, 2), "b": (2,)}, None, "regions_class_order"),
        ({"background": (0,), "a": (2,)}, None, "gaps"),
        ({"background": (0,), "a": (1, 2), "b": (2,)}, [1, 300], "8 bits"),
    ],
)
def test_labels_that_do_not_fit(labels, order, word):
    with pytest.raises(ValueError, match=word):
        Heads.from_dataset(labels, order)


def test_the_margin_is_the_distance_to_the_nearest_other_decision():
    labels = {"background": (0,), "disc": (1, 2), "disc_O": (2,), "vertebrae": (3,)}
    heads = Heads.from_dataset(labels, [1, 2, 3])
    logits = torch.tensor([[1.0, -2, 3], [0.1, 0.1, 0.1], [-5, -0.5, 2]])[:, None, None]
    found = decode(logits.__getitem__, heads, borders=["disc", "vertebrae"])
    assert found.margin.dtype == torch.float16
    # What part of a disc it is has no say.
    assert found.margin.flatten().tolist() == [1.0, 0.5, 2.0]
    assert decode(logits.__getitem__, heads).margin is None
    exclusive = Heads.from_dataset({"background": (0,), "disc": (1,), "vertebrae": (2,)}, None)
    assert decode(logits.__getitem__, exclusive, borders=["disc"]).margin is None
