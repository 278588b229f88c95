"""Figures of one image.

Each view consists of three files of the same size, to be stacked: the grey image, the labels as translucent areas, and
the labels as contours with level names. A page can thus show the image alone, with areas, with contours, or with both.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from totalspineseg_bids.imaging.atomic import write_bytes
from totalspineseg_bids.imaging.centerline import Centerline
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.report import overlay, viewer
from totalspineseg_bids.report.reformat import (
    Reformat,
    axial_reformats,
    coronal_reformat,
    curved_plane,
    plain_axial_reformats,
    sagittal_reformat,
    straight_reformat,
)
from totalspineseg_bids.report.volume import VOLUME, viewer_assets, volume_script

logger = logging.getLogger(__name__)

#: Views of an image in the order of a page; each has layers ``<view>``, ``<view>-fill`` and ``<view>-lines``.
VIEWS: Final = ("sagittal", "coronal", "straight", "axial")
LAYERS: Final = ("", "-fill", "-lines")
THUMBNAIL: Final = "thumbnail"

_HEIGHT_PX = 820
_AXIAL_PX = 220
_THUMBNAIL_PX = 220
_GAP_PX = 6


class _Writer:
    """Write figures to one folder and record kind -> file name."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem
        self.files: dict[str, str] = {}

    def save(self, kind: str, picture: Image.Image) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=6)
        self.save_bytes(kind, ".png", buffer.getvalue())

    def save_bytes(self, kind: str, extension: str, content: bytes) -> None:
        name = f"{self.stem}_{kind}{extension}"
        write_bytes(self.folder / name, content)
        self.files[kind] = name

    def save_layers(self, view: str, grey: NDArray[np.uint8], areas: Image.Image, contours: Image.Image) -> None:
        for layer, picture in zip(LAYERS, (Image.fromarray(grey), areas, contours), strict=True):
            self.save(view + layer, picture)


def write_figures(
    folder: Path,
    stem: str,
    image: Volume,
    labels: NDArray[np.uint8] | None,
    affine: Affine | None,
    *,
    centerline: Centerline | None = None,
    full_resolution: bool = True,
) -> dict[str, str]:
    """Draw an image with its labels.

    Parameters
    ----------
    folder : Path
        Destination; created if missing.
    stem : str
        Start of each file name.
    image : Volume
        Image of any orientation and voxel size.
    labels : (X, Y, Z) uint8 or None
        Canonical ids on any grid, with named or unnamed levels, possibly empty; ``None`` if the image has none.
    affine : (4, 4) float or None
        Voxel index of ``labels`` to RAS, mm.
    centerline : Centerline, optional
        Canal centreline; by default derived from the canal and cord in ``labels``.
    full_resolution : bool
        Write the data of the full-resolution viewer, if that is installed.

    Returns
    -------
    dict
        Kind to file name. The views are ``sagittal`` (curved through canal and vertebral bodies), ``coronal`` (curved
        through the bodies), ``straight`` (straightened along the canal) and ``axial`` (a strip of planes perpendicular
        to the canal), each also with ``-fill`` and ``-lines``; then ``thumbnail``, the two files of the viewer (see
        `viewer`) and the script of the full-resolution viewer (see `volume`). Views that the image does not allow are
        omitted. Files are written atomically, and equal arguments give equal bytes.

    Raises
    ------
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> image = Volume(np.zeros((8, 8, 8), np.float32), np.eye(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_figures(Path(folder), "sub-01_T2w", image, None, None)
    >>> files["sagittal-lines"]
    'sub-01_T2w_sagittal-lines.png'
    """
    writer = _Writer(folder, stem)
    if labels is None or affine is None:
        labels, affine = np.zeros((1, 1, 1), np.uint8), np.eye(4)
    window = overlay.IntensityWindow.from_labels(image, labels, affine)
    plane = curved_plane(labels, affine)
    if plane is not None and centerline is None:
        centerline = Centerline.from_labels(labels, affine)
    reformats: dict[str, Reformat | None] = {
        "sagittal": sagittal_reformat(image.geometry, plane, _HEIGHT_PX),
        "coronal": coronal_reformat(image.geometry, plane, _HEIGHT_PX),
        "straight": straight_reformat(plane, centerline, _HEIGHT_PX) if plane and centerline else None,
    }
    for kind, reformat in reformats.items():
        if reformat is None:
            continue
        grey, ids = overlay.sample_image(image, reformat, window), overlay.sample_labels(labels, affine, reformat)
        areas, contours = overlay.draw_areas(ids), overlay.draw_contours(ids, reformat.scale)
        if kind == "sagittal":
            # Before the names are drawn: they are not readable at this size.
            writer.save(THUMBNAIL, _thumbnail(overlay.composite(grey, areas, contours), ids))
        overlay.draw_level_names(contours, ids, reformat.scale, sagittal=kind != "coronal")
        overlay.draw_orientation(contours, reformat)
        writer.save_layers(kind, grey, areas, contours)
    if plane is not None:
        axial = axial_reformats(labels, affine, plane, centerline, pixels=_AXIAL_PX)
    else:
        axial = plain_axial_reformats(image.geometry, _AXIAL_PX)
    if axial:
        tiles = [(r, overlay.sample_image(image, r, window), overlay.sample_labels(labels, affine, r)) for r in axial]
        writer.save_layers("axial", *_strip(tiles))
    jpeg, png = viewer.viewer_files(image, labels, affine, window)
    writer.save_bytes(viewer.GREY, ".jpg", jpeg)
    writer.save_bytes(viewer.LABELS, ".png", png)
    if full_resolution and viewer_assets():
        writer.save_bytes(VOLUME, ".js", volume_script(stem, image, labels, affine))
    return writer.files


def _thumbnail(picture: Image.Image, ids: NDArray[np.uint8]) -> Image.Image:
    """Crop a sagittal view to the spine, at least half as wide as high, and reduce it."""
    columns = np.flatnonzero(ids.any(axis=0))
    if len(columns):
        margin = max(0.06 * picture.height, (0.5 * picture.height - (columns[-1] - columns[0])) / 2)
        left, right = max(0, round(columns[0] - margin)), min(picture.width, round(columns[-1] + margin) + 1)
        picture = picture.crop((left, 0, right, picture.height))
    width, height = picture.size
    ratio = min(1.0, _THUMBNAIL_PX / max(width, height))
    small = picture.resize((max(1, round(width * ratio)), max(1, round(height * ratio))), Image.Resampling.LANCZOS)
    # A palette image is small, which matters on a page with thousands of thumbnails.
    return small.quantize(96, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _strip(
    tiles: list[tuple[Reformat, NDArray[np.uint8], NDArray[np.uint8]]],
) -> tuple[NDArray[np.uint8], Image.Image, Image.Image]:
    """Arrange axial planes side by side; return the grey image, areas and contours."""
    width = len(tiles) * (_AXIAL_PX + _GAP_PX) - _GAP_PX
    grey = np.zeros((_AXIAL_PX, width), np.uint8)
    ids = np.zeros((_AXIAL_PX, width), np.uint8)
    contours = Image.new("RGBA", (width, _AXIAL_PX))
    for index, (reformat, tile, tile_ids) in enumerate(tiles):
        left = index * (_AXIAL_PX + _GAP_PX)
        grey[:, left : left + _AXIAL_PX] = tile
        ids[:, left : left + _AXIAL_PX] = tile_ids
        tile_contours = overlay.draw_contours(tile_ids, reformat.scale)
        overlay.draw_orientation(tile_contours, reformat)
        contours.paste(tile_contours, (left, 0))
    return grey, overlay.draw_areas(ids), contours
