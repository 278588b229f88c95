"""Rejection of false sacra: voxels of the class sacrum in a vertebral body must not shift the levels."""

import numpy as np
import pytest

from tests.columns import dice, make_column, semantic_of
from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.segmentation.labelling.components.level_prior import LevelPrior
from totalspineseg_bids.segmentation.labelling.components.sacrum import (
    is_plausible,
    keep_largest_sacrum,
    plain_vertebra_value,
    relabel_by_prior,
    without_sacrum,
)
from totalspineseg_bids.segmentation.result import SpineStatus
from totalspineseg_bids.segmentation.semantic_map import SemanticMap

from .observations import make_observation

LAYOUT = ClassMap.named("r20240601-step2")
SACRUM = LAYOUT.labels["sacrum"][0]


@pytest.mark.parametrize("name", ["r20240601-step2", "r20241115-step2", "r20241115-step1"])
def test_undecided_vertebra_has_neither_level_nor_parity(name):
    layout = ClassMap.named(name)
    meaning = layout.meanings[plain_vertebra_value(layout)]
    assert (meaning.level, bool(meaning.parity)) == (None, False)


def test_only_the_largest_piece_stays_sacrum_and_no_voxel_is_lost():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:12, 2:12, 0:8] = labels[4:8, 4:8, 14:18] = SACRUM
    pieces = SemanticMap(labels.copy(), LAYOUT)
    cleaned, without = (change(pieces).labels for change in (keep_largest_sacrum, without_sacrum))
    assert (cleaned == SACRUM).sum() == 800
    assert (cleaned[4:8, 4:8, 14:18] == plain_vertebra_value(LAYOUT)).all()
    assert not (without == SACRUM).any()
    np.testing.assert_array_equal(without > 0, labels > 0)
    semantic = SemanticMap(np.zeros((4, 4, 4), np.uint8), LAYOUT)
    assert keep_largest_sacrum(semantic) is semantic


@pytest.mark.parametrize("name", ["r20240601-step2", "r20241115-step2"])
def test_bone_below_the_last_disc_is_sacrum_even_where_its_class_is_missing(name):
    layout = ClassMap.named(name)
    column = make_column(first="T11")
    semantic = without_sacrum(SemanticMap(semantic_of(column.truth, layout), layout)).labels
    spine = label_map(semantic, column.affine, layout)
    assert spine.status is SpineStatus.LABELLED
    sacrum, last = anatomy.SACRUM_ID, anatomy.vertebra("L5").id
    assert dice(spine.labels == sacrum, column.truth == sacrum) > 0.9
    assert dice(spine.labels == last, column.truth == last) > 0.9
    assert {"S", "L5"} <= {c.level for c in spine.components}


def scout_of(truth, affine, step=4):
    """Return what a coarse model sees that knows the sacrum from vertebrae, and no level."""
    names = ("background", "sacrum", "vertebrae_L3", "canal")
    layout = ClassMap.from_labels({name: value for value, name in enumerate(names)})
    coarse = truth[::step, ::step, ::step]
    sacrum = coarse == anatomy.SACRUM_ID
    bone = np.isin(coarse, [anatomy.vertebra(level).id for level in anatomy.VERTEBRA_LEVELS]) & ~sacrum
    probabilities = np.stack([~sacrum & ~bone, sacrum, bone, np.zeros_like(bone)]).astype(np.float32) * 0.8
    return LevelPrior.from_classes(probabilities, names, layout, affine @ np.diag([step, step, step, 1.0]))


def test_a_scout_tells_the_sacrum_from_one_more_vertebra():
    column = make_column(first="T11")
    whole = SemanticMap(semantic_of(column.truth, LAYOUT), LAYOUT)
    scout = scout_of(column.truth, column.affine)
    lent = relabel_by_prior(without_sacrum(whole), column.affine, scout).labels
    assert dice(lent == SACRUM, whole.labels == SACRUM) > 0.9
    no_landmark = np.where(np.isin(lent, LAYOUT.labels["disc_L5_S"]), LAYOUT.labels["disc_O"][0], lent)
    spine = label_map(without_sacrum(SemanticMap(no_landmark, LAYOUT)).labels, column.affine, LAYOUT, level_prior=scout)
    assert dice(spine.labels == anatomy.SACRUM_ID, column.truth == anatomy.SACRUM_ID) > 0.9


def test_without_a_class_of_its_own_no_sacrum_is_lent():
    layout = ClassMap.named("r20240601-step1")
    column = make_column(first="T11")
    semantic = SemanticMap(semantic_of(column.truth, layout), layout)
    assert relabel_by_prior(semantic, column.affine, scout_of(column.truth, column.affine)) is semantic


@pytest.mark.parametrize("scout", [True, False])
def test_a_disc_within_the_sacrum_does_not_refute_it_where_a_scout_sees_none_there(scout):
    """The last disc of this lumbar column lies inside the sacrum."""
    levels = ("L3-L4", "L4-L5", "L5-S", "S", None)
    kinds = (*[Structure.DISC] * 3, Structure.SACRUM, Structure.DISC)
    places, volumes = (0.0, 40.0, 80.0, 95.0, 115.0), (12e3, 12e3, 12e3, 90e3, 5e3)
    priors = ({"L3-L4": 0.8}, {"L4-L5": 0.8}, {"L5-S": 0.8}, {"S": 0.9}, {"L5-S": 0.03})
    column = [
        make_observation(kind, s, volume=volume, level_prior=prior if scout else {})
        for kind, s, volume, prior in zip(kinds, places, volumes, priors, strict=True)
    ]
    assert is_plausible(column, levels) is scout
