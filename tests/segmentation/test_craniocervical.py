"""The border between C1 and C2 where the classes of the map do not draw it."""

import numpy as np
import pytest

from tests.columns import dice, semantic_of
from totalspineseg_bids import anatomy
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map
from totalspineseg_bids.synthesis.parametric import make_spine

STEP2 = ClassMap.named("r20241115-step2")
#: With a class that only C2 has.
WITH_C2 = ClassMap.named("r20240601-step2")
C1, C2, DISC = anatomy.vertebra("C1").id, anatomy.vertebra("C2").id, anatomy.disc("C2-C3").id


@pytest.fixture(scope="module", params=[7])
def neck(request):
    spine = make_spine(np.random.default_rng(request.param))
    rows = np.flatnonzero((spine.data == anatomy.vertebra("T2").id).any(axis=(0, 1)))
    truth = spine.data[:, :, rows.min() :].copy()
    truth[truth < 10] = 0
    return Volume(truth, spine.affine)


def _height(neck: Volume) -> np.ndarray:
    """Height above disc C2-C3 of every row of voxels, mm."""
    return np.arange(neck.data.shape[2]) - np.argwhere(neck.data == DISC)[:, 2].mean()


def _dice_of(neck: Volume, semantic: np.ndarray, layout: ClassMap = STEP2) -> tuple[float, float]:
    spine = label_map(semantic, neck.affine, layout)
    return dice(spine.labels == C1, neck.data == C1), dice(spine.labels == C2, neck.data == C2)


def test_what_the_map_tells_apart_stays_as_it_is(neck):
    assert min(_dice_of(neck, semantic_of(neck.data, STEP2))) > 0.97


@pytest.mark.parametrize("swallowed", ["dens", "atlas"])
def test_a_piece_that_holds_dens_and_atlas_is_parted(neck, swallowed):
    semantic = semantic_of(neck.data, STEP2)
    of_atlas, of_axis = (int(np.bincount(semantic[neck.data == label]).argmax()) for label in (C1, C2))
    if swallowed == "dens":
        semantic[(neck.data == C2) & (_height(neck) > 14)] = of_atlas
    else:
        semantic[neck.data == C1] = of_axis
    atlas, axis = _dice_of(neck, semantic)
    assert atlas > 0.85
    assert axis > 0.85


def test_the_class_of_c2_draws_the_border_where_it_is_painted(neck):
    """The upper half of C1 has a class that every second vertebra has; only C2's own class says that it is not C2."""
    semantic = semantic_of(neck.data, WITH_C2)
    semantic[(neck.data == C1) & (_height(neck) > 34)] = WITH_C2.labels["vertebrae_E"][0]
    atlas, axis = _dice_of(neck, semantic, WITH_C2)
    assert atlas > 0.95
    assert axis > 0.95


def test_the_class_of_c2_is_not_believed_where_c1_has_it_too(neck):
    semantic = semantic_of(neck.data, WITH_C2)
    semantic[neck.data == C1] = int(np.bincount(semantic[neck.data == C2]).argmax())
    assert min(_dice_of(neck, semantic, WITH_C2)) > 0.85
