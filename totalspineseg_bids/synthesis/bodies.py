"""Vertebral bodies, discs, canal and cord: blocks between endplates, and tubes behind them."""

from __future__ import annotations

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.synthesis.curve import SpinalColumn, SpinalLevel, Tube
from totalspineseg_bids.synthesis.rasterize import Canvas, LocalFrame, fill, rod

#: Labels of tissue around the spine.
TISSUES = tuple(range(10))


SOFT_TISSUE = 1


def draw_block(
    canvas: Canvas,
    frame: LocalFrame,
    top: LocalFrame,
    bottom: LocalFrame,
    half: tuple[float, float],
    *,
    label: int,
    waist: float,
    dome: tuple[float, float],
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
    dome : tuple of 2 float
        Distance of the middle of the upper and lower surface inside the end planes, mm.
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
    reach = np.abs(frame.axes) @ np.array([half[0] * 1.15, half[1] * 1.15, tall + grow + 1.0 + 0.25 * half[1]])
    window = canvas.window(frame.origin - reach, frame.origin + reach)
    if window is None:
        return
    right, front, _ = frame.axes.T
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
    fill(window, inside, label, replace)


def draw_epidural_fat(canvas: Canvas, canal: Tube) -> None:
    """Draw the fat around the dural sac and in the foramina; bones drawn afterwards replace the rest of it."""
    for i in range(0, len(canal.points) - 1, 2):
        j = min(i + 2, len(canal.points) - 1)
        (a0, b0), (a1, b1) = canal.radii[i], canal.radii[j]
        rod(
            canvas,
            canal.points[i],
            canal.points[j],
            (a0 + 7.0, b0 + 5.0),
            (a1 + 7.0, b1 + 5.0),
            SOFT_TISSUE,
            across=canal.across[i],
            cap=2.0,
            replace=TISSUES[2:8],
        )


def draw_tubes(canvas: Canvas, canal: Tube, cord: Tube) -> None:
    """Draw canal and cord; the cord only inside the canal."""
    everything = tuple(range(256))
    _tube(canvas, canal, anatomy.CANAL_ID, everything)
    _tube(canvas, cord, anatomy.CORD_ID, (anatomy.CANAL_ID,))


def _tube(canvas: Canvas, tube: Tube, label: int, replace: tuple[int, ...]) -> None:
    """Draw a tube from its points, half axes and left-right directions."""
    for i in range(len(tube.points) - 1):
        (a0, b0), (a1, b1) = tube.radii[i], tube.radii[i + 1]
        rod(
            canvas,
            tube.points[i],
            tube.points[i + 1],
            (a0, b0),
            (a1, b1),
            label,
            across=tube.across[i],
            cap=1.2,
            replace=replace,
        )


def _dome(level: SpinalLevel) -> tuple[float, float]:
    share = {"C": 0.05, "T": 0.07, "L": 0.085, "S": 0.0}[level.region]
    upper = 0.02 if level.name in {"C2"} else share
    return upper * level.height, share * 1.15 * level.height


def _taper(level: SpinalLevel) -> float:
    return {"C": 0.05, "T": 0.13, "L": 0.05, "S": 0.05}[level.region]


def _hollow(level: SpinalLevel) -> float:
    return {"C": 0.4, "T": 1.8, "L": 1.6, "S": 0.5}[level.region]


def draw_discs(canvas: Canvas, column: SpinalColumn, names: tuple[str, ...], rng: np.random.Generator) -> None:
    """Draw all discs between the endplates of their neighbours, with an overlap that prevents gaps.

    Parameters
    ----------
    canvas : Canvas
        Canvas to draw on; bodies drawn later replace discs where they overlap.
    column : SpinalColumn
        Geometry of the spine.
    names : tuple of str
        Disc levels in craniocaudal order, the first between C2 and C3.
    rng : numpy.random.Generator
        Draws rim bulges.
    """
    for i, name in enumerate(names):
        above, below = column.levels[i + 1], column.levels[i + 2]
        middle = column.frame((above.at[1] + below.at[0]) / 2)
        rim = float(np.clip(rng.normal(1.0, 0.025), 0.94, 1.07))
        half = (rim * (above.width + below.width) / 4 * 0.99, rim * (above.depth + below.depth) / 4 * 0.99)
        cup = (-_dome(above)[1] - 0.2, -_dome(below)[0] - 0.2)
        draw_block(
            canvas,
            middle,
            above.bottom,
            below.top,
            half,
            label=anatomy.disc(name).id,
            waist=-0.03,
            dome=cup,
            taper=_taper(above),
            hollow=_hollow(above),
            power=2.5,
            grow=0.5,
        )


def draw_bodies(canvas: Canvas, column: SpinalColumn) -> None:
    """Draw the vertebral bodies C2 to the last lumbar one over tissue and discs."""
    give_way = (*TISSUES, *(label.id for label in anatomy.LABELS if label.structure is anatomy.Structure.DISC))
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
            dome=_dome(level),
            taper=_taper(level),
            hollow=_hollow(level),
            replace=give_way,
        )
        if level.region == "C" and level.name != "C2":
            # Uncinate processes: the raised side edges of the upper endplate.
            for side in (-1.0, 1.0):
                w, d, h = level.width / 2, level.depth / 2, level.height / 2
                ends = [level.frame.at(side * w * 0.95, f * d, h * 1.05) for f in (-0.75, 0.45)]
                rod(canvas, ends[0], ends[1], (1.5, 2.6), (1.4, 2.0), label, across=level.frame.axes[:, 0])
