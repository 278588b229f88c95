import numpy as np
import pytest
from PIL import Image

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure
from totalspineseg_bids.imaging.centerline import Centerline
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.report.figures import LAYERS, THUMBNAIL, VIEWS, write_figures
from totalspineseg_bids.report.overlay import IntensityWindow, sample_labels
from totalspineseg_bids.report.reformat import curved_plane, sagittal_reformat
from totalspineseg_bids.report.viewer import GREY, LABELS
from totalspineseg_bids.report.volume import VOLUME


def digest(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def drawn(spine, tmp_path_factory):
    image, labels, affine, *_ = spine
    folder = tmp_path_factory.mktemp("figures")
    return folder, write_figures(folder, "sub-01_T2w", image, labels, affine)


def test_every_view_has_its_layers_of_one_size(drawn):
    folder, files = drawn
    figures = {view + layer for view in VIEWS for layer in LAYERS}
    assert set(files) - {VOLUME} == {THUMBNAIL, GREY, LABELS, *figures}
    assert {path.name for path in folder.iterdir()} == set(files.values())
    for view in VIEWS:
        sizes = {Image.open(folder / files[view + layer]).size for layer in LAYERS}
        assert len(sizes) == 1
    assert max(Image.open(folder / files[THUMBNAIL]).size) <= 220


def test_colours_are_those_of_the_anatomy(drawn):
    folder, files = drawn
    fill = np.asarray(Image.open(folder / files["sagittal-fill"]).convert("RGBA"))
    shown = {tuple(int(c) for c in color) for color in fill[fill[..., 3] > 0][:, :3]}
    assert {anatomy.vertebra("L4").color, anatomy.disc("L4-L5").color, (255, 225, 60)} <= shown


def test_same_bytes_again(spine, drawn, tmp_path):
    image, labels, affine, *_ = spine
    write_figures(tmp_path, "sub-01_T2w", image, labels, affine)
    assert digest(tmp_path) == digest(drawn[0])


def test_pictures_are_in_proportion(spine):
    image, labels, affine, *_ = spine
    view = sagittal_reformat(image.geometry, curved_plane(labels, affine), 400)
    picture = sample_labels(labels, affine, view)
    rows, columns = np.nonzero(picture == anatomy.vertebra("L4").id)
    canal = np.nonzero(picture[rows.min() : rows.max()] == CANAL_ID)[1].min()
    body = columns < canal
    height = (rows[body].max() - rows[body].min()) / view.scale
    depth = (columns[body].max() - columns[body].min()) / view.scale
    assert height == pytest.approx(24.0, abs=2.5)
    assert depth == pytest.approx(28.0, abs=2.5)


def test_the_curved_view_keeps_a_scoliotic_column_in_view():
    labels = np.zeros((60, 40, 120), np.uint8)
    for z in range(120):
        x = round(30 + 18 * np.sin(z / 20))
        labels[x - 3 : x + 4, 10:16, z] = CANAL_ID
        labels[x - 6 : x + 7, 20:32, z] = anatomy.vertebra("L3").id
    view = sagittal_reformat(Geometry(labels.shape, np.eye(4)), curved_plane(labels, np.eye(4)), 400)
    picture = sample_labels(labels, np.eye(4), view)
    seen = (picture == CANAL_ID).any(axis=1) & (picture == anatomy.vertebra("L3").id).any(axis=1)
    assert seen.mean() > 0.97


def test_unnamed_levels_are_drawn(spine, tmp_path):
    image, labels, affine, *_ = spine
    renamed = labels.copy()
    numbers = {Structure.VERTEBRA: 0, Structure.DISC: 0}
    for label in anatomy.LABELS:
        if label.structure in numbers and (labels == label.id).any():
            numbers[label.structure] += 1
            renamed[labels == label.id] = anatomy.unnamed(label.structure, numbers[label.structure]).id
    files = write_figures(tmp_path, "x", image, renamed, affine)
    assert set(VIEWS) <= set(files)


@pytest.mark.parametrize("what", ["none", "empty", "cord only", "one voxel", "disc only"])
def test_little_or_nothing_labelled(spine, tmp_path, what):
    image, labels, affine, *_ = spine
    few = np.zeros_like(labels)
    if what == "cord only":
        few[labels == CORD_ID] = CORD_ID
    elif what == "one voxel":
        few[5, 5, 5] = anatomy.vertebra("C5").id
    elif what == "disc only":
        few[labels == 203] = 203
    files = write_figures(tmp_path, "x", image, None if what == "none" else few, None if what == "none" else affine)
    assert {"sagittal", "coronal", THUMBNAIL} <= set(files)
    assert all((tmp_path / name).stat().st_size > 50 for name in files.values())


def test_the_spine_is_lit_beside_bright_fat():
    labels, data = np.zeros((20, 20, 20), np.uint8), np.zeros((20, 20, 20), np.float32)
    data[:, :5], data[8:12, 8:12], labels[8:12, 8:12] = 1000.0, 100.0, 20
    image = Volume(data, np.eye(4))
    assert IntensityWindow.from_data(data).high == 1000.0
    assert IntensityWindow.from_labels(image, labels, np.eye(4)).high == pytest.approx(120.0)
    assert IntensityWindow.from_labels(image, np.zeros_like(labels), np.eye(4)) == IntensityWindow.from_data(data)


def test_window_survives_odd_intensities():
    assert IntensityWindow.from_data(np.full((4, 4, 4), np.nan, np.float32)) == IntensityWindow(0.0, 1.0)
    flat = IntensityWindow.from_data(np.full((4, 4, 4), 7.0, np.float32))
    assert flat.high > flat.low
    holes = np.where(np.arange(64) % 7, np.arange(64), np.nan).reshape(4, 4, 4).astype(np.float32)
    assert np.isfinite(IntensityWindow.from_data(holes).high)


def test_a_given_centreline_replaces_the_one_of_the_labels(spine, drawn, tmp_path):
    image, labels, affine, *_ = spine
    shifted = Centerline.from_labels(labels, affine @ np.array([[1, 0, 0, 3], *np.eye(4)[1:]]))
    write_figures(tmp_path, "sub-01_T2w", image, labels, affine, centerline=shifted)
    changed = {name for name, content in digest(tmp_path).items() if content != digest(drawn[0])[name]}
    assert {"sub-01_T2w_straight.png", "sub-01_T2w_axial.png"} <= changed
    assert "sub-01_T2w_sagittal.png" not in changed
