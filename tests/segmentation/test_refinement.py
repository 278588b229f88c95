"""What the refining network sees, and how its answer is taken over."""

from __future__ import annotations

import numpy as np
import pytest

from totalspineseg_bids.segmentation.layout import Kind, Layout
from totalspineseg_bids.segmentation.refinement import (
    CHANNELS,
    PRIOR_CHANNELS,
    PRIOR_SCALE,
    REFINED_ROLES,
    refinement_channels,
    standardised,
    taken_over,
)

STEP2 = Layout.named("r20240601-step2")
REFINED = Layout.from_labels({"vertebrae": 1, "disc": 2, "canal": [3, 4], "cord": 4})
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
    assert np.abs(channels[5:]).max() <= 4


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_measured_by_its_own_bone_an_image_looks_the_same_at_any_brightness(gain):
    # Bone is as bright at one end as what is around it is at the other: only its neighbourhood tells.
    rng = np.random.default_rng(1)
    bone = block((4, 20), (12, 20), (0, 33))
    slope = np.linspace(1.0, 3.0, SHAPE[2], dtype=np.float32)
    image = np.where(bone, 1.0, 2.0).astype(np.float32) * slope + 0.05 * rng.standard_normal(SHAPE).astype(np.float32)
    chance = probabilities(vertebrae=bone)
    row = 1 + len(REFINED_ROLES)
    inside, outside = block((6, 18), (13, 19), (0, 33)), block((6, 18), (21, 24), (0, 33))
    for given in (image, gain * image):
        measured = refinement_channels(standardised(given), chance)[row]
        for end in (slice(0, 6), slice(27, 33)):
            assert np.median(measured[..., end][inside[..., end]]) < 1.0
            assert np.median(measured[..., end][outside[..., end]]) > 2.0


def test_a_map_that_is_as_before_stays_as_it_was():
    labels = np.zeros(SHAPE, np.uint8)
    values = {Kind.VERTEBRA: 1, Kind.SACRUM: 1, Kind.DISC: 2, Kind.CANAL: 3, Kind.CORD: 4}
    for n, value in enumerate(STEP2.meanings):
        labels[n % 24, (5 * n) % 40, n % 33] = value
    refined = np.zeros_like(labels)
    for kind, value in values.items():
        refined[STEP2.kinds(labels) == kind] = value
    np.testing.assert_array_equal(taken_over(labels, STEP2, refined, REFINED), labels)


def test_new_bone_gets_the_class_of_the_nearest_and_lost_bone_none():
    odd, even = STEP2.labels["vertebrae_O"][0], STEP2.labels["vertebrae_E"][0]
    labels, refined = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    labels[4:20, 10:20, 4:12], labels[4:20, 10:20, 16:24] = odd, even
    refined[4:20, 8:18, 4:24] = REFINED.labels["vertebrae"][0]
    result = taken_over(labels, STEP2, refined, REFINED)
    assert (result[4:20, 8:18, 4:12] == odd).all()
    assert (result[4:20, 8:18, 17:24] == even).all()
    assert set(np.unique(result[4:20, 8:18, 12:16])) == {odd, even}
    assert not result[:, 18:].any()


def test_bone_far_from_all_bone_and_kinds_that_step_2_did_not_find_are_not_taken_over():
    labels, refined = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    labels[4:8, 10:14, 4:8] = STEP2.labels["vertebrae_O"][0]
    refined[4:8, 10:14, 4:8] = refined[18:22, 30:38, 20:30] = REFINED.labels["vertebrae"][0]
    refined[10:14, 10:14, 4:8] = REFINED.labels["disc"][0]
    np.testing.assert_array_equal(taken_over(labels, STEP2, refined, REFINED), labels)
