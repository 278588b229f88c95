"""Label maps and texts of an image for each tool."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import vertebra
from totalspineseg_bids.exports.body_parts import POSTERIOR_OFFSET, part_values, split_vertebrae
from totalspineseg_bids.exports.markups import make_markups
from totalspineseg_bids.exports.spinal_cord_toolbox import SCT_LEVELS, draw_centerline, label_cord
from totalspineseg_bids.imaging.volume import Geometry
from totalspineseg_bids.segmentation.result import LabelledSpine

#: Kinds of label maps, in names of files.
CORD_LEVELS: Final = "cordlevels"
CENTERLINE: Final = "centerline"
BODY_PARTS: Final = "vertebralparts"
#: Kinds of texts, with their extension.
DISC_POINTS: Final = "discs.mrk.json"
BODY_CENTRES: Final = "vertebrae.mrk.json"


@dataclass(frozen=True, slots=True)
class ExportedMap:
    """Label map for another tool.

    Examples
    --------
    >>> values = ((1, "centerline", "#ffe13c"),)
    >>> ExportedMap("centerline", np.ones((2, 2, 2), np.uint8), values, "Centreline of the cord").kind
    'centerline'
    """

    kind: str
    """``cordlevels``, ``centerline`` or ``vertebralparts``."""
    labels: NDArray[np.uint8]
    """Values, shape (X, Y, Z)."""
    values: tuple[tuple[int, str, str], ...]
    """Value, name and colour of each label in it."""
    description: str
    """Meaning of the map."""


@dataclass(frozen=True, slots=True)
class ExportedText:
    """Text file for another tool.

    Examples
    --------
    >>> ExportedText("discs.mrk.json", "{}").text
    '{}'
    """

    kind: str
    """``discs.mrk.json`` or ``vertebrae.mrk.json``."""
    text: str
    """Content."""


def make_exports(
    tools: Collection[str], spine: LabelledSpine, labels: NDArray[np.uint8], grid: Geometry
) -> Iterator[ExportedMap | ExportedText]:
    """Yield the files of a labelled spine for other tools; those without content are left out.

    Parameters
    ----------
    tools : collection of str
        ``slicer``, ``sct`` and ``parts``; others are ignored.
    spine : LabelledSpine
        Labelled spine.
    labels : (X, Y, Z) uint8
        Its labels on the grid of the files, canonical ids.
    grid : Geometry
        Grid of the files.

    Examples
    --------
    >>> from totalspineseg_bids.anatomy import CANAL_ID, CORD_ID, Structure, vertebra
    >>> from totalspineseg_bids.segmentation.result import Component, SpineStatus
    >>> labels = np.zeros((20, 40, 30), np.uint8)
    >>> labels[4:16, 4:14], labels[8:12, 7:11] = CANAL_ID, CORD_ID
    >>> labels[2:18, 16:36, 5:25] = vertebra("L3").id
    >>> body = Component(vertebra("L3").id, Structure.VERTEBRA, "L3", 1.0, None, None, False, 6400.0, (9.5, 25.5, 14.5))
    >>> spine = LabelledSpine(labels, np.eye(4), (body,), SpineStatus.LABELLED)
    >>> [file.kind for file in make_exports(["sct", "parts"], spine, labels, Geometry(labels.shape, np.eye(4)))]
    ['centerline', 'vertebralparts']
    """
    if "slicer" in tools:
        discs = [(point.level, point.position_mm) for point in spine.disc_points]
        yield ExportedText(DISC_POINTS, make_markups(discs, "Disc levels on the centreline of the spinal canal"))
        yield ExportedText(BODY_CENTRES, _body_markups(spine))
    if "sct" in tools:
        levels = [(number, level, vertebra(level).hex_color) for number, level in enumerate(SCT_LEVELS, start=1)]
        text = "Spinal cord by vertebral level (Spinal Cord Toolbox), cut at the disc points across the centreline"
        yield from _map(CORD_LEVELS, label_cord(spine, labels, grid), levels, text)
        text = "Centreline of the spinal cord, one voxel in each slice across it (Spinal Cord Toolbox)"
        yield from _map(CENTERLINE, draw_centerline(spine, labels, grid), [(1, "centerline", "#ffe13c")], text)
    if "parts" in tools:
        parts = split_vertebrae(spine, labels, grid.affine)
        text = "Vertebral bodies (C1 = 1, ... L6 = 26) and posterior elements (100 more)"
        yield from _map(BODY_PARTS, parts, part_values(), text)


def _map(
    kind: str, labels: NDArray[np.uint8], values: list[tuple[int, str, str]], description: str
) -> Iterator[ExportedMap]:
    present = set(np.unique(labels).tolist()) - {0}
    if present:
        yield ExportedMap(kind, labels, tuple(sorted(row for row in values if row[0] in present)), description)


def _body_markups(spine: LabelledSpine) -> str:
    parts = split_vertebrae(spine, spine.labels, spine.affine)
    bodies = np.where(parts == POSTERIOR_OFFSET + 1, 1, np.where(parts > POSTERIOR_OFFSET, 0, parts))
    values = [value for value in np.unique(bodies) if value]
    centres = apply_affine(spine.affine, np.array(ndimage.center_of_mass(bodies > 0, bodies, values)).reshape(-1, 3))
    names = {value: name.removeprefix("vertebrae_").partition("_body")[0] for value, name, _ in part_values()}
    points = [(names[int(value)], tuple(centre)) for value, centre in zip(values, centres, strict=True)]
    return make_markups(points, "Centres of the vertebral bodies; C1: of the whole vertebra")
