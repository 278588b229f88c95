"""The two ends of the column: atlas and dens on top, sacrum and coccyx below."""

from __future__ import annotations

import itertools

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.synthesis.bodies import SOFT_TISSUE, TISSUES, draw_block
from totalspineseg_bids.synthesis.curve import SpinalColumn, SpinalLevel
from totalspineseg_bids.synthesis.rasterize import Canvas, polyline, rod


def draw_atlas_and_axis(canvas: Canvas, column: SpinalColumn, scale: float) -> None:
    """Draw the dens on C2, and C1 as a ring around dens and canal."""
    axis, atlas = column.level("C2"), column.level("C1")
    label = anatomy.vertebra("C2").id
    peak = atlas.frame.at(0.0, 0.5 * scale, 0.45 * atlas.height)
    base = axis.top.origin - axis.frame.axes[:, 2] * 4.0
    r = scale * np.array([[6.0, 5.6], [4.9, 4.8], [5.0, 4.9]])
    polyline(canvas, np.array([base, (2 * base + peak) / 3, peak]), r, label, across=axis.frame.axes[:, 0])
    frame, (width, ap) = axis.frame, axis.canal
    for side in (-1.0, 1.0):  # upper articular masses of the axis
        inner = frame.at(side * 8 * scale, -2 * scale, 0.26 * axis.height)
        outer = frame.at(side * 15 * scale, -2.5 * scale, 0.36 * axis.height)
        sizes = (5.6 * scale, 3.4 * scale), (5.4 * scale, 3.0 * scale)
        rod(canvas, inner, outer, *sizes, label, across=frame.axes[:, 1])
    label, frame, (width, ap) = anatomy.vertebra("C1").id, atlas.frame, atlas.canal
    center = -(8.8 * scale + ap)
    for side in (-1.0, 1.0):
        mass = side * max(17.0 * scale, width + 4.5 * scale)
        top = frame.at(mass, -2.5 * scale, 0.55 * atlas.height)
        bottom = frame.at(mass, -2.0 * scale, -0.6 * atlas.height)
        sizes = (6.4 * scale, 8.6 * scale), (6.8 * scale, 8.0 * scale)
        rod(canvas, top, bottom, *sizes, label, across=frame.axes[:, 0], cap=1.8 * scale)
        front = np.array(
            [frame.at(mass, 3.0 * scale, 0), frame.at(0.55 * mass, 7.6 * scale, 0), frame.at(0, 9.2 * scale, 0)]
        )
        radii = scale * np.array([[2.6, 4.6], [2.5, 4.8], [2.9, 5.6]])
        polyline(canvas, front, radii, label, across=frame.axes[:, 1])
        angles = np.deg2rad([-5.0, 25.0, 50.0, 72.0, 90.0])
        half, deep = width + 3.4 * scale, ap + 3.6 * scale
        ring = [
            frame.at(mass, -8.0 * scale, 0.0),
            *(frame.at(side * half * np.cos(a), center - deep * np.sin(a), -0.05 * atlas.height) for a in angles),
        ]
        radii = scale * np.array([[4.0, 4.4], [3.0, 4.0], [2.4, 3.6], [2.4, 3.6], [2.7, 4.0], [3.6, 4.4]])
        polyline(canvas, np.array(ring), radii, label, across=frame.axes[:, 1])
        tip = frame.at(side * 37 * scale, -6 * scale, -1.5 * scale)
        rod(
            canvas, frame.at(mass, -4 * scale, -1.0), tip, (4.2 * scale, 4.4 * scale), (3.4 * scale, 3.6 * scale), label
        )


def draw_sacrum(canvas: Canvas, column: SpinalColumn, scale: float) -> None:
    """Draw sacrum and coccyx: fused bodies, alae, and the roof of the sacral canal."""
    label = anatomy.SACRUM_ID
    levels = [level for level in column.levels if level.region == "S"]
    give_way = (*TISSUES, label)
    for above, level, below in zip([None, *levels[:-1]], levels, [*levels[1:], None], strict=True):
        ends = []
        for neighbour in (above, below):
            other = level if neighbour is None else neighbour
            ends.append(((level.width + other.width) / 4, (level.depth + other.depth) / 4))
        if above is None:
            # S1 is a block with an endplate; the canal runs along its back, so the depth is that of its lower half.
            half, surfaces = (level.width / 2, level.depth / 2), (level.upper, level.lower)
            draw_block(
                canvas, level.frame, level.top, level.frame, half,
                label=label, waist=0.05, ends=surfaces, hollow=1.0, replace=give_way,
            )  # fmt: skip
            start = level.frame.origin
            ends[0] = (0.9 * level.width / 2, 0.93 * level.depth / 2)
        else:
            start = level.top.origin
        right = level.frame.axes[:, 0]
        rod(
            canvas, start, level.bottom.origin, ends[0], ends[1], label, across=right, cap=2.0 * scale, replace=give_way
        )
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
            sizes = (near[0] * scale, near[1] * scale), (far[0] * scale, far[1] * scale)
            rod(canvas, root, tip, *sizes, label, across=level.frame.axes[:, 1], cap=6.0 * scale)
    _sacral_roof(canvas, levels, scale)


def _sacral_roof(canvas: Canvas, levels: list[SpinalLevel], scale: float) -> None:
    label = anatomy.SACRUM_ID
    for level in levels[:4]:
        (width, ap), frame = level.canal, level.frame
        center = -(level.depth / 2 + 0.8 * scale + ap)
        tall = 0.52 * level.height
        thick = (2.6 if level.name == "S1" else 2.9) * scale
        angles = np.deg2rad([-10.0, 25.0, 60.0, 90.0])
        for side in (-1.0, 1.0):
            ring = np.array(
                [frame.at(side * (width + thick) * np.cos(a), center - (ap + thick) * np.sin(a), 0.0) for a in angles]
            )
            outward = ring[:-1] + ring[1:] - 2 * frame.at(0.0, center, 0.0)
            polyline(canvas, ring, np.full((4, 2), [thick, tall]), label, across=outward, cap=thick)
            # Side masses behind the foramina join the wings to the roof.
            beside = frame.at(side * (width + 9 * scale), center + 2 * scale, 0.0)
            near, far = (5.0 * scale, 0.62 * level.height), (5.0 * scale, 0.55 * level.height)
            rod(canvas, ring[0], beside, near, far, label, across=frame.axes[:, 1])
        crest = frame.at(0.0, center - ap - thick, 0.0)
        tip = frame.at(0.0, center - ap - thick - (9.0 if level.name in {"S1", "S2"} else 5.0) * scale, -2.0 * scale)
        rod(canvas, crest, tip, (2.6 * scale, tall * 0.9), (2.4 * scale, tall * 0.6), label, across=frame.axes[:, 0])
    # Foramina, front and back, beside the fused discs.
    for above, below in itertools.pairwise(levels[:4]):
        for side in (-1.0, 1.0):
            out = (below.width / 2 + 3.0 * scale) * side
            place = above.bottom.at(out, -0.1 * above.depth, 0.0)
            back = above.bottom.at(out * 0.95, -1.4 * above.depth, 0.0)
            radius = 4.2 * scale
            rod(canvas, place, back, (radius, radius), (radius * 0.8, radius * 0.8), SOFT_TISSUE, replace=(label,))
