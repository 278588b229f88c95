"""From image to labelled spine, with networks that read the truth off the image.

The stand-in networks are exact models of images whose grey values are the canonical ids: what is tested is everything
around the networks, and that the second one gets what it was promised.
"""

import gc
import threading
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from tests.columns import SimpleColumn, dice, half_space, label_of, levels_right, make_column, semantic_of
from tests.images import stored_along
from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.errors import ModelError, UsageError
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.inference.predictor import CoarsePrediction, Prediction
from totalspineseg_bids.models.registry import ModelSet
from totalspineseg_bids.segmentation.api import to_grid
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
from totalspineseg_bids.segmentation.refinement import CHANNELS, PARITIES, PRIOR_CHANNELS, parities
from totalspineseg_bids.segmentation.result import SpineStatus
from totalspineseg_bids.segmentation.spine_roi import keep_spine
from totalspineseg_bids.training.synthetic.refinement_training import dataset_json

SET = ModelSet("stand-in", step1=Path("one"), step2=Path("two"), single=Path("three"))


MODES = [{}, {"single_step": True}, {"step1_only": True}]


class StandIn:
    """Stand-in with the attributes that the segmenter reads from each network."""

    precision_report = None


class TruthReader(StandIn):
    """A perfect network for images of canonical ids."""

    def __init__(self, layout: str, channels: int = 1, *, blind: bool = False) -> None:
        self.layout = ClassMap.named(layout)
        names = ("MRI", "noNorm")[:channels]
        self.model = SimpleNamespace(
            labels={"background": (0,), **self.layout.labels},
            channel_names=names,
            path=Path(layout),
            name=layout,
            digest=layout.ljust(64, "0"),
        )
        self.blind = blind
        self.seen: list[np.ndarray] = []
        self.roi: list[np.ndarray | None] = []
        self.worthwhile = True

    def is_worthwhile(self, roi, margin, spacing):
        assert margin == 20
        np.testing.assert_allclose(spacing, 1.0, atol=1e-6)
        return self.worthwhile

    def predict(self, image, spacing, *, keep=(), half=False, roi=None, margin=0, progress=None):
        assert image.dtype == np.float32
        np.testing.assert_allclose(spacing, 1.0, atol=1e-6)
        self.seen.append(image)
        self.roi.append(roi)
        ids = np.rint(image[0]).astype(np.uint8) * (not self.blind)
        cord = (ids == anatomy.CORD_ID).astype(np.float32)
        canal = np.isin(ids, (anatomy.CORD_ID, anatomy.CANAL_ID)).astype(np.float32)
        if progress is not None:
            progress(1.0)
        structures = {label.id: label.structure for label in anatomy.LABELS}
        bone = [i for i, kind in structures.items() if kind in {Structure.VERTEBRA, Structure.SACRUM}]
        chance = {"cord": cord, "canal": canal, "vertebrae": np.isin(ids, bone).astype(np.float32)}
        chance["disc"] = (ids > 0).astype(np.float32) - canal - chance["vertebrae"]
        labels = semantic_of(ids, self.layout)
        parity = parities(labels, self.layout)
        chance |= {role: (parity == value).astype(np.float32) for role, value in PARITIES.items()}
        kept = {name: chance[name].astype(np.float16 if half else np.float32) for name in keep}
        return Prediction(labels, kept, _sure(ids))


def _sure(ids: np.ndarray) -> np.ndarray:
    """Return a margin that differs between neighbouring structures."""
    return (ids % 3 + 0.5).astype(np.float16)


class Thickener(StandIn):
    """A refining network that gives bone one voxel more on every side, and takes the cord for canal."""

    def __init__(self) -> None:
        labels = {"background": (0,), **ClassMap.from_labels(dataset_json(0)["labels"]).labels}
        self.model = SimpleNamespace(
            labels=labels, channel_names=("noNorm",) * CHANNELS, path=Path("r"), name="r", digest="r" * 64
        )
        self.seen: list[np.ndarray] = []

    def predict(self, image, spacing, *, keep=(), half=False, roi=None, margin=0, progress=None):
        self.seen.append(image)
        bone, disc, canal, cord, odd, even = (image[row] > 0 for row in PRIOR_CHANNELS)
        values = {name: own[0] for name, own in self.model.labels.items()}
        labels = np.where(ndimage.binary_dilation(bone), values["vertebrae"], 0).astype(np.uint8)
        for name, where in (("vertebrae_O", odd), ("vertebrae_E", even), ("canal", canal | cord), ("disc", disc)):
            labels[where] = values[name]
        margin = np.full(image.shape[1:], 0.125, np.float16)
        return Prediction(labels, {role: np.full(image.shape[1:], 0.25, np.float32) for role in keep}, margin)


def _segmenter(second: TruthReader | None = None, **mode) -> tuple[SpineSegmenter, dict[str, TruthReader]]:
    segmenter = SpineSegmenter(SET, **{"roi": "off", **mode})
    readers = {
        "step1": TruthReader("r20240601-step1"),
        "step2": second or TruthReader("r20240601-step2", 2),
        "single": TruthReader("r20240601-full"),
    }
    segmenter.networks.predictors.update(readers)
    return segmenter, readers


@cache
def lumbar() -> SimpleColumn:
    column = make_column(first="T11")
    wide = np.zeros((90, 110, column.truth.shape[2] + 30), np.uint8)
    wide[10:74, 12 : 12 + column.truth.shape[1], 20:-10] = column.truth
    affine = column.affine.copy()
    affine[:3, 3] -= (10, 12, 20)
    return SimpleColumn(wide, affine)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_mode_labels_the_column(mode):
    column = lumbar()
    segmenter, readers = _segmenter(**mode)
    stages: list[str] = []
    spine = segmenter.segment(column.image, progress=lambda stage, _part: stages.append(stage))
    assert spine.status is SpineStatus.LABELLED
    assert all(levels_right(spine.labels, column).values())
    assert dice(spine.cord_probability > 0.5, column.truth == anatomy.CORD_ID) > 0.99
    assert spine.canal_probability.shape == spine.labels.shape
    used = {role for role, reader in readers.items() if reader.seen}
    assert used == {"step1", "step2"} if not mode else {"single" if "single_step" in mode else "step1"} == used
    assert stages[0] == "resample"
    assert stages[-1] == "label"
    assert set(segmenter.digests) == used


def _with_noise(truth: np.ndarray) -> np.ndarray:
    """Return a label map as an image, with noise so that its background is not taken for padding."""
    return truth + np.random.default_rng(0).uniform(-0.4, 0.4, truth.shape).astype(np.float32)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_voxels_without_an_image_hold_no_label_and_cut_what_they_meet(mode):
    column = lumbar()
    outside = half_space(column.truth.shape, column.centre("L1"), (0.0, 0.4, 0.9))
    volume = Volume(np.where(outside, np.float32(-1), _with_noise(column.truth)), column.affine)
    spine = _segmenter(**mode)[0].segment(volume)
    assert spine.padding is not None
    assert np.mean(spine.padding == outside) > 0.99
    assert not spine.labels[spine.padding].any()
    edge = {c.level for c in spine.components if c.touches_edge}
    assert "L1" in edge
    assert not edge & {"L2-L3", "L3", "L4"}
    double = to_grid(spine, Geometry((45, 55, 146), volume.affine @ np.diag([2.0, 2.0, 2.0, 1.0])))
    assert double.padding is not None
    assert np.mean(double.padding == spine.padding[::2, ::2, ::2]) > 0.95


def test_a_refining_network_moves_borders_and_names_nothing():
    column = lumbar()
    volume = Volume(_with_noise(column.truth), column.affine)
    plain = _segmenter()[0].segment(volume)
    segmenter, thickener = SpineSegmenter(replace(SET, refine=Path("r"))), Thickener()
    segmenter.networks.predictors.update({**_segmenter()[1], "refine": thickener})
    spine = segmenter.segment(volume)
    assert list(segmenter.digests) == ["step1", "step2", "refine"]
    assert len(thickener.seen) == 1
    assert [c.level for c in spine.components if c.level] == [c.level for c in plain.components if c.level]
    l3 = anatomy.vertebra("L3").id
    assert (spine.labels == l3).sum() > 1.15 * (plain.labels == l3).sum()
    assert (spine.labels[plain.labels == l3] == l3).mean() > 0.95
    assert spine.cord_probability is not None
    assert spine.canal_probability is not None
    assert set(np.unique(spine.canal_probability)) <= {0.0, 0.25, 1.0}
    # Borders are where the refining network has them.
    assert set(np.unique(spine.margin[spine.labels > 0])) == {0.125}


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_margin_of_the_last_step_draws_borders_on_other_grids(mode):
    column = lumbar()
    spine = _segmenter(**mode)[0].segment(column.image)
    assert spine.margin.shape == spine.labels.shape
    found = spine.labels > 0
    np.testing.assert_array_equal(spine.margin[found], _sure(column.truth)[found])
    fine = Geometry((180, *spine.labels.shape[1:]), column.affine @ np.diag([0.5, 1.0, 1.0, 1.0]))
    there = to_grid(spine, fine)
    assert there.margin is None
    np.testing.assert_array_equal(there.labels, restore_labels(spine.labels, spine.affine, fine, margin=spine.margin))
    assert (there.labels != restore_labels(spine.labels, spine.affine, fine)).any()


def test_a_refining_network_is_left_out_where_there_is_no_step_2():
    models = replace(SET, refine=Path("r"))
    assert ["refine" in SpineSegmenter(models, **mode).roles for mode in MODES] == [True, False, False]


def test_images_of_a_session_help_each_other():
    chest, low = make_column(first="T6", last="T11"), make_column(first="T8", last="L4")
    volumes = [chest.image, low.image]
    segmenter, _ = _segmenter()
    assert segmenter.segment(volumes[0]).status is SpineStatus.ABSTAINED
    for volume, other, column in ((*volumes, chest), (*volumes[::-1], low)):
        spine = segmenter.segment(volume, companions=[other])
        assert spine.status is SpineStatus.LABELLED
        assert all(levels_right(spine.labels, column).values())
        assert spine.cord_probability.shape == spine.labels.shape


def test_an_image_without_landmarks_takes_its_levels_from_its_companion():
    column = lumbar()
    whole = column.image
    rows = np.argwhere(np.isin(column.truth, [anatomy.vertebra(level).id for level in ("L2", "L3", "L4")]))[:, 2]
    low, high = int(rows.min()) + 8, int(rows.max()) - 8
    affine = column.affine.copy()
    affine[2, 3] += low * column.affine[2, 2]
    part = Volume(np.ascontiguousarray(whole.data[:, :, low:high]), affine)
    segmenter, readers = _segmenter()
    assert segmenter.segment(part).status is SpineStatus.ABSTAINED
    readers["step1"].seen.clear()
    together = segmenter.segment(part, companions=[whole])
    assert together.status is SpineStatus.LABELLED
    named = {c.level for c in together.components if c.level}
    assert {"L3", "L2-L3", "L3-L4"} <= named
    for level in ("L3", "L2-L3"):
        number = label_of(level).id
        assert dice(together.labels == number, column.truth[:, :, low:high] == number) > 0.9
    other = segmenter.segment(whole, companions=[part])
    assert other.status is SpineStatus.LABELLED
    # Each image is segmented once for the session, in whatever turn it comes.
    assert len(readers["step1"].seen) == 2


def test_step_2_gets_the_box_and_the_odd_discs():
    column = lumbar()
    segmenter, readers = _segmenter()
    segmenter.segment(column.image)
    image, odd = readers["step2"].seen[0]
    assert image.size < column.truth.size
    assert set(np.unique(odd)) == {0.0, 1.0}
    marked = np.unique(image[odd > 0]).astype(int)
    expected = [anatomy.disc(d).id for d in anatomy.REGULAR_DISCS[::2] if (column.truth == anatomy.disc(d).id).any()]
    assert sorted(marked) == sorted(expected)
    # Without a region of interest step 1 runs on the whole image, step 2 on the region that step 1 found.
    assert readers["step1"].roi == [None]
    np.testing.assert_array_equal(readers["step2"].roi[0], image > 0)


@pytest.mark.parametrize(
    ("share", "worthwhile", "runs"),
    [(1.0, True, ["region"]), (0.3, True, ["region", "whole"]), (0.0, True, ["whole"]), (1.0, False, ["whole"])],
)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_the_first_network_runs_where_the_level_prior_sees_all_of_a_spine(mode, share, worthwhile, runs):
    column = lumbar()
    segmenter, readers = _segmenter(roi="auto", **mode)

    class CoarseReader(StandIn):
        """A perfect level-prior network for images of canonical ids, which sees only a ``share`` of the column."""

        model = SimpleNamespace(
            labels={"background": (0,), "vertebrae_L3": (1,), "disc": (2,)}, path=Path("c"), name="c"
        )

        def predict_coarse(self, image, spacing, *, progress=None):
            seen = (image[0, 2::4, 2::4, 2::4] > 0).astype(np.float32)
            seen[..., round(share * seen.shape[2]) :] = 0
            to_image = np.array([[4.0, 0, 0, 2], [0, 4, 0, 2], [0, 0, 4, 2], [0, 0, 0, 1]])
            return CoarsePrediction(np.stack([1 - seen, seen]), ("background", "vertebrae_L3"), to_image)

    segmenter.networks.predictors["scout"] = CoarseReader()
    first = readers["single" if mode.get("single_step") else "step1"]
    first.worthwhile = worthwhile
    assert segmenter.segment(column.image).status is SpineStatus.LABELLED
    assert ["whole" if roi is None else "region" for roi in first.roi] == runs


def test_a_level_prior_as_single_step_model_is_flagged():
    column = lumbar()
    for models, flagged in ((SET, False), (replace(SET, level_prior=SET.single), True)):
        segmenter, _ = _segmenter(single_step=True)
        segmenter.networks.models = models
        assert ("coarse-model" in segmenter.segment(column.image).flags) is flagged


def test_native_orientation_and_thick_slices():
    column = lumbar()
    thick = Geometry((22, 110, column.truth.shape[2]), column.affine @ np.diag([4.0, 1.0, 1.0, 1.0]))
    # Slice k shows what lies 4 k + 1 voxels from the left.
    data, affine = stored_along(column.truth[1:88:4], thick.affine, [[2, 1], [0, -1], [1, 1]])
    # Ids between two structures are no grey value of either: repeat slices instead of interpolating them.
    fine = affine @ np.diag([1.0, 1.0, 0.25, 1.0])
    fine[:3, 3] = (affine @ (0.0, 0.0, -0.375, 1.0))[:3]
    spine = _segmenter()[0].segment(Volume(np.repeat(data, 4, axis=2).astype(np.float32), fine))
    assert spine.status is SpineStatus.LABELLED
    native = to_grid(spine, Volume(data, affine).geometry)
    for level in ("L1", "L3", "L5"):
        number = anatomy.vertebra(level).id
        assert dice(native.labels == number, data == number) > 0.7
    assert native.labels.shape == native.cord_probability.shape == data.shape


def test_no_spine_in_view_is_a_status():
    segmenter, readers = _segmenter()
    spine = segmenter.segment(Volume(np.full((40, 40, 40), 3.0, np.float32), np.eye(4)))
    assert spine.status is SpineStatus.NO_SPINE
    assert spine.reason
    assert "no spine" in spine.reason
    assert not spine.labels.any()
    assert not readers["step2"].seen


def test_an_empty_step_2_leaves_step_1():
    column = lumbar()
    segmenter, _ = _segmenter(TruthReader("r20240601-step2", 2, blind=True))
    spine = segmenter.segment(column.image)
    assert spine.status is SpineStatus.LABELLED
    assert "step2-empty" in spine.flags
    assert all(levels_right(spine.labels, column).values())


def test_models_that_do_not_fit():
    with pytest.raises(UsageError):
        SpineSegmenter(SET, single_step=True, step1_only=True)
    with pytest.raises(ModelError):
        SpineSegmenter(ModelSet("half", step1=Path("one")))
    segmenter, _ = _segmenter(TruthReader("r20240601-step2", 1))
    column = lumbar()
    with pytest.raises(ModelError, match="channel"):
        segmenter.segment(column.image)


@pytest.mark.parametrize("collects", [True, False])
def test_preloading_leaves_garbage_collection_as_it_was(collects):
    try:
        (gc.enable if collects else gc.disable)()
        before = set(threading.enumerate())
        SpineSegmenter(SET).preload()
        for thread in set(threading.enumerate()) - before:
            thread.join()
        assert gc.isenabled() == collects
    finally:
        gc.unfreeze()
        gc.enable()


def test_specks_far_from_the_spine_go():
    layout = ClassMap.named("r20240601-step1")
    semantic = semantic_of(lumbar().truth, layout)
    dirty = semantic.copy()
    dirty[80:84, 100:104, 5:9] = layout.values_of("disc")[0]
    np.testing.assert_array_equal(keep_spine(dirty, layout), semantic)
    lonely = np.zeros((40, 40, 40), np.uint8)
    lonely[10:13, 10:13, 10:13] = 1
    assert not keep_spine(lonely, layout).any()
