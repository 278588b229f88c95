"""Bones and discs of the column, painted level by level.

A vertebra is a waisted block between two curved endplates with rods for pedicles, laminae and processes.
Directions and lengths by level follow textbook anatomy. Local coordinates are (right, anterior, up) from
the centre of the body, mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.synthesis.canvas import Canvas, Frame, Vector, paint, polyline, rod
from totalspineseg_bids.synthesis.curve import Column, Level, Tube

_TISSUE = tuple(range(10))
SOFT_TISSUE = 1


@dataclass(frozen=True, slots=True)
class _Shape:
    """Posterior elements of a regular level, mm (half sizes for thicknesses)."""

    pedicle: tuple[float, float]  # half width, half height
    lamina: tuple[float, float]  # half thickness, half height
    spinous: tuple[float, float, float, float]  # length, degrees downward, half height at root and at tip
    spinous_width: float
    transverse: tuple[float, float, float]  # tip: lateral, backward from the canal's centre, upward
    transverse_radius: tuple[float, float]
    facet: tuple[float, float, float]  # lateral distance of upper and of lower facet, radius


_SHAPES: dict[str, _Shape] = {
    "C2": _Shape((3.2, 3.6), (2.6, 5.6), (16, 24, 5.2, 4.6), 3.4, (25, -6, -3), (3.0, 3.2), (18, 18, 5.2)),
    "C3": _Shape((2.6, 3.4), (2.1, 5.0), (16, 24, 3.6, 3.2), 2.6, (26, -9, -2), (3.2, 3.6), (19.5, 19.5, 5.6)),
    "C4": _Shape((2.6, 3.4), (2.1, 5.0), (16, 24, 3.6, 3.2), 2.6, (27, -9, -2), (3.2, 3.6), (20, 20, 5.6)),
    "C5": _Shape((2.7, 3.4), (2.1, 5.2), (18, 26, 3.8, 3.3), 2.6, (28, -9, -2), (3.2, 3.6), (20.5, 20.5, 5.7)),
    "C6": _Shape((2.9, 3.6), (2.2, 5.5), (23, 26, 4.2, 3.6), 2.8, (29, -8, -2), (3.4, 3.8), (20.5, 20.5, 5.8)),
    "C7": _Shape((3.4, 3.8), (2.6, 6.5), (32, 24, 5.0, 4.4), 3.2, (32, -2, 0), (3.6, 4.2), (19, 18, 5.5)),
    "T1": _Shape((4.0, 4.6), (3.0, 7.5), (34, 30, 5.4, 4.6), 3.3, (37, 7, 2), (3.9, 4.4), (17, 14, 5.0)),
    "T2": _Shape((3.2, 5.4), (3.1, 8.2), (33, 38, 5.2, 4.2), 3.2, (34, 11, 2), (3.9, 4.4), (14, 12, 4.6)),
    "T3": _Shape((2.5, 5.6), (3.1, 8.6), (34, 46, 5.0, 4.0), 3.0, (32, 14, 3), (3.9, 4.4), (13, 11, 4.4)),
    "T4": _Shape((2.3, 5.6), (3.1, 8.8), (36, 52, 4.8, 3.6), 3.0, (31, 16, 3), (3.9, 4.4), (12.5, 10.5, 4.4)),
    "T5": _Shape((2.3, 5.7), (3.1, 9.0), (39, 57, 4.8, 3.4), 3.0, (30, 18, 3), (3.9, 4.4), (12.5, 10.5, 4.4)),
    "T6": _Shape((2.5, 5.8), (3.1, 9.2), (41, 60, 4.8, 3.4), 3.0, (30, 19, 3), (4.0, 4.5), (12.5, 10.5, 4.4)),
    "T7": _Shape((2.6, 5.9), (3.1, 9.4), (42, 60, 4.8, 3.4), 3.0, (29.5, 20, 3), (4.0, 4.5), (12.5, 10.5, 4.5)),
    "T8": _Shape((2.8, 6.2), (3.2, 9.6), (40, 57, 5.0, 3.6), 3.0, (29, 20, 3), (4.0, 4.5), (12.5, 10.5, 4.5)),
    "T9": _Shape((3.2, 6.8), (3.2, 10.0), (36, 50, 5.4, 4.2), 3.0, (28, 19, 3), (4.0, 4.6), (13, 11, 4.6)),
    "T10": _Shape((3.6, 7.4), (3.3, 10.4), (32, 42, 6.0, 5.0), 3.1, (25, 18, 3), (4.0, 4.6), (13, 11, 4.7)),
    "T11": _Shape((4.0, 8.2), (3.4, 10.8), (29, 32, 6.8, 6.2), 3.2, (21, 15, 2), (4.2, 5.0), (13, 11, 4.8)),
    "T12": _Shape((4.0, 8.0), (3.5, 11.0), (29, 22, 8.0, 7.5), 3.3, (20, 12, 2), (4.4, 5.4), (14, 11.5, 5.0)),
    "L1": _Shape((3.9, 7.6), (3.5, 10.5), (31, 14, 9.2, 9.4), 3.3, (35, 5, 2), (3.3, 4.8), (16, 12, 5.4)),
    "L2": _Shape((4.2, 7.4), (3.6, 10.5), (32, 12, 9.8, 10.2), 3.5, (40, 4, 2), (3.3, 4.8), (17, 12.5, 5.6)),
    "L3": _Shape((4.9, 7.2), (3.7, 10.0), (32, 12, 10.0, 10.6), 3.6, (45, 3, 2), (3.4, 4.8), (18, 13.5, 5.8)),
    "L4": _Shape((6.0, 7.1), (3.8, 9.5), (29, 12, 9.4, 9.6), 3.6, (43, 2, 3), (3.8, 5.0), (20, 15.5, 6.0)),
    "L5": _Shape((8.4, 7.2), (3.8, 8.5), (22, 16, 7.4, 6.2), 3.6, (45, 0, 4), (5.6, 6.2), (22.5, 19, 6.4)),
}


def _block(
    canvas: Canvas,
    frame: Frame,
    top: Frame,
    bottom: Frame,
    half: tuple[float, float],
    label: int,
    *,
    waist: float,
    dome: tuple[float, float],
    taper: float = 0.0,
    hollow: float = 0.0,
    power: float = 2.6,
    grow: float = 0.0,
    replace: tuple[int, ...] | None = None,
) -> None:
    """Paint what lies between two endplates.

    Parameters
    ----------
    canvas, frame, top, bottom
        Canvas, and frames at the middle and at the two ends.
    half
        Half width and half depth at the ends, mm.
    label
        Label to paint.
    waist
        How much narrower the middle is (0.1 = 10 %); negative bulges.
    dome
        How far the middle of the upper and lower surface lies inside the end planes, mm.
    taper
        How much narrower the front is than the back.
    hollow
        Concavity of the back wall, mm.
    power
        Exponent of the superellipse.
    grow
        Added outside both surfaces, mm.
    replace
        Labels that give way, see `paint`.
    """
    tall = float(np.linalg.norm(top.origin - bottom.origin)) / 2
    reach = np.abs(frame.axes) @ np.array([half[0] * 1.15, half[1] * 1.15, tall + grow + 1.0 + 0.25 * half[1]])
    window = canvas.window(frame.origin - reach, frame.origin + reach)
    if window is None:
        return
    right, front, up = frame.axes.T
    u, v = window.along(right, frame.origin), window.along(front, frame.origin)
    below_top = -window.along(top.axes[:, 2], top.origin)
    above_bottom = window.along(bottom.axes[:, 2], bottom.origin)
    middle = (above_bottom - below_top) / np.maximum(above_bottom + below_top, 1e-3)
    pinch = 1.0 - np.float32(waist) * (1.0 - np.minimum(np.square(middle), 1.0))
    across = np.abs(u) / np.float32(half[0])
    if hollow:
        v = np.where(v < 0, v - np.float32(hollow) * np.maximum(1.0 - np.square(across), 0.0), v)
    along = v / np.float32(half[1])
    if taper:
        across = across / (1.0 - np.float32(taper) * along)
    radius = (across**power + np.abs(along) ** power) ** (1.0 / power) / pinch
    cup = np.maximum(1.0 - np.square(radius), 0.0)
    inside = radius <= 1.0
    inside &= below_top >= dome[0] * cup - grow
    inside &= above_bottom >= dome[1] * cup - grow
    paint(window, inside, label, replace)


def paint_epidural_fat(canvas: Canvas, canal: Tube) -> None:
    """Paint the fat around the dural sac and in the foramina, before the bones that leave only those."""
    for i in range(0, len(canal.points) - 1, 2):
        j = min(i + 2, len(canal.points) - 1)
        (a0, b0), (a1, b1) = canal.radii[i], canal.radii[j]
        rod(
            canvas, canal.points[i], canal.points[j], (a0 + 7.0, b0 + 5.0), (a1 + 7.0, b1 + 5.0), SOFT_TISSUE,
            across=canal.across[i], cap=2.0, replace=_TISSUE[2:8],
        )  # fmt: skip


def paint_tubes(canvas: Canvas, canal: Tube, cord: Tube) -> None:
    """Paint canal and cord; the cord only inside the canal."""
    everything = tuple(range(256))
    polyline_tube(canvas, canal, anatomy.CANAL_ID, everything)
    polyline_tube(canvas, cord, anatomy.CORD_ID, (anatomy.CANAL_ID,))


def polyline_tube(canvas: Canvas, tube: Tube, label: int, replace: tuple[int, ...]) -> None:
    """Paint a tube from its points, half axes and left-right directions."""
    for i in range(len(tube.points) - 1):
        (a0, b0), (a1, b1) = tube.radii[i], tube.radii[i + 1]
        rod(
            canvas, tube.points[i], tube.points[i + 1], (a0, b0), (a1, b1), label,
            across=tube.across[i], cap=1.2, replace=replace,
        )  # fmt: skip


def _dome(level: Level) -> tuple[float, float]:
    share = {"C": 0.05, "T": 0.07, "L": 0.085, "S": 0.0}[level.region]
    upper = 0.02 if level.name in {"C2"} else share
    return upper * level.height, share * 1.15 * level.height


def paint_discs(canvas: Canvas, column: Column, names: tuple[str, ...], rng: np.random.Generator) -> None:
    """Paint every disc between the endplates of its neighbours, a little into them so that no gap stays.

    Parameters
    ----------
    canvas
        Canvas to paint on; bodies painted later win where both claim a voxel.
    column
        The spine.
    names
        Disc levels in craniocaudal order, the first between C2 and C3.
    rng
        Draws rim bulges.
    """
    for i, name in enumerate(names):
        above, below = column.levels[i + 1], column.levels[i + 2]
        middle = column.frame((above.at[1] + below.at[0]) / 2)
        rim = float(np.clip(rng.normal(1.0, 0.025), 0.94, 1.07))
        half = (rim * (above.width + below.width) / 4 * 0.99, rim * (above.depth + below.depth) / 4 * 0.99)
        cup = (-_dome(above)[1] - 0.2, -_dome(below)[0] - 0.2)
        _block(
            canvas, middle, above.bottom, below.top, half, anatomy.disc(name).id,
            waist=-0.03, dome=cup, taper=_taper(above), hollow=_hollow(above), power=2.5, grow=0.5,
        )  # fmt: skip


def _taper(level: Level) -> float:
    return {"C": 0.05, "T": 0.13, "L": 0.05, "S": 0.05}[level.region]


def _hollow(level: Level) -> float:
    return {"C": 0.4, "T": 1.8, "L": 1.6, "S": 0.5}[level.region]


def paint_bodies(canvas: Canvas, column: Column) -> None:
    """Paint the vertebral bodies C2 to the last lumbar one over tissue and discs."""
    give_way = (*_TISSUE, *(label.id for label in anatomy.LABELS if label.structure is anatomy.Structure.DISC))
    for level in column.levels:
        if level.region == "S" or level.name == "C1":
            continue
        label = anatomy.vertebra(level.name).id
        _block(
            canvas, level.frame, level.top, level.bottom, (level.width / 2, level.depth / 2), label,
            waist={"C": 0.07, "T": 0.10, "L": 0.12}[level.region], dome=_dome(level), taper=_taper(level),
            hollow=_hollow(level), replace=give_way,
        )  # fmt: skip
        if level.region == "C" and level.name != "C2":
            # Uncinate processes: the raised side edges of the upper endplate.
            for side in (-1.0, 1.0):
                w, d, h = level.width / 2, level.depth / 2, level.height / 2
                ends = [level.frame.at(side * w * 0.95, f * d, h * 1.05) for f in (-0.75, 0.45)]
                rod(canvas, ends[0], ends[1], (1.5, 2.6), (1.4, 2.0), label, across=level.frame.axes[:, 0])


def paint_posterior(canvas: Canvas, column: Column, scale: float, rng: np.random.Generator) -> None:
    """Paint pedicles, laminae and processes of C2 to the last lumbar vertebra around the canal."""
    for level in column.levels:
        if level.region != "S" and level.name != "C1":
            _arch(canvas, level, scale, rng)


def _arch(canvas: Canvas, level: Level, scale: float, rng: np.random.Generator) -> None:
    shape, label, frame = _SHAPES[level.kin], anatomy.vertebra(level.name).id, level.frame
    right, front, up = frame.axes.T
    depth, height = level.depth / 2, level.height
    width, ap = level.canal
    center = -(depth + 0.8 * scale + ap)  # of the canal
    pw, ph = (scale * v for v in shape.pedicle)
    thick, tall = (scale * v for v in shape.lamina)
    neck = level.region == "C"
    lift = 0.0 if neck else 0.14 * height
    wobble = rng.normal(0.0, 1.0, 6)
    for side in (-1.0, 1.0):
        root = frame.at(side * min(level.width * 0.42, width + pw), -0.72 * depth, lift)
        hinge = frame.at(side * (width + pw + (1.5 * scale if neck else 0.4)), center + 0.25 * ap, lift)
        rod(canvas, root, hinge, (pw, ph), (pw, ph), label, across=right)
        # Lamina: around the canal from the hinge to the root of the spinous process.
        angles = np.deg2rad([8.0, 35.0, 62.0, 90.0])
        drop = np.array([0.02, -0.10, -0.18, -0.24]) * height
        path = np.array([
            frame.at(side * (width + thick) * np.cos(a), center - (ap + thick + 0.8) * np.sin(a), d)
            for a, d in zip(angles, drop, strict=True)
        ])  # fmt: skip
        radii = np.array([[thick, 0.8 * tall], [thick, tall], [thick, tall], [thick, 0.85 * tall]])
        for i in range(3):
            outward = path[i] + path[i + 1] - 2 * frame.at(0.0, center, 0.0)
            polyline(canvas, path[i : i + 2], radii[i : i + 2], label, across=outward, cap=thick)
        _side_processes(canvas, level, shape, scale, side, center, wobble)
    _spinous(canvas, level, shape, scale, center - ap - thick, wobble)


def _side_processes(
    canvas: Canvas, level: Level, shape: _Shape, scale: float, side: float, center: float, wobble: NDArray[np.float64]
) -> None:
    """Transverse and articular processes of one side."""
    label, frame, height, (width, ap) = anatomy.vertebra(level.name).id, level.frame, level.height, level.canal
    right, front, up = frame.axes.T
    lateral, backward, upward = (scale * v for v in shape.transverse)
    tip = frame.at(side * (lateral * (1 + 0.04 * wobble[0])), center - backward, upward + wobble[1])
    a, b = (scale * v for v in shape.transverse_radius)
    upper, lower, radius = (scale * v for v in shape.facet)
    if level.region == "C":
        # Articular pillar: one slanting column; the transverse process lies in front of it.
        at = max(upper, width + radius * 0.95)
        rod(
            canvas, frame.at(side * at, center + 0.55 * ap, 0.62 * height), frame.at(side * at, center - 0.2 * ap, -0.66 * height),
            (radius, 0.95 * radius), (radius, 0.9 * radius), label, across=right, cap=0.6 * radius,
        )  # fmt: skip
        rod(canvas, frame.at(side * level.width * 0.42, 0.0, 0.0), tip, (a, 0.8 * b), (0.8 * a, 0.8 * b), label, across=front)
        rod(canvas, frame.at(side * at, center + 0.6 * ap, 0.0), tip, (a, b), (0.8 * a, 0.8 * b), label, across=front)
        return
    root = frame.at(side * (width + 3.0 * scale), center - 0.1 * ap, 0.12 * height)
    rod(canvas, root, tip, (a, b * 1.15), (a * 0.95, b * 0.9), label, across=front)
    upper, lower = max(upper, width + 0.75 * radius), max(lower, 0.92 * width)
    if level.region == "T":
        up_front, up_back, down_back = center - 0.45 * ap, center - 0.55 * ap, center - ap - radius * 0.9
        rod(
            canvas, frame.at(side * upper, up_back, 0.1 * height), frame.at(side * upper, up_front - 0.4 * ap, 0.72 * height),
            (radius, 0.55 * radius), (0.9 * radius, 0.5 * radius), label, across=right,
        )  # fmt: skip
        rod(
            canvas, frame.at(side * lower, down_back, -0.1 * height), frame.at(side * lower, down_back - 0.8, -0.66 * height),
            (radius, 0.6 * radius), (0.85 * radius, 0.5 * radius), label, across=right,
        )  # fmt: skip
        return
    # Lumbar: the upper facets embrace the lower ones of the vertebra above from outside.
    rod(
        canvas, frame.at(side * upper, center - 0.35 * ap, 0.1 * height), frame.at(side * (upper + 0.5), center - 0.75 * ap, 0.66 * height),
        (0.72 * radius, radius), (0.66 * radius, 1.1 * radius), label, across=right,
    )  # fmt: skip
    rod(
        canvas, frame.at(side * 0.9 * lower, center - ap - 1.0, -0.2 * height), frame.at(side * lower, center - 0.95 * ap - 1.5, -0.86 * height),
        (0.75 * radius, 0.9 * radius), (0.7 * radius, 0.95 * radius), label, across=right,
    )  # fmt: skip


def _spinous(
    canvas: Canvas, level: Level, shape: _Shape, scale: float, root: float, wobble: NDArray[np.float64]
) -> None:
    """Spinous process, from the meeting of the laminae backward and down."""
    label, frame, height = anatomy.vertebra(level.name).id, level.frame, level.height
    length, angle, at_root, at_tip = shape.spinous
    length *= scale * (1 + 0.07 * wobble[2])
    slope = np.deg2rad(angle + 3.0 * wobble[3])
    half = scale * shape.spinous_width
    start = np.array([0.0, root, -0.24 * height])
    end = start + length * np.array([0.03 * wobble[4], -np.cos(slope), -np.sin(slope)])
    begin, tip = frame.at(*start), frame.at(*end)
    rod(
        canvas, begin, tip, (half, scale * at_root), (0.9 * half, scale * at_tip), label,
        across=frame.axes[:, 0], cap=2.5 * scale,
    )  # fmt: skip
    if level.name in {"C2", "C3", "C4", "C5", "C6"}:
        for side in (-1.0, 1.0):
            fork = frame.at(end[0] + side * 4.5 * scale, end[1] - 2.5 * scale, end[2] - 2.0 * scale)
            rod(canvas, tip, fork, (2.2 * scale, 2.6 * scale), (1.8 * scale, 2.2 * scale), label)


def paint_atlas_and_axis(canvas: Canvas, column: Column, scale: float) -> None:
    """Paint the dens on C2, and C1 as a ring around dens and canal."""
    axis, atlas = column.level("C2"), column.level("C1")
    label = anatomy.vertebra("C2").id
    peak = atlas.frame.at(0.0, 0.5 * scale, 0.45 * atlas.height)
    base = axis.top.origin - axis.frame.axes[:, 2] * 4.0
    r = scale * np.array([[6.0, 5.6], [4.9, 4.8], [5.0, 4.9]])
    polyline(canvas, np.array([base, (2 * base + peak) / 3, peak]), r, label, across=axis.frame.axes[:, 0])
    frame, (width, ap) = axis.frame, axis.canal
    for side in (-1.0, 1.0):  # upper articular masses of the axis
        rod(
            canvas, frame.at(side * 8 * scale, -2 * scale, 0.26 * axis.height), frame.at(side * 15 * scale, -2.5 * scale, 0.36 * axis.height),
            (5.6 * scale, 3.4 * scale), (5.4 * scale, 3.0 * scale), label, across=frame.axes[:, 1],
        )  # fmt: skip
    label, frame, (width, ap) = anatomy.vertebra("C1").id, atlas.frame, atlas.canal
    center = -(8.8 * scale + ap)
    for side in (-1.0, 1.0):
        mass = side * max(17.0 * scale, width + 4.5 * scale)
        rod(
            canvas, frame.at(mass, -2.5 * scale, 0.55 * atlas.height), frame.at(mass, -2.0 * scale, -0.6 * atlas.height),
            (6.4 * scale, 8.6 * scale), (6.8 * scale, 8.0 * scale), label, across=frame.axes[:, 0], cap=1.8 * scale,
        )  # fmt: skip
        front = np.array([frame.at(mass, 3.0 * scale, 0), frame.at(0.55 * mass, 7.6 * scale, 0), frame.at(0, 9.2 * scale, 0)])
        sizes = scale * np.array([[2.6, 4.6], [2.5, 4.8], [2.9, 5.6]])
        polyline(canvas, front, sizes, label, across=frame.axes[:, 1])
        angles = np.deg2rad([-5.0, 25.0, 50.0, 72.0, 90.0])
        ring = np.array([
            frame.at(side * (width + 3.4 * scale) * np.cos(a), center - (ap + 3.6 * scale) * np.sin(a), -0.05 * atlas.height)
            for a in angles
        ])  # fmt: skip
        sizes = scale * np.array([[3.0, 4.0], [2.4, 3.6], [2.4, 3.6], [2.7, 4.0], [3.6, 4.4]])
        polyline(canvas, ring, sizes, label, across=frame.axes[:, 1])
        tip = frame.at(side * 37 * scale, -6 * scale, -1.5 * scale)
        rod(canvas, frame.at(mass, -4 * scale, -1.0), tip, (4.2 * scale, 4.4 * scale), (3.4 * scale, 3.6 * scale), label)


def paint_sacrum(canvas: Canvas, column: Column, scale: float) -> None:
    """Paint sacrum and coccyx: fused bodies, alae, and the roof of the sacral canal."""
    label = anatomy.SACRUM_ID
    levels = [level for level in column.levels if level.region == "S"]
    give_way = (*_TISSUE, label)
    for above, level, below in zip([None, *levels[:-1]], levels, [*levels[1:], None], strict=True):
        ends = []
        for neighbour in (above, below):
            other = level if neighbour is None else neighbour
            ends.append(((level.width + other.width) / 4, (level.depth + other.depth) / 4))
        if above is None:
            # S1 is a block with an endplate; the canal runs along its back, so the depth is that of its lower half.
            _block(
                canvas, level.frame, level.top, level.frame, (level.width / 2, level.depth / 2), label,
                waist=0.05, dome=(0.06 * level.height, 0.0), hollow=1.0, grow=0.2, replace=give_way,
            )  # fmt: skip
            start = level.frame.origin
            ends[0] = (0.9 * level.width / 2, 0.93 * level.depth / 2)
        else:
            start = level.top.origin
        rod(
            canvas, start, level.bottom.origin, ends[0], ends[1], label,
            across=level.frame.axes[:, 0], cap=2.0 * scale, replace=give_way,
        )  # fmt: skip
    # Alae: wings from the sides of S1 to S3 to the iliac joints.
    wings = {
        "S1": ((53, -9, -6), (15.0, 16.0), (11.0, 14.0)),
        "S2": ((46, -13, 2), (11.0, 13.0), (9.0, 13.0)),
        "S3": ((32, -8, 2), (7.0, 10.0), (6.0, 10.0)),
        "S4": ((21, -4, 0), (5.0, 8.0), (4.0, 7.0)),
    }
    for level in levels[:4]:
        (lateral, backward, upward), near, far = wings[level.name]
        for side in (-1.0, 1.0):
            root = level.frame.at(side * 0.38 * level.width, -0.15 * level.depth, 0.0)
            tip = level.frame.at(side * (lateral - far[0] * 0.6) * scale, backward * scale, upward * scale)
            rod(
                canvas, root, tip, (near[0] * scale, near[1] * scale), (far[0] * scale, far[1] * scale), label,
                across=level.frame.axes[:, 1], cap=6.0 * scale,
            )  # fmt: skip
    _sacral_roof(canvas, levels, scale)


def _sacral_roof(canvas: Canvas, levels: list[Level], scale: float) -> None:
    label = anatomy.SACRUM_ID
    for level in levels[:4]:
        (width, ap), frame = level.canal, level.frame
        center = -(level.depth / 2 + 0.8 * scale + ap)
        tall = 0.52 * level.height
        thick = (2.6 if level.name == "S1" else 2.9) * scale
        angles = np.deg2rad([-10.0, 25.0, 60.0, 90.0])
        for side in (-1.0, 1.0):
            ring = np.array([
                frame.at(side * (width + thick) * np.cos(a), center - (ap + thick) * np.sin(a), 0.0) for a in angles
            ])  # fmt: skip
            for i in range(3):
                outward: Vector = ring[i] + ring[i + 1] - 2 * frame.at(0.0, center, 0.0)
                sizes = np.array([[thick, tall], [thick, tall]])
                polyline(canvas, ring[i : i + 2], sizes, label, across=outward, cap=thick)
            # Side masses behind the foramina join the wings to the roof.
            rod(
                canvas, ring[0], frame.at(side * (width + 9 * scale), center + 2 * scale, 0.0),
                (5.0 * scale, 0.62 * level.height), (5.0 * scale, 0.55 * level.height), label, across=frame.axes[:, 1],
            )  # fmt: skip
        crest = frame.at(0.0, center - ap - thick, 0.0)
        tip = frame.at(0.0, center - ap - thick - (9.0 if level.name in {"S1", "S2"} else 5.0) * scale, -2.0 * scale)
        rod(canvas, crest, tip, (2.6 * scale, tall * 0.9), (2.4 * scale, tall * 0.6), label, across=frame.axes[:, 0])
    # Foramina, front and back, beside the fused discs.
    for above, below in zip(levels[:3], levels[1:4], strict=True):
        for side in (-1.0, 1.0):
            out = (below.width / 2 + 3.0 * scale) * side
            place = above.bottom.at(out, -0.1 * above.depth, 0.0)
            back = above.bottom.at(out * 0.95, -1.4 * above.depth, 0.0)
            radius = 4.2 * scale
            rod(canvas, place, back, (radius, radius), (radius * 0.8, radius * 0.8), SOFT_TISSUE, replace=(label,))
