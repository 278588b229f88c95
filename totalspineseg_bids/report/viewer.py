"""Image and labels for the viewer of a subject page: two small files that a browser can read without any library.

Both are a mosaic of sagittal slices. The image is a grey JPEG, the labels a grey PNG whose grey values are the
canonical ids; the text field ``viewer`` of the PNG says how the mosaic is laid out. A page carries both inside itself,
so that the viewer works from the file system, where a page may not read the files beside it.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from scipy import ndimage

from totalspineseg_bids.imaging.grid import to_canonical
from totalspineseg_bids.imaging.volume import Affine, Geometry, Volume
from totalspineseg_bids.report.overlay import IntensityWindow

GREY: Final = "viewer-image"
LABELS: Final = "viewer-labels"
_FIELD: Final = "viewer"

#: Voxels at most: enough for a lumbar spine at its own resolution in plane, and about half a megabyte in a page.
MAX_VOXELS = 2_600_000
_FINEST_MM = 0.7
_MARGIN_MM = 28.0
_WIDEST_PX = 8000
_QUALITY = 80


@dataclass(frozen=True, slots=True)
class ViewerFiles:
    """Content of the two files.

    Attributes
    ----------
    grey
        JPEG.
    labels
        PNG.
    """

    grey: bytes
    labels: bytes


def viewer_files(image: Volume, labels: NDArray[np.uint8], affine: Affine, window: IntensityWindow) -> ViewerFiles:
    """Resample an image and its labels for the viewer.

    Parameters
    ----------
    image
        The image, any orientation and voxel size.
    labels, affine
        Label map of canonical ids on any grid, possibly empty, and its affine.
    window
        Intensities shown as black and white.

    Returns
    -------
    ViewerFiles
        Axes are those of the image, reordered to RAS; its bytes depend on the arguments alone.
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
    return ViewerFiles(picture.getvalue(), mask.getvalue())


def read_layout(labels: bytes) -> tuple[dict[str, Any], list[int]] | None:
    """Return how the mosaic of a label file is laid out, and the ids in it.

    Returns
    -------
    tuple or None
        ``shape``, ``step`` (mm), ``columns`` and ``affine``; ``None`` where the file is none of ours.
    """
    try:
        with Image.open(io.BytesIO(labels)) as picture:
            layout = json.loads(str(picture.info[_FIELD]))
            ids = np.flatnonzero(np.bincount(np.asarray(picture.convert("L")).ravel(), minlength=256))
    except (OSError, KeyError, ValueError, SyntaxError):  # Pillow calls a damaged PNG a syntax error
        return None
    if not isinstance(layout, dict) or not {"shape", "step", "columns", "affine"} <= set(layout):
        return None
    return layout, [int(i) for i in ids if i]


def _grid(field: Geometry, labels: NDArray[np.uint8], affine: Affine) -> Geometry:
    """Box around the labels (the whole field without any) in the axes of the image, in voxels that fit the budget."""
    spacing = np.array(field.spacing)
    low, high = np.full(3, -0.5), np.array(field.shape) - 0.5
    voxels = np.argwhere(labels)
    if len(voxels):
        at = np.stack([voxels.min(axis=0), voxels.max(axis=0)])
        corners = np.stack(np.meshgrid(*at.T, indexing="ij"), axis=-1).reshape(-1, 3)
        matrix = np.linalg.inv(field.affine) @ affine
        inside = corners @ matrix[:3, :3].T + matrix[:3, 3]
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
    turned = field.affine.copy()
    turned[:3, :3] = field.affine[:3, :3] * (voxel / spacing)
    first = (low + high) / 2 - (shape - 1) / 2 * voxel / spacing
    turned[:3, 3] = field.affine[:3, :3] @ first + field.affine[:3, 3]
    x, y, z = (int(n) for n in shape)
    return Geometry((x, y, z), turned)


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
    """Slices side by side, so that the mosaic is about square."""
    nx, ny, nz = shape
    return max(1, min(nx, round(math.sqrt(nx * nz / ny)), _WIDEST_PX // ny))


def _mosaic(volume: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Lay sagittal slices out in rows: head up, face to the left, the patient's left first in line."""
    nx, ny, nz = volume.shape
    rows = -(-nx // columns)
    mosaic = np.zeros((rows * nz, columns * ny), np.uint8)
    for x in range(nx):
        row, column = divmod(x, columns)
        mosaic[row * nz : (row + 1) * nz, column * ny : (column + 1) * ny] = volume[x].T[::-1, ::-1]
    return mosaic
