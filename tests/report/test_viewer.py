import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.report.overlay import IntensityWindow
from totalspineseg_bids.report.subject import colour_blind_palette
from totalspineseg_bids.report.viewer import MAX_VOXELS, read_layout, viewer_files


def unpack(content: bytes, layout) -> np.ndarray:
    """The volume in a mosaic, axes right, front, up: what the script of the page does."""
    mosaic = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
    nx, ny, nz = layout["shape"]
    volume = np.zeros((nx, ny, nz), np.uint8)
    for x in range(nx):
        row, column = divmod(x, layout["columns"])
        volume[x] = mosaic[row * nz : (row + 1) * nz, column * ny : (column + 1) * ny][::-1, ::-1].T
    return volume


def placed(layout, index) -> np.ndarray:
    affine = np.array(layout["affine"])
    return np.asarray(index) @ affine[:, :3].T + affine[:, 3]


def test_labels_and_image_lie_where_they_are(spine):
    image, labels, affine, *_ = spine
    jpeg, png = viewer_files(image, labels, affine, IntensityWindow.from_data(image.data))
    layout, ids = read_layout(png)
    assert ids == [int(i) for i in np.unique(labels) if i]
    volume = unpack(png, layout)
    for label in ids:
        there = np.argwhere(labels == label).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
        # The voxels of the image are 4 mm wide.
        assert placed(layout, np.argwhere(volume == label).mean(axis=0)) == pytest.approx(there, abs=1.5)
    grey = unpack(jpeg, layout).astype(float)
    # Each structure has its own grey in the phantom; JPEG and noise blur it a little.
    means = {label: grey[volume == label].mean() for label in (18, 201)}
    assert abs(means[18] - means[201]) > 20


@settings(max_examples=15)
@given(
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    st.tuples(*[st.floats(0.5, 4.0)] * 3),
)
def test_any_orientation_and_voxel_size(axes, signs, spacing):
    data = np.zeros((9, 12, 15), np.float32)
    data[5:8, 6:9, 7:10] = 100.0
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * np.array(signs) * np.array(spacing)
    labels = (data > 0).astype(np.uint8) * 20
    _jpeg, png = viewer_files(Volume(data, affine), labels, affine, IntensityWindow(0.0, 100.0))
    layout, _ = read_layout(png)
    there = np.argwhere(labels).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
    seen = placed(layout, np.argwhere(unpack(png, layout) == 20).mean(axis=0))
    # Half a voxel of the viewer, which has none finer than 0.7 mm.
    assert np.abs(seen - there).max() <= 0.51 * max(0.7, *spacing)


def test_a_large_image_fits_the_budget():
    data = np.zeros((200, 300, 500), np.float16)
    _jpeg, png = viewer_files(Volume(data, np.diag([0.5, 0.5, 0.5, 1.0])), np.zeros((1, 1, 1), np.uint8), np.eye(4),
                         IntensityWindow(0.0, 1.0))  # fmt: skip
    layout, ids = read_layout(png)
    assert ids == []
    assert np.prod(layout["shape"]) <= MAX_VOXELS
    assert np.array(layout["shape"]) * layout["step"] == pytest.approx([100, 150, 250], rel=0.03)


def test_a_foreign_file_has_no_layout(spine):
    picture = io.BytesIO()
    Image.new("L", (4, 4)).save(picture, "PNG")
    for content in (b"", b"nothing", picture.getvalue()):
        assert read_layout(content) is None


def test_safe_colours_part_neighbours():
    safe = colour_blind_palette()
    from totalspineseg_bids import anatomy

    for levels, of in ((anatomy.VERTEBRA_LEVELS, anatomy.vertebra), (anatomy.REGULAR_DISCS, anatomy.disc)):
        colours = [safe[of(level).hex_color] for level in levels]
        assert all(a != b for a, b in itertools.pairwise(colours))
    assert set(safe) == {label.hex_color for label in anatomy.LABELS}
