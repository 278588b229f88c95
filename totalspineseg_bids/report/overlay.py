"""Layers of a figure: the grey image, areas and contours of labels, level names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import BY_ID, CANAL_ID, CORD_ID, Structure
from totalspineseg_bids.imaging.centerline import Points
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.report.reformat import Reformat

LabelSlice = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FILL_ALPHA = 105
_LINE_ALPHA = 255
_PALETTE = np.zeros((256, 3), np.uint8)
for _label in anatomy.LABELS:
    _PALETTE[_label.id] = _label.color


@dataclass(frozen=True, slots=True)
class IntensityWindow:
    """Range of intensities that a figure shows.

    Examples
    --------
    >>> IntensityWindow.from_data(np.arange(1000.0).reshape(10, 10, 10)).high
    994.005
    """

    low: float
    """Intensity shown as black."""
    high: float
    """Intensity shown as white."""

    @classmethod
    def from_data(cls, data: NDArray[np.floating]) -> IntensityWindow:
        """Range from the 1st to the 99.5th percentile of an image (of a regular sample of voxels, for speed)."""
        step = max(1, round((data.size / 500_000) ** (1 / 3)))
        sample = data[::step, ::step, ::step]
        sample = sample[np.isfinite(sample)]
        if sample.size == 0:
            return cls(0.0, 1.0)
        low, high = (float(v) for v in np.percentile(sample, (1.0, 99.5)))
        return cls(low, high if high > low else low + 1.0)

    @classmethod
    def from_labels(cls, volume: Volume, labels: NDArray[np.uint8], affine: Affine) -> IntensityWindow:
        """Choose a range in which the labelled structures have contrast.

        Fat close to a surface coil is far brighter than the spine, and percentiles of the whole image would leave the
        spine dark. The upper end is at most 1.2 times the 99.5th percentile of the labelled voxels.
        """
        whole = cls.from_data(volume.data)
        voxels = np.argwhere(labels)
        if len(voxels) == 0:
            return whole
        points = apply_affine(affine, voxels[:: max(1, len(voxels) // 50_000)])
        at = np.round(volume.geometry.index_of(points)).astype(np.intp)
        at = at[((at >= 0) & (at < np.array(volume.data.shape))).all(axis=-1)]
        values = np.asarray(volume.data[tuple(at.T)], np.float64)
        values = values[np.isfinite(values)]
        if values.size == 0:
            return whole
        high = whole.low + 1.2 * (float(np.percentile(values, 99.5)) - whole.low)
        return cls(whole.low, min(whole.high, high)) if high > whole.low else whole


def sample_image(volume: Volume, view: Reformat, window: IntensityWindow) -> NDArray[np.uint8]:
    """Sample an image on a reformat: linear interpolation, black outside the field of view."""
    at = volume.geometry.index_of(view.points)
    data = np.asarray(volume.data, np.float32)
    values = ndimage.map_coordinates(data, np.moveaxis(at, -1, 0), order=1, mode="nearest", prefilter=False)
    shown = np.clip((np.nan_to_num(values) - window.low) / (window.high - window.low), 0.0, 1.0) * 255.0
    outside = ((at < -0.5) | (at > np.array(data.shape) - 0.5)).any(axis=-1)
    shown[outside] = 0
    grey: NDArray[np.uint8] = np.round(shown).astype(np.uint8)
    return grey


def sample_labels(labels: NDArray[np.uint8], affine: Affine, view: Reformat) -> LabelSlice:
    """Sample a label map on a reformat with smooth borders.

    Each label is interpolated linearly on its own, and a pixel takes the label with the largest share.
    """
    at = Volume(labels, affine).geometry.index_of(view.points)
    nearest = np.round(at).astype(np.intp)
    inside = ((nearest >= 0) & (nearest < np.array(labels.shape))).all(axis=-1)
    coarse = np.zeros(inside.shape, np.uint8)
    coarse[inside] = labels[tuple(nearest[inside].T)]
    pad = int(np.ceil(2 * view.scale))
    best = np.full(coarse.shape, 0.5, np.float32)
    smooth = np.zeros_like(coarse)
    for label_id, box in enumerate(ndimage.find_objects(coarse), start=1):
        if box is None:
            continue
        area = tuple(slice(max(0, s.start - pad), s.stop + pad) for s in box)
        share = _share(labels, at[area], label_id)
        wins = share >= best[area]
        best[area] = np.where(wins, share, best[area])
        smooth[area] = np.where(wins, np.uint8(label_id), smooth[area])
    # Where three labels meet, none may reach half a pixel; there the nearest voxel decides.
    undecided = (smooth == 0) & (coarse > 0) & ndimage.binary_erosion(coarse > 0, iterations=max(1, pad // 2))
    smooth[undecided] = coarse[undecided]
    return smooth


def _share(labels: NDArray[np.uint8], at: Points, label_id: int) -> NDArray[np.float32]:
    low = np.maximum(np.floor(at.reshape(-1, 3).min(axis=0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(at.reshape(-1, 3).max(axis=0)).astype(int) + 2, labels.shape)
    part = labels[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))] == label_id
    share: NDArray[np.float32] = ndimage.map_coordinates(
        part.view(np.uint8), np.moveaxis(at - low, -1, 0), output=np.float32, order=1, mode="constant", prefilter=False
    )
    return share


def draw_areas(picture: LabelSlice) -> Image.Image:
    """Draw the labels as translucent areas (a palette image, which is small as PNG)."""
    image = Image.frombytes("P", (picture.shape[1], picture.shape[0]), picture.tobytes())
    image.putpalette(_PALETTE.tobytes())
    image.info["transparency"] = bytes([0] + [_FILL_ALPHA] * 255)
    return image


def draw_contours(picture: LabelSlice, scale: float) -> Image.Image:
    """Draw the borders of the labels as opaque lines on a transparent background."""
    rgba = np.zeros((*picture.shape, 4), np.uint8)
    reach = 2 if scale >= 2.0 else 1
    cross = np.zeros((2 * reach + 1, 2 * reach + 1), bool)
    cross[reach] = cross[:, reach] = True
    highest, lowest = (of(picture, footprint=cross) for of in (ndimage.maximum_filter, ndimage.minimum_filter))
    edge = (highest != lowest) & (picture > 0)
    rgba[edge, :3] = _PALETTE[picture[edge]]
    rgba[edge, 3] = _LINE_ALPHA
    return Image.fromarray(rgba)


def font(size: float) -> Font:
    """Return Pillow's built-in font, so that figures do not depend on the fonts of the machine."""
    return ImageFont.load_default(size)


@dataclass(slots=True)
class _Name:
    text: str
    x: float
    y: float
    anchor: Literal["lm", "rm"]
    color: tuple[int, int, int]


def draw_level_names(layer: Image.Image, picture: LabelSlice, scale: float, *, sagittal: bool) -> None:
    """Draw the level names beside vertebrae and discs.

    Parameters
    ----------
    layer : Image.Image
        RGBA image of the size of ``picture``; modified in place.
    picture : LabelSlice
        Labels sampled on the reformat.
    scale : float
        Pixels per mm.
    sagittal : bool
        ``True``: vertebrae in front of their bodies, discs behind. ``False`` (coronal): vertebrae to the right of the
        picture, discs to the left.
    """
    names = _names(picture, scale, sagittal=sagittal)
    size = _font_size(names)
    draw = ImageDraw.Draw(layer)
    letters = font(size)
    for side in ("rm", "lm"):
        column = [name for name in names if name.anchor == side]
        _spread(column, size * 1.02, picture.shape[0])
        for name in column:
            width = draw.textlength(name.text, font=letters)
            low, high = (width + 2, picture.shape[1] - 2.0) if side == "rm" else (2.0, picture.shape[1] - width - 2)
            at = (float(np.clip(name.x, low, max(low, high))), name.y)
            draw.text(at, name.text, name.color, letters, name.anchor, stroke_width=2, stroke_fill=(0, 0, 0, 215))


def _names(picture: LabelSlice, scale: float, *, sagittal: bool) -> list[_Name]:
    gap = 5.0
    canal = (picture == CANAL_ID) | (picture == CORD_ID)
    columns = np.arange(picture.shape[1])
    canal_column = _interpolated((canal * columns).sum(axis=1), canal.sum(axis=1))
    # Clear of all labels within 12 mm above and below, so that the names form a smooth column.
    filled = picture > 0
    outer = np.where(filled.any(axis=1), picture.shape[1] - 1 - np.argmax(filled[:, ::-1], axis=1), 0)
    outer = ndimage.maximum_filter1d(outer, max(3, round(24 * scale)))
    inner = np.where(filled.any(axis=1), np.argmax(filled, axis=1), picture.shape[1])
    inner = ndimage.minimum_filter1d(inner, max(3, round(24 * scale)))
    names = []
    for label_id, box in enumerate(ndimage.find_objects(picture), start=1):
        label = BY_ID.get(label_id)
        if box is None or label is None or label.structure in (Structure.CORD, Structure.CANAL):
            continue
        rows, cols = np.nonzero(picture[box] == label_id)
        rows, cols = rows + box[0].start, cols + box[1].start
        if sagittal and canal_column is not None:
            body = cols < canal_column[rows]
            if body.sum() > 0.15 * len(rows):
                rows, cols = rows[body], cols[body]
        if len(rows) < 4 * scale:
            continue
        middle = (
            float((rows.min() + rows.max()) / 2)
            if label.structure is not Structure.SACRUM
            else float(rows.min() + 14 * scale)
        )
        row = int(np.clip(middle, 0, picture.shape[0] - 1))
        color = _readable(label.color)
        is_disc = label.structure is Structure.DISC
        if sagittal and not is_disc:
            near = np.abs(rows - row) <= max(2, 5 * scale)
            edge = float(cols[near].min()) if near.any() else float(cols.min())
            names.append(_Name(label.abbreviation, edge - gap, middle, "rm", color))
        elif sagittal or not is_disc:
            names.append(_Name(label.abbreviation, float(outer[row]) + gap, middle, "lm", color))
        else:
            names.append(_Name(label.abbreviation, float(inner[row]) - gap, middle, "rm", color))
    return names


def _interpolated(total: NDArray[np.int_], count: NDArray[np.int_]) -> Points | None:
    seen = np.flatnonzero(count)
    if len(seen) == 0:
        return None
    return np.interp(np.arange(len(count)), seen, total[seen] / count[seen])


def _readable(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Lighten a colour: thin letters need more contrast than areas."""
    red, green, blue = (round(0.55 * c + 0.45 * 255) for c in color)
    return red, green, blue


def _font_size(names: list[_Name]) -> float:
    heights = sorted(name.y for name in names if name.anchor == "rm") or [0.0]
    steps = np.diff(heights)
    steps = steps[steps > 1]
    return float(np.clip(0.8 * np.percentile(steps, 10), 10.0, 17.0)) if len(steps) else 15.0


def _spread(names: list[_Name], least: float, height: int) -> None:
    """Move names apart vertically until none overlap."""
    names.sort(key=lambda name: name.y)
    floor = least / 2
    for name in names:
        name.y = max(name.y, floor)
        floor = name.y + least
    ceiling = height - least / 2
    for name in reversed(names):
        name.y = min(name.y, ceiling)
        ceiling = name.y - least


def draw_orientation(layer: Image.Image, view: Reformat) -> None:
    """Draw the orientation letters at the borders of a picture and its title in the corner."""
    draw = ImageDraw.Draw(layer)
    letters = font(13)
    width, height = layer.size
    grey = (235, 235, 235)
    for text, x, anchor in ((view.left, 5, "lm"), (view.right, width - 5, "rm")):
        draw.text((x, height - 12), text, grey, letters, anchor, stroke_width=2, stroke_fill=(0, 0, 0, 200))
    if view.title:
        draw.text((6, 6), view.title, (255, 255, 255), font(15), "la", stroke_width=2, stroke_fill=(0, 0, 0, 200))


def composite(grey: NDArray[np.uint8], *layers: Image.Image) -> Image.Image:
    """Blend layers over a grey picture."""
    picture = Image.fromarray(grey).convert("RGBA")
    for layer in layers:
        picture = Image.alpha_composite(picture, layer.convert("RGBA"))
    return picture.convert("RGB")
