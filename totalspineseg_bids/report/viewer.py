"""Image and labels for the viewer of a participant's page, as two small files that a browser decodes by itself.

Both are a mosaic of sagittal slices. The image is a grey JPEG. The labels are a grey PNG whose grey values are
canonical ids; its text field ``viewer`` holds the arrangement of the mosaic as JSON. A page embeds both, because a
page opened from disk must not read the pixels of other files.
"""

from __future__ import annotations

import io
import json
import math
from typing import Any, Final

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from scipy import ndimage

from totalspineseg_bids.imaging.grid import to_canonical
from totalspineseg_bids.imaging.volume import Affine, Geometry, Volume
from totalspineseg_bids.report.overlay import IntensityWindow

GREY: Final = "viewer-image"
LABELS: Final = "viewer-labels"
_FIELD: Final = "viewer"

#: Enough for a lumbar spine at its in-plane resolution; about half a megabyte in a page.
MAX_VOXELS = 2_600_000
_FINEST_MM = 0.7
_MARGIN_MM = 28.0
_WIDEST_PX = 8000
_QUALITY = 80


def viewer_files(
    image: Volume, labels: NDArray[np.uint8], affine: Affine, window: IntensityWindow
) -> tuple[bytes, bytes]:
    """Resample an image and its labels for the viewer.

    Parameters
    ----------
    image : Volume
        Image of any orientation and voxel size.
    labels : (X, Y, Z) uint8
        Canonical ids on any grid, possibly empty.
    affine : (4, 4) float
        Voxel index of ``labels`` to RAS, mm.
    window : IntensityWindow
        Range of intensities to show.

    Returns
    -------
    grey, labels : bytes
        JPEG of the image and PNG of the labels, on the axes of the image reordered to RAS. Equal arguments give equal
        bytes.
    """
    canonical = to_canonical(image)
    grid = _grid(canonical.geometry, labels, affine)
    grey = _grey(canonical, grid, window)
    inverse = np.linalg.inv(affine) @ grid.affine
    ids = ndimage.affine_transform(
        labels, inverse[:3, :3], inverse[:3, 3], output_shape=grid.shape, order=0, mode="constant", cval=0
    )
    columns = _columns(grid.shape)
    layout = {
        "shape": list(grid.shape),
        "step": [round(s, 4) for s in grid.spacing],
        "columns": columns,
        "affine": [[round(float(v), 4) for v in row] for row in grid.affine[:3]],
    }
    notes = PngImagePlugin.PngInfo()
    notes.add_text(_FIELD, json.dumps(layout, separators=(",", ":")))
    picture, mask = io.BytesIO(), io.BytesIO()
    Image.fromarray(_mosaic(grey, columns)).save(picture, "JPEG", quality=_QUALITY, optimize=True)
    Image.fromarray(_mosaic(ids.astype(np.uint8), columns)).save(mask, "PNG", pnginfo=notes, compress_level=9)
    return picture.getvalue(), mask.getvalue()


def read_layout(labels: bytes) -> tuple[dict[str, Any], list[int]] | None:
    """Read the arrangement of the mosaic in a label file, and the ids in it.

    Returns
    -------
    tuple or None
        A mapping of ``shape``, ``step`` (mm), ``columns`` and ``affine`` (3 x 4), and the ids; ``None`` if the file is
        damaged or was not written by `viewer_files`.

    Examples
    --------
    >>> read_layout(b"not a picture") is None
    True
    """
    try:
        with Image.open(io.BytesIO(labels)) as picture:
            layout = json.loads(str(picture.info[_FIELD]))
            ids = np.flatnonzero(np.bincount(np.asarray(picture.convert("L")).ravel(), minlength=256))
    except (OSError, KeyError, ValueError, SyntaxError):  # Pillow raises SyntaxError for a damaged PNG
        return None
    if not isinstance(layout, dict) or not {"shape", "step", "columns", "affine"} <= set(layout):
        return None
    return layout, [int(i) for i in ids if i]


def _grid(field: Geometry, labels: NDArray[np.uint8], affine: Affine) -> Geometry:
    """Return a grid on the axes of the image around the labels (or the whole image), of at most `MAX_VOXELS`."""
    spacing = np.array(field.spacing)
    low, high = np.full(3, -0.5), np.array(field.shape) - 0.5
    voxels = np.argwhere(labels)
    if len(voxels):
        at = np.stack([voxels.min(axis=0), voxels.max(axis=0)])
        corners = np.stack(np.meshgrid(*at.T, indexing="ij"), axis=-1).reshape(-1, 3)
        matrix = np.linalg.inv(field.affine) @ affine
        inside = apply_affine(matrix, corners)
        margin = _MARGIN_MM / spacing
        near, far = np.maximum(low, inside.min(axis=0) - margin), np.minimum(high, inside.max(axis=0) + margin)
        if (far - near > 1).all():
            low, high = near, far
    size = (high - low) * spacing
    step = _FINEST_MM
    while math.prod(size / np.maximum(spacing, step)) > MAX_VOXELS:
        step *= 1.05
    voxel = np.maximum(spacing, step)
    shape = np.maximum(1, np.floor(size / voxel + 1e-6)).astype(int)
    affine_out = field.affine.copy()
    affine_out[:3, :3] = field.affine[:3, :3] * (voxel / spacing)
    first = (low + high) / 2 - (shape - 1) / 2 * voxel / spacing
    affine_out[:3, 3] = apply_affine(field.affine, first)
    x, y, z = (int(n) for n in shape)
    return Geometry((x, y, z), affine_out)


def _grey(image: Volume, grid: Geometry, window: IntensityWindow) -> NDArray[np.uint8]:
    data = np.nan_to_num(np.asarray(image.data, np.float32))
    ratio = np.array(grid.spacing) / np.array(image.spacing)
    for axis in range(3):
        if ratio[axis] > 1.2:
            data = ndimage.gaussian_filter1d(data, 0.4 * float(ratio[axis]), axis=axis, mode="nearest")
    matrix = np.linalg.inv(image.affine) @ grid.affine
    values = ndimage.affine_transform(
        data, np.diag(matrix)[:3], matrix[:3, 3], output_shape=grid.shape, order=1, mode="nearest", prefilter=False
    )
    shown = np.clip((values - window.low) / (window.high - window.low), 0.0, 1.0)
    grey: NDArray[np.uint8] = np.round(shown * 255.0).astype(np.uint8)
    return grey


def _columns(shape: tuple[int, int, int]) -> int:
    """Return the number of slices per row that makes the mosaic about square."""
    nx, ny, nz = shape
    return max(1, min(nx, round(math.sqrt(nx * nz / ny)), _WIDEST_PX // ny))


def _mosaic(volume: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Arrange sagittal slices in rows, from the patient's left to right; cranial is up, anterior on the left."""
    nx, ny, nz = volume.shape
    rows = -(-nx // columns)
    mosaic = np.zeros((rows * nz, columns * ny), np.uint8)
    for x in range(nx):
        row, column = divmod(x, columns)
        mosaic[row * nz : (row + 1) * nz, column * ny : (column + 1) * ny] = volume[x].T[::-1, ::-1]
    return mosaic
