"""Rejection of false sacra: voxels of the class sacrum in a vertebral body must not shift the levels."""

import numpy as np
import pytest

from tests.columns import dice, make_column, semantic_of
from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.imaging.field_of_view import Cut
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
from totalspineseg_bids.segmentation.labelling.records import Observation
from totalspineseg_bids.segmentation.result import SpineStatus
from totalspineseg_bids.segmentation.semantic_map import SemanticMap

LAYOUT = ClassMap.named("r20240601-step2")
SACRUM = LAYOUT.labels["sacrum"][0]


def two_pieces():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[2:12, 2:12, 0:8] = SACRUM
    labels[4:8, 4:8, 14:18] = SACRUM
    return SemanticMap(labels, LAYOUT)


def test_undecided_vertebra_has_neither_level_nor_parity():
    for name in ("r20240601-step2", "r20241115-step2", "r20241115-step1"):
        layout = ClassMap.named(name)
        meaning = layout.meanings[plain_vertebra_value(layout)]
        assert meaning.level is None
        assert not meaning.parity


def test_only_the_largest_piece_stays_sacrum():
    cleaned = keep_largest_sacrum(two_pieces()).labels
    assert (cleaned == SACRUM).sum() == 800
    assert (cleaned[4:8, 4:8, 14:18] == plain_vertebra_value(LAYOUT)).all()


def test_without_sacrum_loses_no_voxel():
    before = two_pieces().labels
    after = without_sacrum(two_pieces()).labels
    assert not (after == SACRUM).any()
    np.testing.assert_array_equal(before > 0, after > 0)


def test_a_map_without_sacrum_is_left_alone():
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


def rest_of_s1_s2(*, with_level_prior):
    """Return the components of a lumbar column whose sacrum contains a disc, and their levels."""

    def component(kind, s, volume, scout):
        centre = np.array([0.0, 15.0, -s])
        return Observation(
            kind,
            centre,
            s,
            s - 3,
            s + 3,
            15.0,
            0.0,
            volume,
            Cut.NONE,
            (),
            0,
            level_prior=scout if with_level_prior else {},
        )

    levels = ("L3-L4", "L4-L5", "L5-S")
    discs = [component(Structure.DISC, 40.0 * n, 12_000.0, {level: 0.8}) for n, level in enumerate(levels)]
    sacrum = component(Structure.SACRUM, 95.0, 90_000.0, {"S": 0.9})
    inside = component(Structure.DISC, 115.0, 5_000.0, {"L5-S": 0.03})
    return [*discs, sacrum, inside], (*levels, "S", None)


def test_a_disc_within_the_sacrum_does_not_refute_it_where_a_scout_sees_none_there():
    assert is_plausible(*rest_of_s1_s2(with_level_prior=True))
    assert not is_plausible(*rest_of_s1_s2(with_level_prior=False))
