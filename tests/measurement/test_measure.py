import numpy as np
import pytest

from tests.columns import half_space
from tests.images import cropped
from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, disc, vertebra
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.measurement import COLUMNS, POSTURE_COLUMNS, LevelMeasures

from .phantom import Phantom, components_of, measure, of_structure, rotation, rows_of

ISO = (1.0, 1.0, 1.0)
THREE = ("L3", "L4", "L5")

# On a grid along its own axes a box can only be a whole number of voxels: where voxels are large, its sizes are, too.
CASES = {
    "straight": (Phantom(THREE), ISO, None),
    "kyphotic": (Phantom(bend_forward=1 / 180), ISO, None),
    "lordotic": (Phantom(bend_forward=-1 / 200), ISO, None),
    "scoliotic": (Phantom(bend_right=1 / 200), ISO, None),
    "twisted": (Phantom(THREE, twist=np.radians(0.3)), ISO, None),
    "tilted": (Phantom(THREE, rotation=rotation("x", 20) @ rotation("y", 12)), ISO, None),
    "turned": (Phantom(THREE, rotation=rotation("z", 30)), ISO, None),
    "fine": (Phantom(("L4", "L5"), disc_height=7.2, width=38.4), (0.8, 0.8, 0.8), None),
    "thick sagittal": (Phantom(THREE, width=39.6, height=24.3, disc_height=7.2), (3.3, 0.9, 0.9), None),
    "thick axial": (Phantom(THREE, disc_height=6.0), (0.9, 0.9, 3.0), None),
    "oblique grid": (Phantom(THREE), (1.0, 1.0, 2.0), rotation("x", 15) @ rotation("z", 10)),
    "flipped axes": (Phantom(THREE), (1.0, 1.2, 1.0), np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])),
}


@pytest.fixture(scope="module", params=list(CASES), ids=list(CASES))
def case(request):
    phantom, spacing, axes = CASES[request.param]
    labels, affine, components, line = phantom.rasterise(spacing, axes)
    return phantom, affine, measure(labels, affine, components, line)


def half_voxel(affine: np.ndarray, direction: int) -> float:
    return 0.5 * float(np.abs(affine[direction, :3]).max()) + 0.05


def test_heights_depth_and_width_within_half_a_voxel(case):
    phantom, affine, result = case
    along, front, across = (half_voxel(affine, axis) for axis in (2, 1, 0))
    if np.abs(phantom.rotation - np.eye(3)).max() > 0:
        along = front = across = max(along, front, across)
    for row in of_structure(result.levels, Structure.VERTEBRA):
        for value in (row.height_mm, row.height_anterior_mm, row.height_middle_mm, row.height_posterior_mm):
            assert value == pytest.approx(phantom.height, abs=along), row
        assert row.depth_mm == pytest.approx(phantom.depth, abs=front), row
        assert row.width_mm == pytest.approx(phantom.width, abs=across), row
        assert row.wedge_deg == pytest.approx(0.0, abs=2.0), row
    for row in of_structure(result.levels, Structure.DISC):
        if row.height_mm is None:
            assert "too coarse" in (row.measure_note or "")
            continue
        assert row.height_mm == pytest.approx(phantom.disc_height, abs=along), row
        assert row.depth_mm == pytest.approx(phantom.depth, abs=max(front, across)), row
        assert row.width_mm == pytest.approx(phantom.width, abs=max(front, across)), row
        assert row.height_index == pytest.approx(phantom.disc_height / phantom.height, abs=along / phantom.height)
        assert row.slip_mm is None or row.slip_mm == pytest.approx(0.0, abs=max(1.0, front)), row


def test_foramina_have_the_height_between_the_pedicles(case):
    phantom, affine, result = case
    # Either pedicle ends at a voxel.
    tilted = np.count_nonzero(affine[:3, :3]) > 3
    ends = 2 * (max(half_voxel(affine, axis) for axis in range(3)) if tilted else half_voxel(affine, 2))
    bent = max(phantom.bend_forward, -phantom.bend_forward, phantom.bend_right)
    for row in of_structure(result.levels, Structure.DISC):
        for value in (row.foramen_left_mm, row.foramen_right_mm):
            # Behind and beside the axis of a bent spine, pedicles are closer together or farther apart.
            tolerance = ends + phantom.pitch * bent * phantom.canal_behind
            assert value == pytest.approx(phantom.pitch - 10.0, abs=tolerance), row


def test_each_foramen_has_its_own_height_and_none_without_pedicles():
    labels, affine, _, line = Phantom(("L3", "L4")).rasterise(ISO)
    right, front, up = np.indices(labels.shape)
    right = right + affine[0, 3]
    behind = front <= front[labels == CANAL_ID].max()
    pedicle = (labels == vertebra("L3").id) & (np.abs(np.abs(right) - 15) <= 3) & behind
    raised = labels.copy()
    raised[pedicle & (right > 0) & (up < up[pedicle].min() + 4)] = 0
    for left in (pytest.approx(24.0, abs=0.6), None):
        row = rows_of(raised, affine, line)["L3-L4"]
        assert (row.foramen_left_mm, row.foramen_right_mm) == (left, pytest.approx(28.0, abs=0.6))
        raised[pedicle & (right < 0)] = 0


def test_areas_within_five_percent_and_diameters_within_half_a_voxel(case):
    phantom, affine, result = case
    canal, cord = (np.pi * a * b for a, b in (phantom.canal, phantom.cord))
    # A chord's end depends on the voxels across as well as on those along it.
    half = max(half_voxel(affine, 0), half_voxel(affine, 1))
    coarse = 2 * half > 1.6
    if np.count_nonzero(affine[:3, :3]) > 3:  # every edge of a voxel touches the plane
        half = 0.5 * float(np.linalg.norm(affine[:3, :3], axis=0).max()) + 0.05
    whole = 0
    for row in result.levels:
        assert (row.cord_canal_ratio is None) == (row.cord_area_mm2 is None), row
        if row.canal_area_mm2 is not None:
            whole += 1
            assert row.canal_area_mm2 == pytest.approx(canal, rel=0.05), row
            assert row.canal_ap_mm == pytest.approx(2 * phantom.canal[0], abs=half), row
            assert row.canal_lr_mm is None if coarse else row.canal_lr_mm == pytest.approx(22.0, abs=half), row
            if coarse:
                assert "too coarse for some sizes of canal or cord" in (row.measure_note or "")
        if row.cord_area_mm2 is not None:
            assert row.cord_area_mm2 == pytest.approx(cord, rel=0.05), row
            assert row.cord_lr_mm == pytest.approx(2 * phantom.cord[1], abs=half), row
            assert row.cord_canal_ratio == pytest.approx(cord / canal, rel=0.08), row
        if row.cord_ap_mm is not None:
            assert row.cord_ap_mm == pytest.approx(2 * phantom.cord[0], abs=half), row
    assert whole == 2 * len(phantom.levels) - 1


def test_angles_within_two_degrees(case):
    phantom, _, result = case
    if len(phantom.levels) < 5:
        assert result.posture.lumbar_lordosis_deg is None
        return
    assert result.posture.lumbar_lordosis_deg == pytest.approx(
        -phantom.angle_between(0, 4, phantom.bend_forward), abs=2.0
    )
    assert result.posture.coronal_cobb_deg == pytest.approx(phantom.angle_between(0, 4, phantom.bend_right), abs=2.0)
    if phantom.bend_right:
        assert result.posture.coronal_cobb_levels == "L1-L5"


THORACIC = tuple(f"T{i}" for i in range(4, 13))
SMALL = {"width": 26.0, "depth": 22.0, "canal": (7.0, 8.0), "cord": (3.0, 4.0)}


@pytest.mark.parametrize(
    ("levels", "forward", "right", "turned"),
    [
        (THORACIC, 1 / 300, 0.0, np.eye(3)),
        (THORACIC, 1 / 300, 1 / 400, rotation("z", 10)),
        (("C3", "C4", "C5", "C6", "C7"), -1 / 150, 0.0, rotation("x", 8)),
    ],
    ids=["kyphosis", "kyphosis and scoliosis, turned", "cervical lordosis"],
)
def test_curves_of_neck_and_chest_within_two_degrees(levels, forward, right, turned):
    cervical = levels[0] == "C3"
    height, gap, disc_height = (12.0, 5.0, 4.0) if cervical else (18.0, 6.0, 5.0)
    phantom = Phantom(levels, height=height, gap=gap, disc_height=disc_height, bend_forward=forward, bend_right=right,
                      rotation=turned, **SMALL)  # fmt: skip
    labels, affine, components, line = phantom.rasterise((1.5, 1.5, 1.5) if not cervical else ISO)
    posture = measure(labels, affine, components, line).posture
    angle = phantom.angle_between(0, len(levels) - 1, forward)
    if cervical:
        assert posture.cervical_lordosis_deg == pytest.approx(-angle, abs=2.0)
        assert posture.thoracic_kyphosis_deg is None
    else:
        assert posture.thoracic_kyphosis_deg == pytest.approx(angle, abs=2.0)
        assert posture.lumbar_lordosis_deg is None
        assert posture.coronal_cobb_deg == pytest.approx(phantom.angle_between(0, 8, right), abs=2.0)


def test_wedge_and_slip():
    phantom = Phantom(levels=("L2", "L3", "L4"), wedge=6.0)
    labels, affine, _, line = phantom.rasterise(ISO)
    row = rows_of(labels, affine, line)["L3"]
    assert row.wedge_deg == pytest.approx(-np.degrees(2 * np.arctan(3.0 / phantom.depth)), abs=2.0)
    assert row.height_anterior_mm == pytest.approx(phantom.height - 6.0 * 0.875, abs=0.5)
    assert row.height_posterior_mm == pytest.approx(phantom.height - 6.0 * 0.125, abs=0.5)

    moved = np.where(labels == 20, 0, labels)
    forward = np.roll(labels == 20, 4, axis=1)
    moved[forward & (moved == 0)] = 20
    rows = rows_of(moved, affine, line)
    assert rows["L2-L3"].slip_mm == pytest.approx(-4.0, abs=1.0)
    assert rows["L3-L4"].slip_mm == pytest.approx(4.0, abs=1.0)


def test_centreline_is_found_in_the_map_when_none_is_given():
    labels, affine, _, line = Phantom(bend_forward=1 / 200).rasterise((1.5, 1.5, 1.5))
    given, found = rows_of(labels, affine, line), rows_of(labels, affine)
    for level, a in given.items():
        b = found[level]
        assert a.height_mm == (b.height_mm and pytest.approx(b.height_mm, abs=0.3))
        assert a.canal_area_mm2 is None or a.canal_area_mm2 == pytest.approx(b.canal_area_mm2, rel=0.03)


def test_cut_levels_have_a_volume_and_no_shape():
    labels, affine, _, line = Phantom(THREE).rasterise((1.5, 1.5, 1.5))
    rows = rows_of(labels, affine, line, partial=("L3",))
    assert rows["L3"].partial
    assert rows["L3"].volume_mm3 > 0
    assert (rows["L3"].height_mm, rows["L3"].canal_area_mm2) == (None, None)
    assert rows["L3"].as_row()["measure-note"] == "cut by the field of view"
    assert rows["L4"].height_mm is not None
    # The neighbour that is whole still gives the disc its index, but no slip.
    assert rows["L3-L4"].height_index is not None
    assert rows["L3-L4"].slip_mm is None


def test_a_cut_arch_leaves_the_body_measured_and_a_cut_body_nothing():
    labels, affine, _, line = Phantom(("L3", "L4")).rasterise(ISO)
    behind = int(np.argwhere(labels == CANAL_ID)[:, 1].min()) - 6
    front = int(np.argwhere(labels == 19)[:, 1].max()) - 8
    arch, body = (
        rows_of(*cropped(labels, affine, 1, *part), line, partial=("L3", "L4")) for part in ((behind,), (0, front))
    )
    for level in ("L3", "L4"):
        assert arch[level].partial
        assert arch[level].height_mm == pytest.approx(24.0, abs=0.5)
        assert arch[level].canal_area_mm2 == pytest.approx(np.pi * 99, rel=0.05)
        assert "arch cut by the field of view" in arch[level].measure_note
        assert (body[level].height_mm, body[level].measure_note) == (None, "cut by the field of view")


@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.0, 0.5, 0.87), (0.3, 0.3, 0.9)], ids=str)
def test_padding_leaves_nothing_of_what_it_cuts_and_all_of_the_rest(normal):
    labels, affine, components, line = Phantom(THREE).rasterise(ISO)
    padding = half_space(labels.shape, np.argwhere(labels == vertebra("L3").id).mean(axis=0), normal)
    seen = np.where(padding, 0, labels).astype(np.uint8)
    whole = measure(labels, affine, components, line)
    found = measure(seen, affine, components_of(seen, affine, partial=("L3",)), line, padding=padding)
    before, after = ({r.level: r for r in m.levels if r.level} for m in (whole, found))
    assert after["L3"].partial
    assert (after["L3"].height_mm, after["L3"].width_mm, after["L3"].canal_area_mm2) == (None, None, None)
    assert after["L3"].measure_note == "cut by the field of view"
    for name in ("height_mm", "depth_mm", "width_mm", "canal_area_mm2"):
        assert getattr(after["L4"], name) == pytest.approx(getattr(before["L4"], name), abs=0.1)
    near = max(np.abs(before["L4"].canal_area_mm2 - p.canal_area_mm2) for p in found.profile if p.canal_area_mm2)
    assert near < 0.05 * before["L4"].canal_area_mm2
    assert len(found.profile) < len(whole.profile)


@pytest.mark.parametrize(("aside", "measured"), [(0, True), (10, False)])
def test_a_slab_leaves_all_but_the_width(aside, measured):
    labels, affine, _, line = Phantom(("L3", "L4")).rasterise(ISO)
    middle, levels = labels.shape[0] // 2 + aside, ("L3", "L4", "L3-L4")
    slab = cropped(labels, affine, 0, middle - 12, middle + 12)
    whole, rows = rows_of(labels, affine, line), rows_of(*slab, line, partial=levels)
    for level in levels:
        assert rows[level].partial
        assert (rows[level].width_mm, rows[level].foramen_left_mm) == (None, None)
        note = "sides cut by the field of view" if measured else "cut by the field of view"
        assert rows[level].measure_note.startswith(note)
        for name in ("height_mm", "height_anterior_mm", "depth_mm", "canal_area_mm2"):
            value = getattr(rows[level], name)
            assert value == (pytest.approx(getattr(whole[level], name), abs=0.3) if measured else None)


def test_canal_cut_by_the_field_of_view_has_no_area():
    labels, affine, _, line = Phantom(("L3", "L4")).rasterise(ISO)
    canal = np.argwhere(labels == CANAL_ID)[:, 1]
    row = rows_of(*cropped(labels, affine, 1, (int(canal.min()) + int(canal.max())) // 2 - 2), line)["L3"]
    assert row.canal_area_mm2 is None
    assert "canal cut" in row.measure_note
    assert row.height_mm == pytest.approx(24.0, abs=0.6)


def test_without_canal_there_is_only_a_volume():
    labels, affine, _, _ = Phantom(("L3", "L4")).rasterise((2.0, 2.0, 2.0))
    rows = rows_of(np.where(np.isin(labels, (CANAL_ID, CORD_ID)), 0, labels).astype(np.uint8), affine)
    assert rows
    assert all(row.height_mm is None and row.volume_mm3 > 0 and row.measure_note for row in rows.values())


def test_source_resolution_decides_what_is_given():
    labels, affine, _, line = Phantom(THREE).rasterise(ISO)
    rows = rows_of(labels, affine, line, image=Volume(labels, np.diag([0.5, 0.5, 5.0, 1.0])))
    assert rows["L4"].height_mm is not None
    assert rows["L4-L5"].height_mm is None
    assert rows["L4-L5"].depth_mm is not None
    assert "too coarse for height" in rows["L4-L5"].as_row()["measure-note"]


def test_nothing_and_tiny_labels():
    tiny = np.zeros((8, 8, 8), np.uint8)
    assert rows_of(tiny, np.eye(4)) == {}
    tiny[4, 6, 4], tiny[4, 2, 1:7] = 20, CANAL_ID
    body, canal = measure(tiny, np.eye(4), components_of(tiny, np.eye(4)), np.zeros((0, 3))).levels
    assert (body.volume_mm3, canal.volume_mm3) == (1.0, 6.0)
    assert body.height_mm is None
    assert body.measure_note


def test_atlas_and_axis_have_no_body_heights():
    labels, affine, _, line = Phantom(("L3", "L4")).rasterise((1.5, 1.5, 1.5))
    names = np.arange(256, dtype=np.uint8)
    names[[20, 19, 204]] = vertebra("C2").id, vertebra("C3").id, disc("C2-C3").id
    rows = rows_of(names[labels], affine, line)
    assert rows["C2"].height_mm is None
    assert "dens" in rows["C2"].measure_note
    assert rows["C2"].canal_area_mm2 is not None
    assert rows["C3"].height_mm is not None


def test_rows_follow_the_dictionary():
    row = LevelMeasures(20, Structure.VERTEBRA, "L3", 12.34, height_mm=20.456, wedge_deg=-0.01).as_row()
    assert list(row) == list(COLUMNS)
    assert row["volume-mm3"] == "12.3"
    assert row["height-mm"] == "20.46"
    assert row["wedge-deg"] == "0.0"
    assert row["partial"] == "false"
    assert row["measure-note"] == "n/a"
    for column in (*COLUMNS.values(), *POSTURE_COLUMNS.values()):
        assert {"LongName", "Description"} <= set(column.describe()) <= {"LongName", "Description", "Units"}
