"""Vertebral bodies, discs, canal and cord: blocks between endplates, and tubes behind them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.synthesis.curve import SpinalColumn, Tube
from totalspineseg_bids.synthesis.degeneration import FLAT, Endplate
from totalspineseg_bids.synthesis.rasterize import Canvas, LocalFrame, fill, polyline, rod

#: Labels of tissue around the spine.
TISSUES = tuple(range(11))

SOFT_TISSUE, FAT, ENDPLATE = 1, 9, 10
#: Epidural space while the spine is drawn: bone does not replace it.
EPIDURAL = 255
#: Of the outline of a body and its discs, by region: how much narrower it is in front, and how hollow behind, mm.
_TAPER = {"C": 0.05, "T": 0.13, "L": 0.05, "S": 0.05}
_HOLLOW = {"C": 0.4, "T": 1.8, "L": 1.6, "S": 0.5}


def draw_block(
    canvas: Canvas,
    frame: LocalFrame,
    top: LocalFrame,
    bottom: LocalFrame,
    half: tuple[float, float],
    *,
    label: int,
    waist: float,
    ends: tuple[Endplate, Endplate] | None = None,
    outward: bool = False,
    taper: float = 0.0,
    hollow: float = 0.0,
    power: float = 2.6,
    grow: float = 0.0,
    replace: tuple[int, ...] | None = None,
) -> None:
    """Draw a solid between two endplates.

    Parameters
    ----------
    canvas : Canvas
        Canvas to draw on.
    frame, top, bottom : LocalFrame
        Frames at the middle and at the two ends.
    half : tuple of 2 float
        Half width and half depth at the ends, mm.
    label : int
        Label of the solid.
    waist : float
        Relative narrowing of the middle (0.1 = 10 %); negative values bulge.
    ends : tuple of 2 Endplate, optional
        Shape of the upper and lower surface; flat by default.
    outward : bool
        Whether the surfaces lie outside the end planes, as those of a disc do, and not inside.
    taper : float
        Relative narrowing of the front.
    hollow : float
        Concavity of the back wall, mm.
    power : float
        Exponent of the superellipse.
    grow : float
        Margin added outside both surfaces, mm.
    replace : tuple of int, optional
        Labels that may be replaced, see `rasterize.fill`.
    """
    tall = float(np.linalg.norm(top.origin - bottom.origin)) / 2
    rise = max((end.deepest for end in ends or ()), default=0.0) if outward else 0.0
    reach = np.abs(frame.axes) @ np.array([half[0] * 1.15, half[1] * 1.15, tall + rise + grow + 1.0 + 0.25 * half[1]])
    window = canvas.window(frame.origin - reach, frame.origin + reach)
    if window is None:
        return
    right, front, _ = frame.axes.T
    u, v = window.along(right, frame.origin), window.along(front, frame.origin)
    below_top = -window.along(top.axes[:, 2], top.origin)
    above_bottom = window.along(bottom.axes[:, 2], bottom.origin)
    middle = (above_bottom - below_top) / np.maximum(above_bottom + below_top, 1e-3)
    pinch = 1.0 - np.float32(waist) * (1.0 - np.minimum(np.square(middle), 1.0))
    place = u / np.float32(half[0]), v / np.float32(half[1])
    across = np.abs(place[0])
    if hollow:
        v = np.where(v < 0, v - np.float32(hollow) * np.maximum(1.0 - np.square(across), 0.0), v)
    along = v / np.float32(half[1])
    if taper:
        across = across / (1.0 - np.float32(taper) * along)
    radius = (across**power + np.abs(along) ** power) ** (1.0 / power) / pinch
    inside = radius <= 1.0
    for distance, end in zip((below_top, above_bottom), ends or (FLAT, FLAT), strict=True):
        depth = end.depth(*place, radius)
        inside &= distance >= (-depth if outward else depth) - np.float32(grow)
    fill(window, inside, label, replace)


def draw_foraminal_fat(canvas: Canvas, column: SpinalColumn) -> None:
    """Draw ligaments in front of and behind the bony canal, and the fat of the foramina beside it, before the bones."""
    canal, neck = column.canal, _end_of_neck(column)
    for i in range(0, len(canal.points) - 1, 2):
        j = min(i + 2, len(canal.points) - 1)
        start, end, across = canal.points[i], canal.points[j], canal.across[i]
        (a0, b0), (a1, b1) = canal.radii[i], canal.radii[j]
        for wide, deep, label in ((1.0, 5.0, SOFT_TISSUE), (7.0, 0.0, FAT if start[2] < neck else SOFT_TISSUE)):
            sizes = (a0 + wide, b0 + deep), (a1 + wide, b1 + deep)
            rod(canvas, start, end, *sizes, label, across=across, cap=2.0, replace=TISSUES[2:8])


def draw_tubes(canvas: Canvas, column: SpinalColumn) -> None:
    """Draw epidural space, dural sac and cord; the cord only inside the sac."""
    # Bulging discs narrow both.
    all_but_discs = tuple(np.flatnonzero(anatomy.STRUCTURES != Structure.DISC).tolist())
    _tube(canvas, column.canal, EPIDURAL, all_but_discs)
    _tube(canvas, column.sac, anatomy.CANAL_ID, all_but_discs)
    # In front of the sac lie veins and a ligament; there is fat only below L4.
    sac = column.sac
    upper = sac.points[:, 2] > column.level("L4").bottom.origin[2]
    ahead = sac.points + sac.forward * (0.6 * sac.radii[:, 1:] + 1.5)
    _tube(canvas, replace(sac, points=ahead).part(upper), SOFT_TISSUE, (EPIDURAL,))
    _tube(canvas, column.cord, anatomy.CORD_ID, (anatomy.CANAL_ID,))


def fill_epidural_space(canvas: Canvas, column: SpinalColumn) -> None:
    """Fill the epidural space: fat in trunk and sacrum; in the neck veins and ligaments with little fat."""
    first = int((_end_of_neck(column) - canvas.origin[2]) / canvas.spacing) + 1
    for part, label in ((canvas.labels[:first], FAT), (canvas.labels[first:], SOFT_TISSUE)):
        part[part == EPIDURAL] = label


def _end_of_neck(column: SpinalColumn) -> float:
    """Return the height (mm) below which the epidural space holds fat."""
    return float(column.level("C7").bottom.origin[2])


def _tube(canvas: Canvas, tube: Tube, label: int, replace: tuple[int, ...]) -> None:
    polyline(canvas, tube.points, tube.radii, label, across=tube.across, cap=1.2, replace=replace)


def endplate_thickness(gap: float, factor: float = 1.0) -> float:
    """Return the thickness of an endplate, mm, in a gap between two bodies.

    Manual masks of SPIDER leave 1.3 to 1.5 mm to either side of a lumbar disc, and 0.6 to 1.4 mm in thin discs.

    >>> endplate_thickness(11.0), endplate_thickness(4.0)
    (1.4, 0.88)
    """
    return round(float(np.clip(0.22 * gap, 0.6, 1.4)) * factor, 3)


def draw_discs(
    canvas: Canvas, column: SpinalColumn, names: tuple[str, ...], endplate: float, rng: np.random.Generator
) -> None:
    """Draw all discs, each between two endplates that fill the rest of the gap between the bodies.

    Parameters
    ----------
    canvas : Canvas
        Canvas to draw on; bodies drawn later replace discs where they overlap.
    column : SpinalColumn
        Geometry of the spine.
    names : tuple of str
        Disc levels in craniocaudal order, the first between C2 and C3.
    endplate : float
        Thickness of the endplates relative to `endplate_thickness`.
    rng : numpy.random.Generator
        Draws its variation.
    """
    for i, name in enumerate(names):
        above, below = column.levels[i + 1], column.levels[i + 2]
        shape = column.discs[i]
        middle = column.frame((above.at[1] + below.at[0]) / 2)
        half = (0.945 * (above.width + below.width) / 4, 0.945 * (above.depth + below.depth) / 4)
        thickness = endplate_thickness(below.at[0] - above.at[1], float(rng.normal(endplate, 0.06)))
        shift = (shape.front - shape.back) / 2
        bulging = LocalFrame(middle.at(0.0, shift, 0.0), middle.axes)
        outline = (shape.rim * half[0] + shape.side, shape.rim * half[1] + (shape.front + shape.back) / 2)
        # The endplates overlap the bodies, which replace them, so that no gap is left.
        for frame, size, label, grow in (
            (middle, half, ENDPLATE, 0.7),
            (bulging, outline, anatomy.disc(name).id, -thickness),
        ):
            if label != ENDPLATE and shape.fused:
                continue
            draw_block(
                canvas,
                frame,
                above.bottom,
                below.top,
                size,
                label=label,
                waist=-0.03,
                ends=(above.lower, below.upper),
                outward=True,
                taper=_TAPER[above.region],
                hollow=_HOLLOW[above.region],
                power=2.5,
                grow=grow,
            )
        if shape.fused:
            for bone, top, bottom in ((above, above.bottom, middle), (below, middle, below.top)):
                label = anatomy.vertebra(bone.name).id
                draw_block(
                    canvas, middle, top, bottom, half, label=label, waist=-0.03, grow=0.6, taper=_TAPER[above.region],
                    hollow=_HOLLOW[above.region], replace=TISSUES,
                )  # fmt: skip


def draw_bodies(canvas: Canvas, column: SpinalColumn) -> None:
    """Draw the vertebral bodies C2 to the last lumbar one over tissue and discs."""
    give_way = (*TISSUES, *np.flatnonzero(anatomy.STRUCTURES == Structure.DISC).tolist())
    for level in column.levels:
        if level.region == "S" or level.name == "C1":
            continue
        label = anatomy.vertebra(level.name).id
        draw_block(
            canvas,
            level.frame,
            level.top,
            level.bottom,
            (level.width / 2, level.depth / 2),
            label=label,
            waist={"C": 0.07, "T": 0.10, "L": 0.12}[level.region],
            ends=(level.upper, level.lower),
            taper=_TAPER[level.region],
            hollow=_HOLLOW[level.region],
            replace=give_way,
        )
        if level.region == "C" and level.name != "C2":
            # Uncinate processes: the raised side edges of the upper endplate.
            for side in (-1.0, 1.0):
                w, d, h = level.width / 2, level.depth / 2, level.height / 2
                ends = [level.frame.at(side * w * 0.95, f * d, h * 1.05) for f in (-0.75, 0.45)]
                rod(canvas, ends[0], ends[1], (1.5, 2.6), (1.4, 2.0), label, across=level.frame.axes[:, 0])


def draw_osteophytes(canvas: Canvas, column: SpinalColumn, rng: np.random.Generator) -> None:
    """Draw spurs on the rims of the bodies beside degenerate discs, in front and at the sides."""
    for disc, above, below in zip(column.discs, column.levels[1:], column.levels[2:], strict=False):
        if not disc.osteophytes:
            continue
        for level, rim, toward in ((above, above.bottom, -1.0), (below, below.top, 1.0)):
            if level.region == "S":
                continue
            for angle in np.deg2rad(rng.uniform(-110.0, 110.0, int(rng.integers(1, 5)))):
                across, ahead = float(np.sin(angle)), float(np.cos(angle))
                w, d = level.width / 2, level.depth / 2
                length = disc.osteophytes * float(rng.uniform(0.4, 1.0))
                root = rim.at(0.86 * w * across, 0.86 * d * ahead, -2.0 * toward)
                tip = rim.at((w + length) * across, (d + length) * ahead, toward * float(rng.uniform(-0.5, 1.5)))
                rod(canvas, root, tip, (4.0, 2.4), (2.0, 1.2), anatomy.vertebra(level.name).id, cap=1.0)


def open_facet_joints(canvas: Canvas) -> None:
    """Separate neighbouring vertebrae that touch by cartilage, one voxel thick."""
    bones = np.isin(anatomy.STRUCTURES, (Structure.VERTEBRA, Structure.SACRUM))
    labels = canvas.labels
    for axis in range(3):
        first = [slice(None)] * 3
        second = [slice(None)] * 3
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        one, other = labels[tuple(first)], labels[tuple(second)]
        one[(one != other) & bones[one] & bones[other]] = ENDPLATE
