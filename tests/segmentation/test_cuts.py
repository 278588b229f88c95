"""Structures that the field of view cuts, at the faces of the array or inside it."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tests.columns import half_space, make_column, semantic_of
from totalspineseg_bids import anatomy
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.segmentation.labelling.labeller import LabellingInput, solve_image

LAYOUT = ClassMap.named("r20240601-step2")
#: Level at which padding begins, direction towards it, offset of its border, and how it cuts the body of the level.
PADDED = {
    "straight above": ("L1", (0, 0, 1), 0, Cut.ALONG),
    "oblique above": ("L1", (0.2, 0.4, 0.9), 0, Cut.ALONG),
    "oblique below": ("L4", (0.2, 0.4, -0.9), 0, Cut.ALONG),
    "oblique side": ("L3", (0.95, 0.1, 0.2), 8.4, Cut.SIDES),
    "oblique front": ("L3", (0.1, 0.95, 0.2), 0, Cut.ACROSS),
}


@pytest.mark.parametrize("affine", [np.eye(4), np.diag([-1.0, -1.0, 1.0, 1.0]), np.diag([0.8, 1.0, 1.0, 1.0])])
@pytest.mark.parametrize("kind", PADDED)
def test_padding_cuts_as_the_faces_of_the_array_do(kind, affine):
    level, normal, offset, expected = PADDED[kind]
    column = make_column(first="T11", last="S")
    signs = np.sign(np.diag(affine)[:3]).astype(int)
    padding = half_space(column.truth.shape, column.centre(level) + np.array(normal) * offset, normal)
    flips = (slice(None, None, signs[0]), slice(None, None, signs[1]), slice(None))
    semantic, padding = (np.ascontiguousarray(a[flips]) for a in (semantic_of(column.truth, LAYOUT), padding))
    spine = label_map(semantic, affine, LAYOUT, padding=padding)
    assert not spine.labels[padding].any()
    found = solve_image(LabellingInput(semantic, affine, LAYOUT, padding=padding)).found
    cuts = dict(zip(found.solution.levels, (o.cut for o in found.observations), strict=True))
    assert cuts[level] is expected
    beside = {c.level: c.touches_edge for c in spine.components if c.level}
    assert beside[level]
    if expected is Cut.ALONG:
        assert not beside["L2-L3"]
        assert cuts["L2-L3"] is Cut.NONE


@pytest.mark.parametrize(("degrees", "along"), [(30, 2), (70, 0)])
def test_a_leaning_column_is_cut_along_only_by_the_face_that_its_canal_meets(degrees, along):
    column = make_column(first="T9", last="L5", scale=0.8)
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    size, middle = 230, np.argwhere(column.truth).mean(axis=0)
    truth = ndimage.affine_transform(column.truth, turn, middle - turn @ np.full(3, size / 2), (size,) * 3, order=0)
    level = np.argwhere(truth == anatomy.vertebra("T11").id).mean(axis=0).astype(int)
    for face in (0, 2):
        # The array ends in the middle of the vertebra.
        outwards = level[face] > size / 2
        kept = [slice(None)] * 3
        kept[face] = slice(None, level[face]) if outwards else slice(level[face], None)
        semantic = np.ascontiguousarray(semantic_of(truth[tuple(kept)], LAYOUT))
        found = solve_image(LabellingInput(semantic, np.eye(4), LAYOUT)).found
        cuts = {o.cut for o in found.observations}
        assert cuts > {Cut.NONE}
        assert (Cut.ALONG in cuts) is (face == along), face
