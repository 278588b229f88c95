"""Whole synthetic spines as tissue label maps."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis import bodies
from totalspineseg_bids.synthesis.arches import draw_posterior
from totalspineseg_bids.synthesis.body import draw_body, draw_septa
from totalspineseg_bids.synthesis.curve import SpinalColumn, SpineParameters, build_column
from totalspineseg_bids.synthesis.rasterize import FIRST_SPINE_LABEL, Canvas
from totalspineseg_bids.synthesis.sacrum_and_atlas import draw_atlas_and_axis, draw_sacrum

__all__ = ["SpineParameters", "make_spine"]


def _canvas(column: SpinalColumn, scale: float, fat: float, spacing: float) -> Canvas:
    line = column.points
    tops = column.level("C1").frame.origin
    half = 86.0 * scale
    middle = float(line[:, 0].mean())
    back = min(float(column.canal.points[:, 1].min()) - 60.0 * scale, float(line[:, 1].min()) - 66.0 * scale)
    low = np.array([middle - half, back - 1.3 * fat - 4.0, float(line[:, 2].min()) - 22.0 * scale])
    high = np.array([middle + half, low[1] + 252.0 * scale, float(tops[2]) + 74.0 * scale])
    return Canvas.empty(low, high, spacing)


def make_spine(
    rng: np.random.Generator,
    *,
    variant: SpineVariant = SpineVariant(),  # noqa: B008 - frozen
    spacing: float = 1.0,
    parameters: SpineParameters | None = None,
) -> Volume:
    """Generate the tissue label map of the trunk of one synthetic subject.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness; equal states give equal maps.
    variant : SpineVariant
        Numbers of thoracic and lumbar vertebrae.
    spacing : float
        Isotropic voxel size, mm.
    parameters : SpineParameters, optional
        Parameters of the subject; drawn by default.

    Returns
    -------
    Volume
        uint8, RAS, skull base to below the coccyx, about 170 mm wide and 250 mm deep around the column.
        Canonical ids of `anatomy` for the spine (cord and canal do not overlap); 1 other soft tissue,
        2 muscle, 3 other bone, 4 lung, 5 airway or bowel gas, 6 heart and great vessels, 7 abdominal
        organs, 8 brain and brain stem, 9 subcutaneous and epidural fat, 10 vertebral endplates, 0 outside the body.

    Examples
    --------
    >>> spine = make_spine(np.random.default_rng(0), spacing=6.0)
    >>> spine.spacing, bool((spine.data == anatomy.CANAL_ID).any())
    ((6.0, 6.0, 6.0), True)
    """
    drawn = SpineParameters.sample(rng)
    p = drawn if parameters is None else parameters
    column = build_column(rng, variant, p)
    canvas = _canvas(column, p.scale, p.fat, spacing)
    profile = draw_body(canvas, column, p, rng)
    bodies.draw_foraminal_fat(canvas, column)
    bodies.draw_discs(canvas, column, variant.discs(), p.endplate, rng)
    bodies.draw_bodies(canvas, column)
    bodies.draw_osteophytes(canvas, column, rng)
    draw_sacrum(canvas, column, p.scale)
    bodies.draw_tubes(canvas, column)
    draw_atlas_and_axis(canvas, column, p.scale)
    draw_posterior(canvas, column, p.scale, rng)
    bodies.open_facet_joints(canvas)
    bodies.fill_epidural_space(canvas, column)
    draw_septa(canvas, profile, p, rng)
    _clear_beyond(canvas, column)
    _join_islands(canvas)
    return canvas.to_volume()


def _clear_beyond(canvas: Canvas, column: SpinalColumn) -> None:
    """Replace cord and canal above the foramen magnum, where the curve begins, by brain stem."""
    top = float(column.canal.points[0, 2])
    first = int((top - canvas.origin[2]) / canvas.spacing) + 1
    part = canvas.labels[first:]
    np.copyto(part, np.uint8(8), where=(part == anatomy.CORD_ID) | (part == anatomy.CANAL_ID))


def _join_islands(canvas: Canvas) -> None:
    """Relabel small fragments of vertebrae and discs as their surroundings, so that each structure is connected."""
    labels = canvas.labels
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None or label < FIRST_SPINE_LABEL or label in {anatomy.CORD_ID, anatomy.CANAL_ID}:
            continue
        part = labels[tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)]
        pieces, count = ndimage.label(part == label)
        if count < 2:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        keep = int(sizes.argmax())
        for piece, place in enumerate(ndimage.find_objects(pieces), start=1):
            if piece == keep or place is None:
                continue
            near = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in place)
            speck = pieces[near] == piece
            around = part[near][ndimage.binary_dilation(speck) & ~speck]
            part[near][speck] = np.bincount(around).argmax()
