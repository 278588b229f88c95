"""The figures of an image.

Each view is three files of the same size, to be laid over each other: the grey image, the labels as translucent areas
and the labels as contours with the level names. A page can so show the image alone, with areas, with contours or both.
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
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.measurement.centerline import SmoothCenterline
from totalspineseg_bids.report import viewer
from totalspineseg_bids.report.overlay import (
    IntensityWindow,
    composite,
    draw_areas,
    draw_contours,
    draw_level_names,
    draw_orientation,
    sample_image,
    sample_labels,
)
from totalspineseg_bids.report.reformat import (
    Reformat,
    axial_reformats,
    coronal_reformat,
    curved_plane,
    plain_axial_reformats,
    sagittal_reformat,
    straight_reformat,
)
from totalspineseg_bids.report.viewer import viewer_files

logger = logging.getLogger(__name__)

#: Views of an image, in the order of a page; each has layers ``<view>``, ``<view>-fill`` and ``<view>-lines``.
VIEWS: Final = ("sagittal", "coronal", "straight", "axial")
LAYERS: Final = ("", "-fill", "-lines")
THUMBNAIL: Final = "thumbnail"

_HEIGHT_PX = 820
_AXIAL_PX = 220
_THUMBNAIL_PX = 220
_GAP_PX = 6


class _Writer:
    """Writes the layers of views and remembers their names."""

    def __init__(self, folder: Path, stem: str) -> None:
        self.folder, self.stem = folder, stem
        self.files: dict[str, str] = {}

    def save(self, kind: str, picture: Image.Image) -> None:
        name = f"{self.stem}_{kind}.png"
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=6)
        write_bytes(self.folder / name, buffer.getvalue())
        self.files[kind] = name

    def save_bytes(self, kind: str, extension: str, content: bytes) -> None:
        name = f"{self.stem}_{kind}{extension}"
        write_bytes(self.folder / name, content)
        self.files[kind] = name

    def view(self, kind: str, grey: NDArray[np.uint8], fill: Image.Image, lines: Image.Image) -> None:
        for layer, picture in zip(LAYERS, (Image.fromarray(grey), fill, lines), strict=True):
            self.save(kind + layer, picture)


def write_figures(
    folder: Path, stem: str, image: Volume, labels: NDArray[np.uint8] | None, affine: Affine | None
) -> dict[str, str]:
    """Draw an image with its labels.

    Parameters
    ----------
    folder
        Where the files go; made where absent.
    stem
        Start of every file name.
    image
        The image, any orientation and voxel size.
    labels, affine
        Label map of canonical ids on any grid (named or unnamed levels, or empty), and its affine; ``None`` for an
        image that has none.

    Returns
    -------
    dict
        Kind -> file name. Kinds are ``sagittal`` (curved reformation through canal and bodies), ``coronal`` (curved,
        through the bodies), ``straight`` (along the canal), ``axial`` (a strip of planes perpendicular to the canal),
        each also with ``-fill`` and ``-lines``, ``thumbnail``, and the two files of the viewer (`viewer`). Views
        without sense for the image are left out. Files are written atomically, and their bytes depend on the
        arguments alone.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    writer = _Writer(folder, stem)
    if labels is None or affine is None:
        labels, affine = np.zeros((1, 1, 1), np.uint8), np.eye(4)
    field, window = image.geometry, IntensityWindow.near(image, labels, affine)
    plane = curved_plane(labels, affine)
    centerline = SmoothCenterline.from_labels(labels, affine) if plane is not None else None
    views: dict[str, Reformat | None] = {
        "sagittal": sagittal_reformat(field, plane, _HEIGHT_PX),
        "coronal": coronal_reformat(field, plane, _HEIGHT_PX),
        "straight": straight_reformat(plane, centerline, _HEIGHT_PX) if plane and centerline else None,
    }
    for kind, view in views.items():
        if view is None:
            continue
        grey, picture = sample_image(image, view, window), sample_labels(labels, affine, view)
        fill, lines = draw_areas(picture), draw_contours(picture, view.scale)
        if kind == "sagittal":
            _save_thumbnail(writer, grey, picture, fill, lines)
        draw_level_names(lines, picture, view.scale, upright=kind != "coronal")
        draw_orientation(lines, view)
        writer.view(kind, grey, fill, lines)
    if plane is not None:
        axial = axial_reformats(labels, affine, plane, centerline, pixels=_AXIAL_PX)
    else:
        axial = plain_axial_reformats(field, _AXIAL_PX)
    if axial:
        tiles = [(p, sample_image(image, p, window), sample_labels(labels, affine, p)) for p in axial]
        _save_strip(writer, tiles)
    files = viewer_files(image, labels, affine, window)
    writer.save_bytes(viewer.GREY, ".jpg", files.grey)
    writer.save_bytes(viewer.LABELS, ".png", files.labels)
    return writer.files


def _save_thumbnail(
    writer: _Writer, grey: NDArray[np.uint8], labels: NDArray[np.uint8], fill: Image.Image, lines: Image.Image
) -> None:
    picture = composite(grey, fill, lines)
    columns = np.flatnonzero(labels.any(axis=0))
    if len(columns):
        # Little more than the spine, at least half as wide as high.
        margin = max(0.06 * picture.height, (0.5 * picture.height - (columns[-1] - columns[0])) / 2)
        left, right = max(0, round(columns[0] - margin)), min(picture.width, round(columns[-1] + margin) + 1)
        picture = picture.crop((left, 0, right, picture.height))
    width, height = picture.size
    ratio = min(1.0, _THUMBNAIL_PX / max(width, height))
    small = picture.resize((max(1, round(width * ratio)), max(1, round(height * ratio))), Image.Resampling.LANCZOS)
    # A palette keeps thousands of thumbnails small.
    writer.save(THUMBNAIL, small.quantize(96, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE))


def _save_strip(writer: _Writer, tiles: list[tuple[Reformat, NDArray[np.uint8], NDArray[np.uint8]]]) -> None:
    width = len(tiles) * (_AXIAL_PX + _GAP_PX) - _GAP_PX
    grey = np.zeros((_AXIAL_PX, width), np.uint8)
    areas = np.zeros((_AXIAL_PX, width), np.uint8)
    lines = Image.new("RGBA", (width, _AXIAL_PX))
    for index, (view, picture, labels) in enumerate(tiles):
        left = index * (_AXIAL_PX + _GAP_PX)
        grey[:, left : left + _AXIAL_PX] = picture
        areas[:, left : left + _AXIAL_PX] = labels
        contours = draw_contours(labels, view.scale)
        draw_orientation(contours, view)
        lines.paste(contours, (left, 0))
    writer.view("axial", grey, draw_areas(areas), lines)
