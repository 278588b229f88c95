"""Curve of a spine: position, tilt and size of all levels.

Angles follow the clinical conventions (T1 slope, C2-T1 lordosis, T1-T12 kyphosis, L1-S1 lordosis, Cobb
angle).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from totalspineseg_bids.anatomy import SpineVariant
from totalspineseg_bids.synthesis.degeneration import (
    FLAT,
    DiscShape,
    Endplate,
    draw_disc_shape,
    draw_endplate,
    draw_grades,
    fracture,
    remaining_height,
)
from totalspineseg_bids.synthesis.morphometry import BODY, CANAL, CORD, SAC, SACRAL
from totalspineseg_bids.synthesis.rasterize import LocalFrame

_STEP = 0.5  # mm between samples of the curve
#: Least cerebrospinal fluid on either side of the cord, mm.
_CORD_CLEARANCE_MM = 0.5


@dataclass(frozen=True, slots=True)
class SpineParameters:
    """Parameters of the spine of one subject.

    Examples
    --------
    >>> SpineParameters.sample(np.random.default_rng(0)).fractures
    0
    """

    scale: float = 1.0
    """Size relative to a mean adult."""
    build: float = 1.0
    """Width and depth of bones relative to their height."""
    t1_slope: float = 25.0
    """Slope of T1, degrees."""
    cervical_lordosis: float = 22.0
    """Angle between C2 and T1, degrees."""
    kyphosis: float = 40.0
    """Angle between T1 and the last thoracic vertebra, degrees."""
    lumbar_lordosis: float = 54.0
    """Angle between L1 and S1, degrees."""
    cobb: tuple[float, ...] = (0.0,)
    """Cobb angle of each coronal curve, degrees, signed."""
    apex: tuple[float, ...] = (0.5,)
    """Position of the apex of each coronal curve, as a fraction of the length of the column from the top."""
    extent: tuple[float, ...] = (0.15,)
    """Half extent of each coronal curve, as a fraction of the length of the column."""
    degeneration: float = 0.0
    """Mean probability that a disc is degenerate: thin, bulging, with osteophytes."""
    endplate: float = 1.0
    """Thickness of the endplates relative to the mean."""
    fractures: int = 0
    """Number of vertebrae with a compression fracture."""
    block: str | None = None
    """Disc that bone replaces, such as ``"C5-C6"``."""
    canal: float = 1.0
    """Size of the canal relative to the mean."""
    conus: float = 0.3
    """End of the cord, in levels below the top of L1."""
    fat: float = 12.0
    """Thickness of the subcutaneous fat of the back, mm."""
    girth: float = 1.0
    """Width of the body relative to the mean."""
    jitter: float = 0.03
    """Standard deviation of the relative size of each level."""

    @classmethod
    def sample(cls, rng: np.random.Generator) -> SpineParameters:
        """Draw a subject: mostly average, sometimes with strong curvature, scoliosis or thin discs."""
        kyphosis = float(np.clip(rng.normal(40, 10), 18, 68))
        slope = float(np.clip(0.45 * kyphosis + rng.normal(7, 5), 8, 45))
        curves = int(rng.choice([1, 2], p=[0.65, 0.35]))
        largest = float(min(rng.exponential(5.0), 30.0))
        first = float(rng.uniform(0.32, 0.75))
        apex = (first,) if curves == 1 else (first, first + float(rng.choice([-0.27, 0.25])))
        sign = float(rng.choice([-1.0, 1.0]))
        cobb = tuple(sign * largest * (1.0 if i == 0 else -float(rng.uniform(0.4, 0.9))) for i in range(curves))
        return cls(
            scale=float(np.clip(rng.normal(0.99, 0.075), 0.82, 1.15)),
            build=float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.14)),
            t1_slope=slope,
            cervical_lordosis=float(np.clip(0.8 * slope + rng.normal(0, 10), -12, 48)),
            kyphosis=kyphosis,
            lumbar_lordosis=float(np.clip(rng.normal(53, 11), 22, 85)),
            cobb=cobb,
            apex=apex,
            extent=tuple(float(rng.uniform(0.09, 0.17)) for _ in apex),
            degeneration=float(rng.choice([0.03, 0.25, 0.6], p=[0.4, 0.35, 0.25])),
            endplate=float(np.clip(rng.normal(1.12, 0.12), 0.9, 1.4)),
            canal=float(np.clip(rng.normal(1.0, 0.07), 0.84, 1.2)),
            conus=float(np.clip(rng.normal(0.3, 0.45), -0.8, 1.4)),
            fat=float(np.clip(rng.gamma(3.0, 4.5), 3.0, 42.0)),
            girth=float(np.clip(rng.normal(1.0, 0.09), 0.8, 1.3)),
            jitter=float(rng.uniform(0.015, 0.045)),
        )


@dataclass(frozen=True, slots=True)
class SpinalLevel:
    """Geometry of a vertebra or of a sacral or coccygeal segment."""

    name: str
    """``"C1"`` to ``"L6"``, ``"S1"`` to ``"S5"``, ``"Co1"`` to ``"Co3"``."""
    kin: str
    """Regular level that has the same shape (T13 is shaped like T12)."""
    width: float
    """Width of the body at its endplates, mm."""
    depth: float
    """Depth of the body at its endplates, mm."""
    height: float
    """Height of the body, mm."""
    frame: LocalFrame
    """Frame at the centre of the body."""
    top: LocalFrame
    """Frame at the upper endplate."""
    bottom: LocalFrame
    """Frame at the lower endplate."""
    at: tuple[float, float]
    """Distances of top and bottom along the curve, mm from its upper end."""
    canal: tuple[float, float]
    """Half width and half depth of the bony canal, mm."""
    upper: Endplate = FLAT
    """Shape of the upper end of the body."""
    lower: Endplate = FLAT
    """Shape of the lower end of the body."""

    @property
    def region(self) -> str:
        """``"C"``, ``"T"``, ``"L"`` or ``"S"`` (sacrum and coccyx)."""
        return "S" if self.name in SACRAL else self.name[0]


@dataclass(frozen=True, slots=True)
class Tube:
    """A structure along the column, N points."""

    points: NDArray[np.float64]
    """Centres, shape (N, 3), RAS mm."""
    radii: NDArray[np.float64]
    """Half axes left-right and front-back, shape (N, 2), mm."""
    across: NDArray[np.float64]
    """Unit vectors to the right, shape (N, 3)."""
    forward: NDArray[np.float64]
    """Unit vectors to the front, shape (N, 3)."""

    def part(self, use: NDArray[np.bool_]) -> Tube:
        """Return the points that a mask of shape (N,) selects."""
        return Tube(self.points[use], self.radii[use], self.across[use], self.forward[use])


@dataclass(frozen=True, slots=True)
class SpinalColumn:
    """Geometry of one spine, all in RAS mm."""

    levels: tuple[SpinalLevel, ...]
    """Levels in craniocaudal order, C1 to Co3."""
    discs: tuple[DiscShape, ...]
    """Shapes of the discs from C2-C3 down."""
    points: NDArray[np.float64]
    """Line through the centres of the bodies, one point per half millimetre, shape (N, 3)."""
    axes: NDArray[np.float64]
    """Frames along the line, shape (N, 3, 3)."""
    canal: Tube
    """Bony canal."""
    sac: Tube
    """Dural sac: what is labelled as spinal canal."""
    cord: Tube
    """Spinal cord."""

    def level(self, name: str) -> SpinalLevel:
        """Return a level by its name.

        Raises
        ------
        KeyError
            If the spine does not have this level.
        """
        return {level.name: level for level in self.levels}[name]

    def frame(self, s: float) -> LocalFrame:
        """Return the frame at a distance along the curve (mm from its upper end)."""
        index = int(np.clip(round(s / _STEP), 0, len(self.points) - 1))
        return LocalFrame(self.points[index], self.axes[index])


def _kin(name: str) -> str:
    return {"T13": "T12", "L6": "L5"}.get(name, name)


def _names(variant: SpineVariant) -> list[str]:
    return [*variant.vertebrae()[:-1], *SACRAL]


def _sizes(
    names: list[str], p: SpineParameters, grades: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return width, depth and height of all levels, and the height of the disc below, mm."""
    table = np.array([BODY[_kin(name)] for name in names])
    thoracic = [i for i, n in enumerate(names) if n[0] == "T"]
    regular = [f"T{i}" for i in range(1, 13)]
    # With 11 or 13 thoracic vertebrae sizes change evenly from T1 to the last one too.
    ranks = np.linspace(0, 11, len(thoracic))
    for column in range(4):
        table[thoracic, column] = np.interp(ranks, range(12), [BODY[n][column] for n in regular])
    drift = 1.0 + p.jitter * rng.standard_normal(table.shape)
    table *= p.scale * drift
    table[:, :2] *= p.build
    table[:, 3] *= remaining_height(grades)
    return table


def _tilts(names: list[str], p: SpineParameters, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the sagittal tilt at the middle of all levels, degrees; positive if the front edge is lower."""
    last_thoracic = max(i for i, n in enumerate(names) if n[0] == "T")
    t1, s1 = names.index("T1"), names.index("S1")
    lumbar = s1 - last_thoracic - 1
    base = p.t1_slope - p.kyphosis
    knots: list[tuple[float, float]] = [
        (0, p.t1_slope - 1.06 * p.cervical_lordosis),
        (1, p.t1_slope - p.cervical_lordosis),
        (4, p.t1_slope - 0.52 * p.cervical_lordosis),
        (t1, p.t1_slope),
        (t1 + 0.5 * (last_thoracic - t1), p.t1_slope - 0.56 * p.kyphosis),
        (last_thoracic, base),
    ]
    for fraction, share in ((0.22, -0.04), (0.45, 0.07), (0.65, 0.22), (0.85, 0.52)):
        knots.append((last_thoracic + 0.5 + fraction * lumbar, base + share * p.lumbar_lordosis))
    top = base + p.lumbar_lordosis
    bend = float(rng.normal(0, 5))
    for k, turn in enumerate((4, 12, 2, -20, -38, -52, -66, -76)):
        knots.append((s1 + k, top + turn + (bend * min(k, 3) / 3)))
    x, y = np.array(knots).T
    tilts: NDArray[np.float64] = PchipInterpolator(x, y)(np.arange(len(names)))
    tilts[1:s1] += rng.normal(0, 1.0, s1 - 1)
    return tilts


def _by_level(names: list[str], table: Mapping[str, tuple[float, ...]], upto: str) -> NDArray[np.float64]:
    """Interpolate a table over level positions up to a level; shape (levels, columns)."""
    known = [(i, table[_kin(n)]) for i, n in enumerate(names) if _kin(n) in table and n == _kin(n)]
    x = np.array([k for k, _ in known], float)
    y = np.array([v for _, v in known])
    positions = np.arange(names.index(upto) + 1)
    return np.stack([np.interp(positions, x, y[:, c]) for c in range(y.shape[1])], axis=1)


def _course(
    names: list[str], sizes: NDArray[np.float64], p: SpineParameters, rng: np.random.Generator
) -> tuple[list[tuple[float, float]], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return start and end of the levels along the curve, the samples of the curve, their positions and frames."""
    tilts = _tilts(names, p, rng)
    above = 22.0 * p.scale  # from the upper end of the curve, at the foramen magnum, to the top of C1
    knots, angles, spans = [0.0], [tilts[0] - 2.0], []
    s = above
    for i, name in enumerate(names):
        height = sizes[i, 2]
        if name == "C2":
            s += 5.0 * p.scale  # the dens fills the gap to C1
        # Discs take most of a lordotic change, bodies most of a kyphotic one.
        upper = tilts[i] - tilts[i - 1] if i else 0.0
        lower = tilts[i + 1] - tilts[i] if i + 1 < len(names) else 0.0
        share = [0.5 if name in SACRAL else (0.17 if change > 0 else 0.3) for change in (upper, lower)]
        if name == "S1":
            share[0] = 0.1
        knots += [s, s + height / 2, s + height]
        angles += [tilts[i] - share[0] * upper, tilts[i], tilts[i] + share[1] * lower]
        spans.append((s, s + height))
        s += height + sizes[i, 3]
    knots.append(s + 6.0)
    angles.append(angles[-1])
    line = np.arange(0.0, s + 6.0, _STEP)
    tilt = np.interp(line, knots, angles)
    # Stand upright: the line from C7 to S1 is nearly vertical.
    c7, s1 = spans[names.index("C7")][0], spans[names.index("S1")][0]
    trunk = (line >= c7) & (line <= s1)
    tilt -= np.rad2deg(np.arctan2(np.sin(np.deg2rad(tilt[trunk])).sum(), np.cos(np.deg2rad(tilt[trunk])).sum()))
    tilt += rng.normal(0, 2.5)
    lean, turn = np.full_like(line, rng.normal(0, 1.0)), np.zeros_like(line)
    for cobb, apex, extent in zip(p.cobb, p.apex, p.extent, strict=True):
        t = (line / line[-1] - apex) / extent
        lean += 0.5 * cobb * t * np.exp(0.5 - t**2 / 2)
        turn += 0.45 * cobb * np.exp(-(t**2) / 2)
    balance = (line >= spans[1][0]) & (line <= s1)
    lean -= 0.9 * np.rad2deg(
        np.arctan2(np.sin(np.deg2rad(lean[balance])).sum(), np.cos(np.deg2rad(lean[balance])).sum())
    )
    # A sagittal tilt turns about x the other way.
    axes = Rotation.from_euler("YXZ", np.stack([lean, -tilt, turn], axis=1), degrees=True).as_matrix()
    points = np.cumsum(np.concatenate([np.zeros((1, 3)), -axes[:-1, :, 2] * _STEP]), axis=0)
    anchor = points[round(s1 / _STEP)]
    return spans, line, points - np.array([points[trunk][:, 0].mean(), anchor[1], anchor[2]]), axes


def build_column(rng: np.random.Generator, variant: SpineVariant, p: SpineParameters) -> SpinalColumn:
    """Build the geometry of a spine.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the per-level variation.
    variant : SpineVariant
        Numbers of thoracic and lumbar vertebrae.
    p : SpineParameters
        Parameters of the subject.

    Returns
    -------
    SpinalColumn
        Column whose centre is near x = 0 and whose sacral endplate is at y = z = 0.
    """
    names = _names(variant)
    grades = draw_grades(names, p.degeneration, rng)
    sizes = _sizes(names, p, grades, rng)
    spans, line, points, axes = _course(names, sizes, p, rng)
    canal_table = _by_level(names, CANAL, "S3") * p.scale * p.canal / 2
    levels = []
    plates = _endplates(names, sizes, grades, p, rng)
    for i, name in enumerate(names):
        top, bottom = spans[i]
        frame, upper, lower = (
            LocalFrame(points[round(at / _STEP)], axes[round(at / _STEP)]) for at in ((top + bottom) / 2, top, bottom)
        )
        half = canal_table[min(i, len(canal_table) - 1)]
        levels.append(
            SpinalLevel(
                name=name,
                kin=_kin(name),
                width=float(sizes[i, 0]),
                depth=float(sizes[i, 1]),
                height=float(sizes[i, 2]),
                frame=frame,
                top=upper,
                bottom=lower,
                at=(top, bottom),
                canal=(float(half[0]), float(half[1])),
                upper=plates[i][0],
                lower=plates[i][1],
            )
        )
    canal, sac, cord = _tubes(names, levels, (line, points, axes), canal_table, p=p, rng=rng)
    mobile = [(name, float(grade)) for name, grade in zip(names, grades, strict=True) if name not in SACRAL]
    discs = [draw_disc_shape(name[0], grade, p.scale, rng) for name, grade in mobile[1:]]
    if p.block in variant.discs():
        discs[variant.discs().index(p.block)] = DiscShape(fused=True)
    return SpinalColumn(tuple(levels), tuple(discs), points, axes, canal, sac, cord)


#: Mean depth of the upper and lower endplate, as a fraction of the body's height.
_DOMES = {"C": (0.03, 0.045), "T": (0.028, 0.04), "L": (0.033, 0.048)}


def _endplates(
    names: list[str],
    sizes: NDArray[np.float64],
    grades: NDArray[np.float64],
    p: SpineParameters,
    rng: np.random.Generator,
) -> list[tuple[Endplate, Endplate]]:
    """Draw the upper and lower endplate of each level; fractures are thoracolumbar."""
    plates = []
    for i, name in enumerate(names):
        height = float(sizes[i, 2])
        if name in SACRAL or name == "C1":
            upper = draw_endplate(0.05 * height, height, float(grades[i - 1]), rng) if name == "S1" else FLAT
            plates.append((upper, FLAT))
            continue
        domes = _DOMES[name[0]]
        upper = draw_endplate((0.02 if name == "C2" else domes[0]) * height, height, float(grades[i - 1]), rng)
        plates.append((upper, draw_endplate(domes[1] * height, height, float(grades[i]), rng)))
    low = names.index("T5")
    for i in rng.choice(range(low, names.index("S1")), p.fractures, replace=False):
        plates[i] = (fracture(plates[i][0], float(sizes[i, 2]), rng), plates[i][1])
    return plates


def _tubes(
    names: list[str],
    levels: list[SpinalLevel],
    curve: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    canal_table: NDArray[np.float64],
    *,
    p: SpineParameters,
    rng: np.random.Generator,
) -> tuple[Tube, Tube, Tube]:
    """Build bony canal, dural sac and cord: half axes by level, centres behind the bodies."""
    line, points, axes = curve
    middles = np.array([sum(level.at) / 2 for level in levels])
    n = len(canal_table)
    use = slice(0, int(levels[n - 1].at[1] / _STEP), 6)
    at = line[use]
    half = np.stack([np.interp(at, middles[:n], canal_table[:, c]) for c in range(2)], axis=1)
    # The canal's front follows the bodies' waisted backs; its back is smooth. The dens is thinner than a body.
    where, front, bay = [], [], []
    for level in levels[:n]:
        deep = 8.0 * p.scale if level.name == "C1" else level.depth / 2 + 0.6 * p.scale
        hollow = {"C": 0.5, "T": 2.0, "L": 2.2, "S": 0.0}[level.region] * p.scale if level.name != "C2" else 0.0
        where += [level.at[0], sum(level.at) / 2, level.at[1]]
        front += [np.nan if level.region == "S" else deep, deep, np.nan if level.region == "S" else deep]
        bay += [0.0, hollow, 0.0]
    known = np.isfinite(front)
    edge = gaussian_filter1d(np.interp(at, np.array(where)[known], np.array(front)[known]), 1.5, mode="nearest")
    gain = gaussian_filter1d(np.interp(at, where, bay), 1.0)
    back = edge + half[:, 1]
    half[:, 1] += gain / 2
    back -= gain / 2
    center = points[use] - axes[use, :, 1] * back[:, None]
    canal = Tube(center, half, axes[use, :, 0], axes[use, :, 1])

    # The sac follows the bays of the bodies' backs less than the bone does.
    sac_table = _by_level(names, SAC, "S2")
    sac_table[:, :2] *= p.canal
    width, depth, ahead = (
        p.scale * np.interp(at, middles[: len(sac_table)], sac_table[:, c], right=-1.0) for c in range(3)
    )
    within = at <= middles[len(sac_table) - 1]
    back = edge - 0.6 * p.scale + ahead - 0.6 * gain + depth / 2
    middle = points[use] - axes[use, :, 1] * back[:, None]
    sac = Tube(middle, np.stack([width, depth], axis=1) / 2, axes[use, :, 0], axes[use, :, 1]).part(within)

    # The size of the cord differs between people of one height more than with the height.
    size = np.sqrt(p.scale) * np.clip(rng.normal(1.03, 0.09), 0.85, 1.25)
    cord_table = _by_level(names, CORD, [name for name in names if name[0] == "T"][-1]) * size / 2
    last = len(cord_table)
    l1 = names.index("L1")
    end = float(np.interp(l1 - 0.5 + p.conus, np.arange(len(middles)), middles))
    half_width, play = width / 2, depth / 2
    width = np.stack([np.interp(at, middles[:last], cord_table[:, c]) for c in range(2)], axis=1)
    taper = np.clip((end - at) / (38.0 * p.scale), 0.0, 1.0) ** 0.6
    width *= taper[:, None]
    inner = np.stack([half_width, play], axis=1) - _CORD_CLEARANCE_MM
    width = np.minimum(width, inner)
    keep = (taper > 0.12) & (width.min(axis=1) > 0.6)
    # The cord follows the concave side: against the front of the sac in the thorax, near its middle in the neck,
    # posterior at the conus. Few cords lie exactly in the middle from left to right.
    places = middles[[0, 4, 10, 14, l1]]
    forward = np.interp(at, places, np.clip(rng.normal([0.0, 0.3, 0.85, 0.7, -0.3], 0.3), -0.9, 1.0))
    aside = np.interp(at, places, np.clip(rng.normal(0.0, 0.2, 5), -0.6, 0.6))
    play = (inner - width) * np.stack([aside, forward], axis=1)
    cord_center = middle + (axes[use, :, :2] * play[:, None]).sum(axis=2)
    return canal, sac, Tube(cord_center, width, axes[use, :, 0], axes[use, :, 1]).part(keep)
