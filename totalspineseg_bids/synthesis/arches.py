"""Posterior elements of C2 to the last lumbar vertebra: rods for pedicles, laminae and processes.

Directions and lengths by level follow textbook anatomy. Local coordinates are (right, anterior, up) from the centre
of the body, mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.synthesis.curve import SpinalColumn, SpinalLevel
from totalspineseg_bids.synthesis.rasterize import Canvas, polyline, rod


@dataclass(frozen=True, slots=True)
class _ArchShape:
    """Posterior elements of a regular level, mm (half sizes for thicknesses)."""

    pedicle: tuple[float, float]  # half width, half height
    lamina: tuple[float, float]  # half thickness, half height
    spinous: tuple[float, float, float, float]  # length, degrees downward, half height at root and at tip
    spinous_width: float
    transverse: tuple[float, float, float]  # tip: lateral, backward from the canal's centre, upward
    transverse_radius: tuple[float, float]
    facet: tuple[float, float, float]  # lateral distance of upper and of lower facet, radius


_SHAPES: dict[str, _ArchShape] = {
    "C2": _ArchShape((3.2, 3.6), (2.6, 5.6), (16, 24, 5.2, 4.6), 3.4, (25, -6, -3), (3.0, 3.2), (18, 18, 5.2)),
    "C3": _ArchShape((2.6, 3.4), (2.1, 5.0), (16, 24, 3.6, 3.2), 2.6, (26, -9, -2), (3.2, 3.6), (19.5, 19.5, 5.6)),
    "C4": _ArchShape((2.6, 3.4), (2.1, 5.0), (16, 24, 3.6, 3.2), 2.6, (27, -9, -2), (3.2, 3.6), (20, 20, 5.6)),
    "C5": _ArchShape((2.7, 3.4), (2.1, 5.2), (18, 26, 3.8, 3.3), 2.6, (28, -9, -2), (3.2, 3.6), (20.5, 20.5, 5.7)),
    "C6": _ArchShape((2.9, 3.6), (2.2, 5.5), (23, 26, 4.2, 3.6), 2.8, (29, -8, -2), (3.4, 3.8), (20.5, 20.5, 5.8)),
    "C7": _ArchShape((3.4, 3.8), (2.6, 6.5), (32, 24, 5.0, 4.4), 3.2, (32, -2, 0), (3.6, 4.2), (19, 18, 5.5)),
    "T1": _ArchShape((4.0, 4.6), (3.0, 7.5), (34, 30, 5.4, 4.6), 3.3, (37, 7, 2), (3.9, 4.4), (17, 14, 5.0)),
    "T2": _ArchShape((3.2, 5.4), (3.1, 8.2), (33, 38, 5.2, 4.2), 3.2, (34, 11, 2), (3.9, 4.4), (14, 12, 4.6)),
    "T3": _ArchShape((2.5, 5.6), (3.1, 8.6), (34, 46, 5.0, 4.0), 3.0, (32, 14, 3), (3.9, 4.4), (13, 11, 4.4)),
    "T4": _ArchShape((2.3, 5.6), (3.1, 8.8), (36, 52, 4.8, 3.6), 3.0, (31, 16, 3), (3.9, 4.4), (12.5, 10.5, 4.4)),
    "T5": _ArchShape((2.3, 5.7), (3.1, 9.0), (39, 57, 4.8, 3.4), 3.0, (30, 18, 3), (3.9, 4.4), (12.5, 10.5, 4.4)),
    "T6": _ArchShape((2.5, 5.8), (3.1, 9.2), (41, 60, 4.8, 3.4), 3.0, (30, 19, 3), (4.0, 4.5), (12.5, 10.5, 4.4)),
    "T7": _ArchShape((2.6, 5.9), (3.1, 9.4), (42, 60, 4.8, 3.4), 3.0, (29.5, 20, 3), (4.0, 4.5), (12.5, 10.5, 4.5)),
    "T8": _ArchShape((2.8, 6.2), (3.2, 9.6), (40, 57, 5.0, 3.6), 3.0, (29, 20, 3), (4.0, 4.5), (12.5, 10.5, 4.5)),
    "T9": _ArchShape((3.2, 6.8), (3.2, 10.0), (36, 50, 5.4, 4.2), 3.0, (28, 19, 3), (4.0, 4.6), (13, 11, 4.6)),
    "T10": _ArchShape((3.6, 7.4), (3.3, 10.4), (32, 42, 6.0, 5.0), 3.1, (25, 18, 3), (4.0, 4.6), (13, 11, 4.7)),
    "T11": _ArchShape((4.0, 8.2), (3.4, 10.8), (29, 32, 6.8, 6.2), 3.2, (21, 15, 2), (4.2, 5.0), (13, 11, 4.8)),
    "T12": _ArchShape((4.0, 8.0), (3.5, 11.0), (29, 22, 8.0, 7.5), 3.3, (20, 12, 2), (4.4, 5.4), (14, 11.5, 5.0)),
    "L1": _ArchShape((3.9, 7.6), (3.5, 10.5), (31, 14, 9.2, 9.4), 3.3, (35, 5, 2), (3.3, 4.8), (16, 12, 5.4)),
    "L2": _ArchShape((4.2, 7.4), (3.6, 10.5), (32, 12, 9.8, 10.2), 3.5, (40, 4, 2), (3.3, 4.8), (17, 12.5, 5.6)),
    "L3": _ArchShape((4.9, 7.2), (3.7, 10.0), (32, 12, 10.0, 10.6), 3.6, (45, 3, 2), (3.4, 4.8), (18, 13.5, 5.8)),
    "L4": _ArchShape((6.0, 7.1), (3.8, 9.5), (29, 12, 9.4, 9.6), 3.6, (43, 2, 3), (3.8, 5.0), (20, 15.5, 6.0)),
    "L5": _ArchShape((8.4, 7.2), (3.8, 8.5), (22, 16, 7.4, 6.2), 3.6, (45, 0, 4), (5.6, 6.2), (22.5, 19, 6.4)),
}


def draw_posterior(canvas: Canvas, column: SpinalColumn, scale: float, rng: np.random.Generator) -> None:
    """Draw pedicles, laminae and processes of C2 to the last lumbar vertebra around the canal."""
    for level in column.levels:
        if level.region != "S" and level.name != "C1":
            _arch(canvas, level, scale, rng)


def _arch(canvas: Canvas, level: SpinalLevel, scale: float, rng: np.random.Generator) -> None:
    shape, label, frame = _SHAPES[level.kin], anatomy.vertebra(level.name).id, level.frame
    right = frame.axes[:, 0]
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
        path = np.array(
            [
                frame.at(side * (width + thick) * np.cos(a), center - (ap + thick + 0.8) * np.sin(a), d)
                for a, d in zip(angles, drop, strict=True)
            ]
        )
        radii = np.array([[thick, 0.8 * tall], [thick, tall], [thick, tall], [thick, 0.85 * tall]])
        outward = path[:-1] + path[1:] - 2 * frame.at(0.0, center, 0.0)
        polyline(canvas, path, radii, label, across=outward, cap=thick)
        _side_processes(canvas, level, shape, scale=scale, side=side, center=center, wobble=wobble)
    _spinous(canvas, level, shape, scale=scale, root=center - ap - thick, wobble=wobble)


def _side_processes(
    canvas: Canvas,
    level: SpinalLevel,
    shape: _ArchShape,
    *,
    scale: float,
    side: float,
    center: float,
    wobble: NDArray[np.float64],
) -> None:
    """Draw the transverse and articular processes of one side."""
    label, frame, height, (width, ap) = anatomy.vertebra(level.name).id, level.frame, level.height, level.canal
    right, front, _ = frame.axes.T
    lateral, backward, upward = (scale * v for v in shape.transverse)
    tip = frame.at(side * (lateral * (1 + 0.04 * wobble[0])), center - backward, upward + wobble[1])
    a, b = (scale * v for v in shape.transverse_radius)
    upper, lower, radius = (scale * v for v in shape.facet)
    if level.region == "C":
        # Articular pillar: one oblique column; the transverse process lies in front of it.
        at = max(upper, width + radius * 0.95)
        top = frame.at(side * at, center + 0.55 * ap, 0.62 * height)
        bottom = frame.at(side * at, center - 0.2 * ap, -0.66 * height)
        ends = (radius, 0.95 * radius), (radius, 0.9 * radius)
        rod(canvas, top, bottom, *ends, label, across=right, cap=0.6 * radius)
        root = frame.at(side * level.width * 0.42, 0.0, 0.0)
        rod(canvas, root, tip, (a, 0.8 * b), (0.8 * a, 0.8 * b), label, across=front)
        rod(canvas, frame.at(side * at, center + 0.6 * ap, 0.0), tip, (a, b), (0.8 * a, 0.8 * b), label, across=front)
        return
    root = frame.at(side * (width + 3.0 * scale), center - 0.1 * ap, 0.12 * height)
    rod(canvas, root, tip, (a, b * 1.15), (a * 0.95, b * 0.9), label, across=front)
    upper, lower = max(upper, width + 0.75 * radius), max(lower, 0.92 * width)
    if level.region == "T":
        up_front, up_back, down_back = center - 0.45 * ap, center - 0.55 * ap, center - ap - radius * 0.9
        facets = (
            ((upper, up_back, 0.1), (upper, up_front - 0.4 * ap, 0.72), (1.0, 0.55), (0.9, 0.5)),
            ((lower, down_back, -0.1), (lower, down_back - 0.8, -0.66), (1.0, 0.6), (0.85, 0.5)),
        )
    else:
        # Lumbar: the upper facets embrace the lower ones of the vertebra above from outside.
        far, below = (upper + 0.5, center - 0.75 * ap, 0.66), (lower, center - 0.95 * ap - 1.5, -0.86)
        facets = (
            ((upper, center - 0.35 * ap, 0.1), far, (0.72, 1.0), (0.66, 1.1)),
            ((0.9 * lower, center - ap - 1.0, -0.2), below, (0.75, 0.9), (0.7, 0.95)),
        )
    for start, end, near, away in facets:
        one, other = (frame.at(side * beside, behind, share * height) for beside, behind, share in (start, end))
        first, last = ((across * radius, along * radius) for across, along in (near, away))
        rod(canvas, one, other, first, last, label, across=right)


def _spinous(
    canvas: Canvas, level: SpinalLevel, shape: _ArchShape, *, scale: float, root: float, wobble: NDArray[np.float64]
) -> None:
    """Draw the spinous process, from the junction of the laminae backward and down."""
    label, frame, height = anatomy.vertebra(level.name).id, level.frame, level.height
    length, angle, at_root, at_tip = shape.spinous
    length *= scale * (1 + 0.07 * wobble[2])
    slope = np.deg2rad(angle + 3.0 * wobble[3])
    half = scale * shape.spinous_width
    start = np.array([0.0, root, -0.24 * height])
    end = start + length * np.array([0.03 * wobble[4], -np.cos(slope), -np.sin(slope)])
    begin, tip = frame.at(*start), frame.at(*end)
    sizes = (half, scale * at_root), (0.9 * half, scale * at_tip)
    rod(canvas, begin, tip, *sizes, label, across=frame.axes[:, 0], cap=2.5 * scale)
    if level.name in {"C2", "C3", "C4", "C5", "C6"}:
        for side in (-1.0, 1.0):
            fork = frame.at(end[0] + side * 4.5 * scale, end[1] - 2.5 * scale, end[2] - 2.0 * scale)
            rod(canvas, tip, fork, (2.2 * scale, 2.6 * scale), (1.8 * scale, 2.2 * scale), label)
