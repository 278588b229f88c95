"""Inputs of the refining network, and how its output is applied."""

import numpy as np
import pytest

from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation import refinement
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.refinement import (
    CHANNELS,
    PRIOR_CHANNELS,
    PRIOR_SCALE,
    REFINED_ROLES,
    TISSUES,
    apply_refinement,
    blend_probabilities,
    parity_outputs,
    refinement_channels,
    standardize_intensities,
)
from totalspineseg_bids.training.synthetic.refinement_training import dataset_json

STEP2 = ClassMap.named("r20240601-step2")
REFINED = ClassMap.from_labels(dataset_json(0)["labels"])
ODD, EVEN = (REFINED.labels[name][0] for name in ("vertebrae_O", "vertebrae_E"))
ROLES = {
    Structure.VERTEBRA: "vertebrae",
    Structure.SACRUM: "vertebrae",
    Structure.DISC: "disc",
    Structure.CANAL: "canal",
    Structure.CORD: "cord",
}
SHAPE = (24, 40, 33)


def probabilities(**masks):
    chance = {role: np.full(SHAPE, 0.01, np.float32) for role in REFINED_ROLES}
    for role, mask in masks.items():
        chance[role][mask] = 0.99
    return chance


def block(*sides):
    mask = np.zeros(SHAPE, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def test_channels_hold_the_image_the_logits_and_the_measures():
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    chance = probabilities(vertebrae=block((4, 20), (10, 20), (4, 28)))
    channels = refinement_channels(image, chance)
    assert channels.shape == (CHANNELS, *SHAPE)
    assert channels.dtype == np.float32
    np.testing.assert_array_equal(channels[0], image)
    for row, role in zip(PRIOR_CHANNELS, REFINED_ROLES, strict=True):
        np.testing.assert_array_equal(channels[row] * PRIOR_SCALE > 0, chance[role] > 0.5)
    assert np.isfinite(channels).all()
    assert np.abs(np.delete(channels, PRIOR_CHANNELS, 0)[1:]).max() <= 4


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_measured_by_its_own_bone_an_image_looks_the_same_at_any_brightness(gain):
    # Bone at one end is as bright as its surroundings at the other end: only local contrast identifies it.
    rng = np.random.default_rng(1)
    bone = block((4, 20), (12, 20), (0, 33))
    slope = np.linspace(1.0, 3.0, SHAPE[2], dtype=np.float32)
    image = np.where(bone, 1.0, 2.0).astype(np.float32) * slope + 0.05 * rng.standard_normal(SHAPE).astype(np.float32)
    chance = probabilities(vertebrae=bone)
    row = 1 + len(TISSUES)
    inside, outside = block((6, 18), (13, 19), (0, 33)), block((6, 18), (21, 24), (0, 33))
    for given in (image, gain * image):
        measured = refinement_channels(standardize_intensities(given), chance)[row]
        for end in (slice(0, 6), slice(27, 33)):
            assert np.median(measured[..., end][inside[..., end]]) < 1.0
            assert np.median(measured[..., end][outside[..., end]]) > 2.0


@pytest.mark.parametrize("length", [8, 9, 10, 15, 16, 17])
def test_channels_do_not_depend_on_the_parts_in_which_they_are_computed(length, monkeypatch):
    image = np.random.default_rng(0).standard_normal((24, 40, length)).astype(np.float32)
    chance = {role: 1 / (1 + np.exp(-4 * np.roll(image, n))) for n, role in enumerate(REFINED_ROLES)}
    whole = refinement_channels(image, chance)
    monkeypatch.setattr(refinement, "_PART_VOXELS", 8)
    np.testing.assert_array_equal(refinement_channels(image, chance), whole)


def test_a_map_that_is_as_before_stays_as_it_was():
    labels = np.zeros(SHAPE, np.uint8)
    values = {kind: REFINED.labels[role][0] for kind, role in ROLES.items()}
    for n, value in enumerate(STEP2.meanings):
        labels[n % 24, (5 * n) % 40, n % 33] = value
    refined = np.zeros_like(labels)
    for kind, value in values.items():
        refined[STEP2.kinds(labels) == kind] = value
    np.testing.assert_array_equal(apply_refinement(labels, STEP2, refined, REFINED), labels)
    # With parities as well: landmark vertebrae count as those around them do.
    for level, value in (("C2", EVEN), ("T1", EVEN), ("T12", ODD), ("O", ODD), ("E", EVEN)):
        refined[labels == STEP2.labels[f"vertebrae_{level}"][0]] = value
    np.testing.assert_array_equal(apply_refinement(labels, STEP2, refined, REFINED), labels)


def maps(*blocks):
    """Return the maps of step 2 and of the refining network: for each block of voxels, its class in either."""
    labels, refined = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for x, y, z, found, corrected in blocks:
        where = (slice(*x), slice(*y), slice(*z))
        labels[where] = STEP2.labels[found][0] if found else 0
        refined[where] = REFINED.labels[corrected][0] if corrected else 0
    return labels, refined


def test_a_process_that_step_2_gave_to_its_neighbour_comes_back():
    odd, t1 = STEP2.labels["vertebrae_O"][0], STEP2.labels["vertebrae_T1"][0]
    labels, refined = maps(
        ((4, 20), (20, 34), (2, 12), "vertebrae_T1", "vertebrae_E"),
        ((4, 20), (20, 34), (16, 26), "vertebrae_O", "vertebrae_O"),
        # The process of T1, thought to be of the vertebra below it.
        ((10, 14), (4, 20), (6, 10), "vertebrae_O", "vertebrae_E"),
    )
    result = apply_refinement(labels, STEP2, refined, REFINED)
    assert (result[10:14, 4:20, 6:10] == t1).all()
    assert (result[4:20, 20:34, 16:26] == odd).all()


def test_bone_of_a_parity_that_is_nowhere_else_gets_its_plain_class_and_the_sacrum_keeps_its_own():
    body = ((4, 20), (10, 20), (4, 12))
    labels, refined = maps((*body, "vertebrae_O", "vertebrae_O"))
    refined[4:20, 10:14, 4:12] = EVEN
    result = apply_refinement(labels, STEP2, refined, REFINED)
    assert (result[4:20, 10:14, 4:12] == STEP2.labels["vertebrae_E"][0]).all()
    labels, refined = maps((*body, "sacrum", "vertebrae_O"))
    np.testing.assert_array_equal(apply_refinement(labels, STEP2, refined, REFINED), labels)


@pytest.mark.parametrize("layout", ["r20240601-step2", "r20241115-step2"])
def test_landmark_vertebrae_are_of_the_parity_of_their_place(layout):
    found = parity_outputs(ClassMap.named(layout))
    landmarks = {"vertebrae_O": {"vertebrae_T12"}, "vertebrae_E": {"vertebrae_C2", "vertebrae_T1"}}
    for name, roles in found.items():
        assert set(roles) == {name, *(landmarks[name] & set(ClassMap.named(layout).labels))}


def test_step_1_has_a_say_in_tissues_and_none_in_parities():
    chance = {role: np.full(SHAPE, 0.3, np.float16) for role in REFINED_ROLES}
    sure = {role: np.full(SHAPE, 0.999, np.float16) for role in TISSUES}
    found = blend_probabilities(chance, sure)
    assert set(found) == set(REFINED_ROLES)
    for role, values in found.items():
        assert values.dtype == np.float32
        assert (values > 0.5).all() == (role in TISSUES)
    same = blend_probabilities(chance, {role: chance[role] for role in TISSUES})
    np.testing.assert_allclose(same["disc"], 0.3, atol=1e-3)


def test_new_bone_gets_the_class_of_the_nearest_and_lost_bone_none():
    odd, even = STEP2.labels["vertebrae_O"][0], STEP2.labels["vertebrae_E"][0]
    labels, refined = maps(
        ((4, 20), (10, 20), (4, 12), "vertebrae_O", ""), ((4, 20), (10, 20), (16, 24), "vertebrae_E", "")
    )
    refined[4:20, 8:18, 4:24] = REFINED.labels["vertebrae"][0]
    result = apply_refinement(labels, STEP2, refined, REFINED)
    assert (result[4:20, 8:18, 4:12] == odd).all()
    assert (result[4:20, 8:18, 17:24] == even).all()
    assert set(np.unique(result[4:20, 8:18, 12:16])) == {odd, even}
    assert not result[:, 18:].any()


def test_bone_far_from_all_bone_and_kinds_that_step_2_did_not_find_are_not_taken_over():
    labels, refined = maps(
        ((4, 8), (10, 14), (4, 8), "vertebrae_O", "vertebrae"),
        ((18, 22), (30, 38), (20, 30), "", "vertebrae"),
        ((10, 14), (10, 14), (4, 8), "", "disc"),
    )
    np.testing.assert_array_equal(apply_refinement(labels, STEP2, refined, REFINED), labels)
