"""Semantic map in, labelled spine out."""

import itertools
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scipy import ndimage

from tests.columns import SimpleColumn, dice, levels_right, make_column, semantic_of, without_landmarks
from tests.images import ORIENTATIONS, cropped, stored_along
from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant, Structure
from totalspineseg_bids.imaging.field_of_view import Cut
from totalspineseg_bids.imaging.grid import restore_labels
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.segmentation.api import label, to_grid
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map, odd_discs
from totalspineseg_bids.segmentation.labelling.labeller import LabellingInput, solve_image
from totalspineseg_bids.segmentation.labelling.odd_discs import disc_turns
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus

STEP2 = ClassMap.named("r20240601-step2")
STEP2_LATER = ClassMap.named("r20241115-step2")
STEP1 = ClassMap.named("r20240601-step1")
STEP1_LATER = ClassMap.named("r20241115-step1")
FULL = ClassMap.named("r20240601-full")


@cache
def lumbar() -> SimpleColumn:
    return make_column(first="T11")


@cache
def neck() -> SimpleColumn:
    return make_column(last="T3")


def _all_right(spine, column, *, but=()):
    verdict = levels_right(spine.labels, column)
    return [level for level, right in verdict.items() if not right and level not in but]


@pytest.mark.parametrize("layout", [STEP1, STEP1_LATER, STEP2, STEP2_LATER, FULL], ids=lambda layout: layout.name)
@pytest.mark.parametrize("column", [lumbar, neck], ids=["lumbar", "neck"])
def test_clean_maps(layout, column):
    column = column()
    spine = column.labelled(layout)
    assert spine.status is SpineStatus.LABELLED
    assert _all_right(spine, column) == []
    floor = 0.97 if layout.separates_vertebrae else 0.7
    for number in np.unique(column.truth):
        assert number == 0 or dice(spine.labels == number, column.truth == number) > floor, number
    names = [c.level for c in spine.components if c.structure is Structure.DISC]
    assert names == [d for d in anatomy.DISC_LEVELS if d in names]
    assert {c.label_id for c in spine.components} == set(np.unique(spine.labels)) - {0}
    for component in spine.components:
        voxels = np.argwhere(spine.labels == component.label_id)
        centre = apply_affine(column.affine, voxels.mean(axis=0))
        np.testing.assert_allclose(component.centroid_mm, centre, atol=1e-3)
        assert component.volume_mm3 == pytest.approx(len(voxels))


def test_disc_points_lie_on_the_canal_behind_their_discs():
    column = neck()
    spine = column.labelled(STEP2)
    levels = [point.level for point in spine.disc_points]
    assert levels[:2] == ["C1-C2", "C2-C3"]
    inverse = np.linalg.inv(column.affine)
    for point in spine.disc_points:
        voxel = (inverse @ (*point.position_mm, 1.0))[:3]
        assert spine.labels[tuple(np.round(voxel).astype(int))] in (anatomy.CORD_ID, anatomy.CANAL_ID)
        # What the field of view cuts has its middle elsewhere.
        if point.level != "C1-C2" and column.centre(point.level)[2] > 8:
            assert abs(voxel[2] - column.centre(point.level)[2]) < 5
    heights = [p.position_mm[2] for p in spine.disc_points]
    assert heights == sorted(heights, reverse=True)
    assert spine.centerline_mm[0, 2] > spine.centerline_mm[-1, 2]


@pytest.mark.parametrize("layout", [STEP1, STEP2_LATER], ids=lambda layout: layout.name)
def test_no_landmark_in_view_abstains_and_still_numbers_the_column(layout):
    column = make_column(first="T4", last="T11")
    spine = column.labelled(layout)
    assert spine.status is SpineStatus.ABSTAINED
    assert spine.reason
    assert all(c.level is None for c in spine.components)
    discs = [c for c in spine.components if c.structure is Structure.DISC]
    vertebrae = [c for c in spine.components if c.structure is Structure.VERTEBRA]
    # The field of view ends in discs.
    assert len(discs) in (7, 8, 9)
    assert len(vertebrae) >= 8
    assert all(anatomy.is_unnamed(c.label_id) and c.reason for c in (*discs, *vertebrae))
    numbers = [c.label_id for c in discs]
    assert numbers == sorted(numbers)
    assert spine.disc_points == ()
    odd = odd_discs(spine)
    marked = [c.label_id for c in discs if odd[spine.labels == c.label_id].all()]
    assert marked in (numbers[0::2], numbers[1::2])


def test_a_localizer_names_what_no_landmark_does():
    column = make_column(first="T4", last="T11")
    whole = make_column()
    assert column.labelled(STEP1).status is SpineStatus.ABSTAINED
    coarse = Geometry((17, 20, whole.truth.shape[2] // 3), whole.affine @ np.diag([4.0, 4.0, 3.0, 1.0]))
    localizer = Volume(restore_labels(whole.truth, whole.affine, coarse), coarse.affine)
    spine = column.labelled(STEP1, localizer=localizer)
    assert spine.status is SpineStatus.LABELLED
    assert _all_right(spine, column) == []


def test_step_1_names_what_step_2_leaves_open():
    column = lumbar()
    blind = without_landmarks(semantic_of(column.truth, STEP2_LATER), STEP2_LATER)
    first = semantic_of(column.truth, STEP1)
    assert label_map(blind, column.affine, STEP2_LATER).status is SpineStatus.ABSTAINED
    spine = label_map(blind, column.affine, STEP2_LATER, support=[(first, STEP1)])
    assert spine.status is SpineStatus.LABELLED
    assert _all_right(spine, column, but=("S",)) == []


def test_thirteen_thoracic_vertebrae():
    variant = SpineVariant(13, 5)
    column = make_column(variant)
    spine = label_map(semantic_of(column.truth, STEP2, variant), column.affine, STEP2)
    assert _all_right(spine, column) == []
    assert "T13" in spine.flags
    turns = [turn % 2 for _, turn in disc_turns(spine)]
    assert all(a != b for a, b in itertools.pairwise(turns))


@cache
def low_back() -> tuple[SimpleColumn, np.ndarray, LabelledSpine]:
    column = make_column(first="L3")
    return column, semantic_of(column.truth, STEP2), column.labelled(STEP2)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(ORIENTATIONS))
def test_the_orientation_of_the_file_does_not_matter(orientation):
    column, semantic, plain = low_back()
    turned, affine = stored_along(semantic, column.affine, orientation)
    spine = label_map(turned, affine, STEP2)
    np.testing.assert_array_equal(spine.labels, stored_along(plain.labels, column.affine, orientation)[0])
    assert spine.components == plain.components
    np.testing.assert_array_equal(spine.affine, affine)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.tuples(st.floats(0.7, 4.0), st.floats(0.6, 1.6), st.floats(0.6, 1.6)), st.sampled_from(ORIENTATIONS))
def test_the_voxel_size_of_the_file_does_not_matter(voxel, orientation):
    column, semantic, plain = low_back()
    shape = tuple(max(1, int(n / v)) for n, v in zip(semantic.shape, voxel, strict=True))
    coarse = Geometry(shape, column.affine @ np.diag([*voxel, 1.0]))
    sampled = restore_labels(semantic, column.affine, coarse)
    spine = label_map(*stored_along(sampled, coarse.affine, orientation), STEP2)
    assert [c.level for c in spine.components] == [c.level for c in plain.components]
    assert _all_right(to_grid(spine, Geometry(semantic.shape, column.affine)), column) == []


def test_canal_is_closed_and_free_of_cord():
    column = lumbar()
    semantic = semantic_of(column.truth, STEP2)
    inside = ndimage.minimum_filter(column.truth >= 200, (3, 3, 1)) & (column.truth == anatomy.CANAL_ID)
    holes = inside & (np.random.default_rng(0).random(inside.shape) < 0.08)
    semantic[holes] = 0
    spine = label_map(semantic, column.affine, STEP2)
    assert np.mean(spine.labels[holes] == anatomy.CANAL_ID) > 0.95
    assert dice(spine.labels == anatomy.CORD_ID, column.truth == anatomy.CORD_ID) > 0.99


def test_the_edge_of_the_field_of_view_is_reported():
    spine = SimpleColumn(*cropped(lumbar().truth, lumbar().affine, 2, 60)).labelled(STEP2)
    edge = {c.level for c in spine.components if c.touches_edge and c.level}
    assert edge <= {"T10-T11", "T11", "S", "L5", "L5-S"}
    assert edge & {"S", "L5"}


def _solve_slab(truth, layout, width=None, aside=0):
    """Find the levels of a map without landmarks in ``width`` mm from side to side, ``aside`` mm from the middle."""
    middle = truth.shape[0] // 2 + aside
    inside = slice(None) if width is None else slice(middle - width // 2, middle + width // 2)
    semantic = without_landmarks(semantic_of(truth, layout), layout)[inside]
    found = solve_image(LabellingInput(np.ascontiguousarray(semantic), np.eye(4), layout)).found
    assert found is not None
    return found


@pytest.mark.parametrize("width", [40, 25])
@pytest.mark.parametrize(
    ("first", "last", "scale", "layout"),
    [
        ("C1", "S", 0.9, STEP2),
        ("C1", "T6", 0.9, STEP2),
        ("C3", "T12", 0.9, STEP1),
        ("C4", "T8", 1.1, STEP1),
        ("T2", "L5", 0.7, STEP2),
    ],
)
def test_a_sagittal_slab_has_the_levels_of_the_whole_column(first, last, scale, layout, width):
    column = make_column(first=first, last=last, scale=scale)
    whole, slab = (_solve_slab(column.truth, layout, kept) for kept in (None, width))
    assert slab.solution.levels == whole.solution.levels
    assert np.median(slab.solution.confidence) > np.median(whole.solution.confidence) - 0.06
    assert {o.cut for o in slab.observations[3:-3]} <= {Cut.NONE, Cut.SIDES}


def test_volumes_beside_the_middle_of_the_column_are_unknown():
    observations = _solve_slab(make_column(first="T9").truth, STEP2, 24, aside=14).observations
    assert {o.cut for o in observations[3:-3] if o.kind is Structure.DISC} == {Cut.ACROSS}


@pytest.mark.parametrize("degrees", [0, 50])
def test_the_direction_of_the_column_tells_which_ends_are_cut(degrees):
    """Tilted by 50 degrees, the column leaves the field of view at the front and at the back."""
    column = make_column(first="T4", last="T12")
    truth = ndimage.rotate(column.truth, degrees, axes=(1, 2), order=0)
    low, high = (np.argwhere(truth == anatomy.vertebra(level).id).mean(axis=0).astype(int) for level in ("T5", "T11"))
    axis = 1 if degrees else 2
    start, stop = sorted((int(low[axis]), int(high[axis])))
    truth = truth.take(range(start, stop), axis=axis)
    observations = _solve_slab(truth, STEP2, 30).observations
    cut = {n for n, o in enumerate(observations) if o.cut is Cut.ALONG}
    assert {0, len(observations) - 1} <= cut
    assert cut <= {0, 1, len(observations) - 2, len(observations) - 1}
    assert {o.cut for o in observations[3:-3]} <= {Cut.NONE, Cut.SIDES}


@pytest.mark.parametrize("value", [0, 6])
def test_neither_canal_nor_disc_is_no_spine(value):
    spine = label_map(np.full((20, 20, 20), value, np.uint8), np.eye(4), STEP1)
    assert spine.status is SpineStatus.NO_SPINE
    assert spine.reason
    assert not spine.labels.any()
    assert odd_discs(spine).shape == (20, 20, 20)


def test_single_axial_slab_and_one_disc_do_not_break_it():
    z = int(lumbar().centre("L3-L4")[2])
    slab, flat = (
        SimpleColumn(*cropped(lumbar().truth, lumbar().affine, 2, *part)).labelled(STEP2).status
        for part in ((z - 6, z + 6), (z, z + 1))
    )
    assert slab is SpineStatus.ABSTAINED
    assert flat in (SpineStatus.ABSTAINED, SpineStatus.NO_SPINE)


@pytest.mark.parametrize("layout", [STEP1, STEP2_LATER, FULL], ids=lambda layout: layout.name)
def test_nonsense_yields_a_status_and_consistent_output(layout):
    rng = np.random.default_rng(0)
    values = np.array([0, *layout.meanings], np.uint8)
    column = lumbar()
    canal_only = np.where(column.truth >= anatomy.CORD_ID, semantic_of(column.truth, layout), 0).astype(np.uint8)
    discs = np.isin(column.truth, [anatomy.disc(d).id for d in anatomy.REGULAR_DISCS])
    maps = [
        rng.choice(values, (30, 30, 30)),
        np.kron(rng.choice(values, (6, 6, 12)), np.ones((6, 6, 6), np.uint8)).astype(np.uint8),
        canal_only,
        np.where(discs, semantic_of(column.truth, layout), 0).astype(np.uint8),
        semantic_of(column.truth, layout)[:, :, ::-1],
    ]
    for semantic in maps:
        spine = label_map(semantic, column.affine, layout)
        assert spine.labels.shape == semantic.shape
        assert {c.label_id for c in spine.components} == set(np.unique(spine.labels)) - {0}
        assert (spine.status is SpineStatus.LABELLED) == (spine.reason is None)


def test_api_takes_files_in_either_form(tmp_path):
    column = lumbar()
    path = tmp_path / "seg.nii.gz"
    nib.Nifti1Image(semantic_of(column.truth, STEP1), column.affine).to_filename(path)
    spine = label(path, "r20240601-step1")
    assert spine.status is SpineStatus.LABELLED
    assert _all_right(spine, column) == []


@pytest.mark.parametrize("layout", [STEP1_LATER, STEP2_LATER], ids=lambda layout: layout.name)
@pytest.mark.parametrize("rows", [slice(None, 330), slice(560, None)], ids=["lumbar", "neck"])
def test_real_anatomy(layout, rows, data_dir):
    image = nib.load(data_dir / "anatomy/bp3d_trunk_1mm.nii.gz")
    truth = np.asarray(image.dataobj)[28:148, 20:, rows].copy()
    truth[truth < 10] = 0
    column = SimpleColumn(truth, image.affine)
    spine = column.labelled(layout)
    assert spine.status is SpineStatus.LABELLED
    cut = {c.level for c in spine.components if c.touches_edge}
    edge = {anatomy.BY_ID[int(n)].level for n in np.unique(truth[:, :, [0, 1, -2, -1]]) if n in anatomy.BY_ID}
    assert _all_right(spine, column, but=cut | edge) == []


def test_pieces_between_two_discs_are_one_vertebra():
    layout = ClassMap.named("r20240601-step2")
    column = make_column(first="C7", last="L2")
    semantic = semantic_of(column.truth, layout)
    body = np.argwhere(column.truth == anatomy.vertebra("T6").id)
    upper = body[body[:, 2] > np.median(body[:, 2])]
    # As large as the rest of the vertebra, of a class that names another level.
    semantic[tuple(upper.T)] = layout.labels["vertebrae_T12"][0]
    spine = label_map(semantic, column.affine, layout)
    for level in ("T5", "T6", "T7"):
        label = anatomy.vertebra(level).id
        assert dice(spine.labels == label, column.truth == label) > 0.95, level


def test_two_lumbar_discs_far_apart_take_turns():
    """Alone in view they are numbered; their gap would do for two levels of the chest."""
    semantic = np.zeros((60, 70, 90), np.uint8)
    semantic[20:40, 14:28] = STEP1.labels["canal"][0]
    for z in (66, 28):
        semantic[10:50, 30:62, z - 5 : z + 6] = STEP1.labels["disc"][0]
    spine = label_map(semantic, np.eye(4), STEP1)
    assert spine.status is SpineStatus.ABSTAINED
    assert [turn for _, turn in disc_turns(spine)] == [0, 1]
    assert np.count_nonzero(odd_discs(spine)) == np.count_nonzero(semantic[:, 30:62, 61:72])


def test_a_small_disc_within_c2_does_not_cut_it():
    """The joint between dens and body may come out as a disc; C1 lost its name to what was cut off so."""
    column, layout = make_column(last="T4"), ClassMap.named("r20240601-step2")
    axis = np.argwhere(column.truth == anatomy.vertebra("C2").id)
    body = axis[axis[:, 1] > np.median(axis[:, 1])]
    damaged = semantic_of(column.truth, layout)
    centre = np.median(body, axis=0)
    speck = body[(np.abs(body - centre) < (5.0, 5.0, 1.6)).all(axis=1)]
    damaged[tuple(speck.T)] = layout.labels["disc_C2_C3"][0]
    spine = label_map(damaged, column.affine, layout)
    assert 80 < len(speck) < 400
    names = {c.level for c in spine.components}
    assert {"C1", "C2", "C3"} <= names
    painted = spine.labels == anatomy.vertebra("C2").id
    assert np.count_nonzero(painted & (column.truth == anatomy.vertebra("C2").id)) > 0.9 * (len(axis) - len(speck))


@pytest.mark.parametrize("column", [lumbar, neck], ids=["lumbar", "neck"])
def test_discs_alone_are_those_of_the_whole_label_map(column):
    whole, discs = (column().labelled(STEP1, discs_only=only) for only in (False, True))
    ids = [anatomy.disc(level).id for level in anatomy.DISC_LEVELS]
    np.testing.assert_array_equal(discs.labels, np.where(np.isin(whole.labels, ids), whole.labels, 0))
