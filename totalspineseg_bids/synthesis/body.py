"""The body around a column: skin, fat, muscles with septa, chest, abdomen, neck, head and pelvis.

Everything is laid out slice by slice relative to the column, coarsely but with the neighbours of the spine
that make MR images what they are: psoas and erector muscles, aorta, lungs beside the vertebrae, bowel with
gas, ribs, iliac wings, brain stem above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, zoom

from totalspineseg_bids.synthesis.canvas import Canvas, FloatArray, ellipse_rows, polyline, rod, rows
from totalspineseg_bids.synthesis.curve import Column, SpineParameters

SOFT, MUSCLE, BONE, LUNG, GAS, VESSEL, ORGAN, BRAIN, FAT = range(1, 10)


@dataclass(frozen=True, slots=True)
class Landscape:
    """Where things are, slice by slice.

    Attributes
    ----------
    z, y
        Slice and row coordinates, mm.
    x_column, y_column
        Centre of the vertebral bodies in each slice.
    y_smooth
        The same, smoothed: the course of the trunk.
    height
        z of the middle of each level.
    size
        The subject's scale.
    """

    z: FloatArray
    y: FloatArray
    x_column: FloatArray
    y_column: FloatArray
    y_smooth: FloatArray
    height: dict[str, float]
    size: float

    def profile(self, knots: list[tuple[str, float]]) -> FloatArray:
        """Interpolate values given at levels (``"T4"``, ``"T4+20"``: 20 mm above it) to every slice."""
        at, values = [], []
        for name, value in knots:
            level, _, up = name.partition("+")
            at.append(self.height[level] + float(up or 0) * self.size)
            values.append(value * self.size)
        order = np.argsort(at)
        line = np.interp(self.z, np.array(at)[order], np.array(values)[order])
        return gaussian_filter1d(line, 3.0 * self.size).astype(np.float32)

    def point(self, level: str, right: float, front: float, up: float = 0.0) -> NDArray[np.float64]:
        """Return the place beside a level, mm from the centre of its body along the body's axes."""
        z = self.height[level] + up * self.size
        x, y = (float(np.interp(z, self.z, line)) for line in (self.x_column, self.y_column))
        return np.array([x + right * self.size, y + front * self.size, z])


def landscape(canvas: Canvas, column: Column, scale: float) -> Landscape:
    """Measure where the column lies in every slice of a canvas."""
    z, y = canvas.coordinates(2), canvas.coordinates(1)
    line = column.points[::-1]
    x_column = np.interp(z, line[:, 2], line[:, 0]).astype(np.float32)
    y_column = np.interp(z, line[:, 2], line[:, 1]).astype(np.float32)
    smooth = gaussian_filter1d(y_column, 22.0 * scale / canvas.spacing, mode="nearest").astype(np.float32)
    height = {level.name: float(level.frame.origin[2]) for level in column.levels}
    last = [level.name for level in column.levels if level.region == "T"][-1]
    lumbar = [level.name for level in column.levels if level.region == "L"]
    # Names that every spine has, whatever its variant.
    height |= {"T12": height[last], "L4": height[lumbar[-2]], "L5": height[lumbar[-1]]}
    height.setdefault("L3", height[lumbar[len(lumbar) // 2]])
    return Landscape(z, y, x_column, y_column, smooth, height, scale)


def paint_body(canvas: Canvas, column: Column, p: SpineParameters, rng: np.random.Generator) -> Landscape:
    """Paint everything around the column, before the column itself.

    Parameters
    ----------
    canvas
        Empty canvas.
    column
        The spine.
    p
        The subject.
    rng
        Draws shapes and places of organs.

    Returns
    -------
    Landscape
        For what is painted after the column, see `paint_septa`.
    """
    land = landscape(canvas, column, p.scale)
    _outline(canvas, land, p, rng)
    _cavities(canvas, land, p, rng)
    _abdomen(canvas, land, p, rng)
    _vessels(canvas, land, rng)
    _neck_and_head(canvas, land, p, rng)
    _trunk_muscles(canvas, land, rng)
    _pelvis(canvas, land, rng)
    _ribs(canvas, column, land, p, rng)
    return land


def _smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], cell: tuple[float, float], amplitude: float
) -> FloatArray:
    """Smooth random field of a shape; ``cell`` is the feature size in voxels."""
    coarse = [max(2, int(np.ceil(n / c)) + 1) for n, c in zip(shape, cell, strict=True)]
    field = zoom(rng.standard_normal(coarse), [n / c for n, c in zip(shape, coarse, strict=True)], order=1, grid_mode=True, mode="nearest")
    return (amplitude * field[: shape[0], : shape[1]]).astype(np.float32)


def _outline(canvas: Canvas, land: Landscape, p: SpineParameters, rng: np.random.Generator) -> None:
    """Skin, subcutaneous fat, and muscle filling the rest."""
    g = p.girth
    width = land.profile([
        ("C1+75", 66), ("C1+30", 76), ("C1", 70), ("C3", 58), ("C5", 57 * g), ("C7", 80 * g), ("T1", 120 * g), ("T3", 185 * g),
        ("T8", 160 * g), ("L3", 148 * g), ("S1", 168 * g), ("Co1", 170 * g),
    ])  # fmt: skip
    front = land.profile([
        ("C1+75", 80), ("C1+40", 98), ("C1", 100), ("C3", 78), ("C5", 56), ("C7", 60), ("T2", 92 * g), ("T5", 132 * g), ("T9", 158 * g),
        ("L1", 150 * g), ("L4", 128 * g), ("S1", 120 * g), ("S3", 150 * g), ("Co1", 140 * g),
    ])  # fmt: skip
    back = land.profile([
        ("C1+75", 88), ("C1+30", 82), ("C1", 62), ("C3", 55), ("C5", 55), ("C7", 62), ("T2", 66), ("T6", 66), ("T10", 62), ("L2", 72), ("L4", 76),
        ("S1", 66), ("S3", 46), ("Co1", 50),
    ])  # fmt: skip
    fat = p.fat * land.profile([("C1+30", 0.35), ("C3", 0.6), ("C6", 1.0), ("T3", 1.0), ("T8", 0.8), ("L2", 1.1), ("L5", 1.7), ("S3", 2.0), ("Co1", 2.2)]) / p.scale
    belly = fat * land.profile([("C1", 0.6), ("T3", 0.5), ("T10", 0.7), ("L3", 1.6), ("S2", 1.6)]) / p.scale
    x = gaussian_filter1d(land.x_column, 45.0 * p.scale / canvas.spacing, mode="nearest").astype(np.float32) * 0.6
    back += gaussian_filter1d(rng.standard_normal(len(land.z)), 18 / canvas.spacing).astype(np.float32) * 6.0
    top, bottom = land.y_smooth + front, land.y_smooth - back
    for inset_front, inset_back, label in (
        (-belly - 2.0, -fat - 2.0, SOFT),
        (-belly, -fat, FAT),
        (np.zeros_like(fat), np.zeros_like(fat), MUSCLE),
    ):
        y1, y0 = top - inset_front, bottom + inset_back
        half = width - 0.5 * (inset_front + inset_back)
        low, high = ellipse_rows(land.y, (x, (y0 + y1) / 2), half, (y1 - y0) / 2, 2.5)
        rows(canvas, low, high, label)


def _cavities(canvas: Canvas, land: Landscape, p: SpineParameters, rng: np.random.Generator) -> None:
    """Chest with lungs, abdomen and pelvis filled with soft tissue (visceral fat)."""
    g = p.girth
    # Chest: an ellipse whose back wall lies behind the vertebral bodies.
    half = land.profile([("T1+8", 0), ("T1", 34), ("T2", 62 * g), ("T4", 104 * g), ("T8", 126 * g), ("T12", 126 * g)])
    front = land.profile([("T1+8", 10), ("T1", 30), ("T2", 62), ("T4", 100 * g), ("T8", 138 * g), ("T12", 135 * g)])
    back = land.profile([("T1+8", 2), ("T1", 10), ("T2", 20), ("T4", 33), ("T8", 40), ("T11", 38), ("T12", 30)])
    top = land.height["T1"] + 8 * p.scale
    floor = land.height["T12"] - 6 * p.scale
    chest = (land.z < top) & (land.z > floor)
    middle = 0.4 * land.x_column
    y0, y1 = land.y_smooth - back, land.y_smooth + front
    depth = np.where(chest, (y1 - y0) / 2, 0.0).astype(np.float32)
    low, high = ellipse_rows(land.y, (middle, (y0 + y1) / 2), half, depth, 2.3)
    rows(canvas, low, high, SOFT, (MUSCLE,))
    # Lungs: the chest less the mediastinum; the domes of the diaphragm are pressed into them afterwards.
    space = np.where(land.z > floor + 4 * p.scale, np.float32(0), np.nan).astype(np.float32)[:, None]
    ahead = land.y[None, :] - land.y_column[:, None]
    body = land.profile([("T1", 16), ("T6", 18), ("T12", 23)])[:, None]
    wide = land.profile([("T1", 22), ("T4", 26), ("T7", 38), ("T12", 34)])[:, None]
    near = np.where(ahead < 0, body + 2.0 * p.scale, body + (wide - body) * np.clip(ahead / (35 * p.scale), 0, 1))
    near = near + _smooth_noise(rng, near.shape, (30, 25), 2.0)
    inset = 5.0 * p.scale
    center = land.x_column[:, None]
    rows(canvas, center + near + space, high - inset, LUNG, (SOFT,))
    rows(canvas, low + inset, center - near + space, LUNG, (SOFT,))
    for side in (-1.0, 1.0):
        lift = float(rng.normal(4.0 * side, 8.0))
        for shell, label, give_way in ((0.0, MUSCLE, (LUNG,)), (3.0, SOFT, (MUSCLE, LUNG))):
            sizes = tuple(p.scale * (v - shell) for v in (80.0, 84.0, 84.0))
            _blob(canvas, land.point("T12", side * 58, 56, 8 + lift), (sizes[0], sizes[1], sizes[2]), label, give_way)
    # Abdomen and pelvis: in front of the bodies' backs; muscle stays behind and at the wall.
    half = land.profile([("T10", 112 * g), ("L1", 126 * g), ("L3", 122 * g), ("S1", 112 * g), ("S3", 70), ("Co1", 58)])
    front = land.profile([("T10", 140 * g), ("L2", 132 * g), ("L4", 112 * g), ("S1", 104 * g), ("S3", 118), ("Co1", 110)])
    back = land.profile([("T10", 30), ("L1", 12), ("L3", 2), ("L5", 0), ("S1", 4), ("S2", 6), ("S4", 2), ("Co1", 0)])
    y0, y1 = land.y_smooth - back, land.y_smooth + front
    depth = np.where(land.z < land.height["T10"] + 20 * p.scale, (y1 - y0) / 2, 0.0).astype(np.float32)
    low, high = ellipse_rows(land.y, (middle, (y0 + y1) / 2), half, depth, 2.4)
    rows(canvas, low, high, SOFT, (MUSCLE,))


def _blob(
    canvas: Canvas, center: NDArray[np.float64], radii: tuple[float, float, float], label: int, replace: tuple[int, ...]
) -> None:
    """Paint an ellipsoid given by its half axes right, front, up."""
    rise = (canvas.coordinates(2) - center[2]) / radii[2]
    shrink = np.sqrt(np.maximum(1.0 - np.square(rise), 0.0)).astype(np.float32)
    middle = np.full_like(shrink, center[0]), np.full_like(shrink, center[1])
    low, high = ellipse_rows(canvas.coordinates(1), middle, shrink * radii[0], shrink * radii[1])
    rows(canvas, low, high, label, replace)


def _abdomen(canvas: Canvas, land: Landscape, p: SpineParameters, rng: np.random.Generator) -> None:
    """Liver, spleen, stomach, kidneys and bowel."""
    k = p.scale

    def jitter(mm: float) -> float:
        return float(rng.normal(0, mm))

    inside = (SOFT,)
    _blob(canvas, land.point("T11", 62 + jitter(6), 62 + jitter(6), 8 + jitter(10)), (68 * k, 68 * k, 74 * k), ORGAN, inside)
    _blob(canvas, land.point("T10", -58 + jitter(6), 72 + jitter(8), -12), (48 * k, 52 * k, 52 * k), ORGAN, inside)
    _blob(canvas, land.point("T11", -84 + jitter(4), 2 + jitter(5), 4), (26 * k, 36 * k, 44 * k), ORGAN, inside)
    # Reach of the diaphragm: a thin muscle along the spine (crura).
    for side in (-1.0, 1.0):
        path = np.array([land.point("T11", side * 18, 17), land.point("L1", side * 15, 20), land.point("L3", side * 9, 21)])
        polyline(canvas, path, k * np.array([[5.0, 5.0], [5.0, 4.0], [2.0, 2.0]]), MUSCLE, replace=inside)
        kidney = land.point("L1", side * (60 + jitter(4)), -2 + jitter(5), -8 + jitter(8))
        _blob(canvas, kidney, (26 * k, 25 * k, 54 * k), ORGAN, inside)
        _blob(canvas, kidney - [side * 9 * k, -3 * k, 0], (11 * k, 10 * k, 24 * k), SOFT, (ORGAN,))
    lowest, highest = land.height["S3"], land.height["L1"]
    for _ in range(int(rng.integers(60, 95))):
        z = float(rng.uniform(lowest, highest))
        y = float(np.interp(z, land.z, land.y_smooth)) + float(rng.uniform(34, 125)) * k
        center = np.array([rng.uniform(-88, 88) * k, y, z])
        tilt = rng.normal(0, 1, 3)
        reach = float(rng.uniform(8, 26)) * k
        radius = float(rng.uniform(7, 14)) * k
        end = center + reach * tilt / np.linalg.norm(tilt)
        rod(canvas, center, end, (radius, radius), (radius, radius), ORGAN, replace=inside)
        if rng.random() < 0.3:
            r = radius * float(rng.uniform(0.4, 0.75))
            rod(canvas, center, end, (r, r), (r, r), GAS, replace=(ORGAN,))
    rectum = np.array([land.point("S2", jitter(6), 30), land.point("S4", jitter(4), 26), land.point("Co1", 0, 30, -10)])
    polyline(canvas, rectum, k * np.array([[13.0, 12.0], [16.0, 14.0], [12.0, 12.0]]), ORGAN, replace=inside)
    if rng.random() < 0.6:
        polyline(canvas, rectum[:2], k * np.array([[6.0, 5.0], [9.0, 7.0]]), GAS, replace=(ORGAN,))
    _blob(canvas, land.point("S4", jitter(4), 78 + jitter(6), -10), (36 * k, 26 * k, 26 * k), ORGAN, inside)


def _vessels(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> None:
    """Heart, aorta, caval vein, lung hila and carotids."""
    k = land.size
    inside = (SOFT, LUNG)
    heart = land.point("T7", -14 + rng.normal(0, 4), 82 + rng.normal(0, 5), rng.normal(0, 8))
    _blob(canvas, heart, (52 * k, 42 * k, 54 * k), VESSEL, inside)
    side = float(rng.uniform(10, 17))
    radius = float(rng.uniform(9, 13)) * k
    down = np.array([
        land.point("T4", -side, 22), land.point("T6", -side - 6, 18), land.point("T9", -side, 24),
        land.point("T12", -7, 31), land.point("L2", -8, 32), land.point("L4", -3, 32),
    ])  # fmt: skip
    sizes = radius * np.array([1.25, 1.2, 1.1, 1.0, 0.85, 0.8])
    polyline(canvas, down, np.stack([sizes, sizes], axis=1), VESSEL, replace=(*inside, ORGAN))
    arch = np.array([down[0], land.point("T3", -8, 48), land.point("T4", 6, 70), land.point("T6", 6, 76)])
    polyline(canvas, arch, np.full((4, 2), 1.3 * radius), VESSEL, replace=inside)
    cava = np.array([land.point("T9", 26, 50), land.point("T12", 24, 36), land.point("L2", 20, 31), land.point("L5", 14, 30)])
    polyline(canvas, cava, np.full((4, 2), radius) * [1.1, 0.85], VESSEL, replace=(*inside, ORGAN))
    for s in (-1.0, 1.0):
        iliac = np.array([land.point("L4", s * 4, 32), land.point("L5", s * 24, 30), land.point("S1", s * 46, 34), land.point("S3", s * 60, 60)])
        polyline(canvas, iliac, np.full((4, 2), 0.7 * radius), VESSEL, replace=(SOFT, MUSCLE))
        for _ in range(9):
            z = float(rng.uniform(-45, 45))
            start = land.point("T6", s * 36, 45 + float(rng.normal(0, 10)), z)
            end = start + k * np.array([s * rng.uniform(10, 35), rng.normal(0, 22), rng.normal(0, 22)])
            r = float(rng.uniform(1.6, 4.5)) * k
            rod(canvas, start, end, (r, r), (0.5 * r, 0.5 * r), VESSEL, replace=(LUNG,))


def _neck_and_head(canvas: Canvas, land: Landscape, p: SpineParameters, rng: np.random.Generator) -> None:
    """Visceral compartment and vessels of the neck, airway, skull with brain, jaw."""
    k = p.scale
    z = land.z
    neck = (z > land.height["T2"]) & (z < land.height["C1"] + 20 * k)
    front = land.profile([("T2", 56), ("C7", 50), ("C5", 48), ("C3", 66), ("C1", 88)])
    half = land.profile([("T2", 40), ("C7", 38), ("C5", 36), ("C3", 46), ("C1", 58)])
    near = land.profile([("T2", 12), ("C7", 11), ("C3", 11), ("C1", 12)])
    depth = np.where(neck, (front - near) / 2, 0.0).astype(np.float32)
    low, high = ellipse_rows(land.y, (land.x_column, land.y_column + (front + near) / 2), half, depth, 2.2)
    rows(canvas, low, high, SOFT, (MUSCLE,))
    for _ in range(12):  # lymph nodes, glands, tongue base: muscle-like lumps
        place = land.point(str(rng.choice(["C2", "C3", "C4", "C5"])), float(rng.normal(0, 26)), float(rng.uniform(24, 60)))
        r = rng.uniform(5, 13, 3) * k
        _blob(canvas, place, (float(r[0]), float(r[1]), float(r[2])), MUSCLE, (SOFT,))
    ahead = float(rng.uniform(20, 25))
    air = np.array([
        land.point("C1", 0, ahead + 5, 14), land.point("C2", 0, ahead - 1), land.point("C4", 0, ahead), land.point("C6", 0, ahead + 6),
        land.point("T1", 0, ahead + 8), land.point("T4", 2, ahead + 15),
    ])  # fmt: skip
    wide = k * np.array([[12, 7], [13, 5.5], [10, 7], [8, 8], [8.5, 8], [8.5, 8]])
    polyline(canvas, air, wide, GAS, replace=(SOFT, MUSCLE))
    for side in (-1.0, 1.0):
        bronchus = land.point("T6", side * 28, ahead + 22)
        rod(canvas, air[-1], bronchus, (7 * k, 7 * k), (5 * k, 5 * k), GAS, replace=(SOFT, LUNG, VESSEL))
        carotid = np.array([land.point("T2", side * 14, 34), land.point("C6", side * 24, 20), land.point("C3", side * 27, 17), land.point("C1", side * 26, 14, 10)])
        polyline(canvas, carotid, np.full((4, 2), 3.4 * k), VESSEL, replace=(SOFT, MUSCLE))
        jugular = carotid + k * np.array([side * 9.0, -1.0, 0.0])
        polyline(canvas, jugular, np.full((4, 2), 4.4 * k), VESSEL, replace=(SOFT, MUSCLE))
        longus = np.array([land.point("C1", side * 7, 10), land.point("C4", side * 9, 11), land.point("T2", side * 8, 11)])
        polyline(canvas, longus, k * np.array([[5.0, 3.0], [6.0, 4.0], [4.0, 3.0]]), MUSCLE, replace=(SOFT,))
    gullet = np.array([land.point("C6", -3, 15), land.point("T3", -5, 19), land.point("T8", -3, 30), land.point("T11", -14, 40)])
    polyline(canvas, gullet, np.full((4, 2), 5.5 * k) * [1.3, 1.0], MUSCLE, replace=(SOFT, LUNG))
    _head(canvas, land, k, rng)


def _head(canvas: Canvas, land: Landscape, k: float, rng: np.random.Generator) -> None:
    """Skull with brain; clivus and occiput around the foramen magnum; jaw and palate."""
    top = land.point("C1", 0, 0, 0)
    base = 27.0 + float(rng.normal(0, 2))  # height of the skull base above the atlas
    center = top + k * np.array([0.0, 2.0, base + 62.0])
    _blob(canvas, center, (72 * k, 92 * k, 70 * k), BONE, (MUSCLE, SOFT, FAT))
    _blob(canvas, center, (66 * k, 86 * k, 64 * k), BRAIN, (BONE,))
    # Posterior fossa with the cerebellum, bulging down behind the foramen.
    fossa = top + k * np.array([0.0, -34.0, base + 6.0])
    _blob(canvas, fossa, (54 * k, 34 * k, 27 * k), BONE, (MUSCLE, SOFT))
    _blob(canvas, fossa, (50 * k, 30 * k, 23 * k), BRAIN, (BONE,))
    for side in (-1.0, 1.0):  # condyles on the atlas
        start, end = top + k * np.array([side * 17, -1, 16.0]), top + k * np.array([side * 19, -6, base])
        rod(canvas, start, end, (5.5 * k, 9 * k), (9 * k, 12 * k), BONE, replace=(MUSCLE, SOFT))
        jaw = np.array([top + k * np.array([side * 48, 22, 10.0]), top + k * np.array([side * 47, 30, -28.0]), top + k * np.array([side * 14, 84, -44.0])])
        polyline(canvas, jaw, k * np.array([[4.5, 9.0], [4.5, 9.0], [5.0, 9.0]]), BONE, replace=(MUSCLE, SOFT))
    clivus = np.array([top + k * np.array([0, 6, base - 6.0]), top + k * np.array([0, 24, base + 24.0])])
    polyline(canvas, clivus, k * np.array([[15.0, 4.0], [15.0, 7.0]]), BONE, replace=(MUSCLE, SOFT, BRAIN))
    face = top + k * np.array([0.0, 66.0, 22.0])
    _blob(canvas, face, (26 * k, 32 * k, 5 * k), BONE, (MUSCLE, SOFT))
    nose = top + k * np.array([0.0, 58.0, 36.0])
    _blob(canvas, nose, (13 * k, 34 * k, 9 * k), GAS, (MUSCLE, SOFT, BONE))
    # Cisterns and brain stem: the canal runs on into the head.
    stem = np.array([top + k * np.array([0, -14.0, base - 8]), top + k * np.array([0, -8, base + 30.0])])
    polyline(canvas, stem, k * np.array([[11.0, 9.0], [20.0, 16.0]]), BRAIN, replace=(MUSCLE, SOFT, BONE))


def _trunk_muscles(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> None:
    """Psoas and quadratus lumborum in the cavity beside the lumbar bodies."""
    k = land.size
    bulk = float(rng.uniform(0.8, 1.2))
    for side in (-1.0, 1.0):
        psoas = np.array([
            land.point("T12", side * 22, 0, -8), land.point("L2", side * 31, 0), land.point("L4", side * 41, 3),
            land.point("S1", side * 58, 24), land.point("S3", side * 72, 62),
        ])  # fmt: skip
        radii = k * bulk * np.array([[4.0, 5.0], [10.0, 12.0], [16.0, 18.0], [18.0, 18.0], [14.0, 14.0]])
        polyline(canvas, psoas, radii, MUSCLE, replace=(SOFT, ORGAN))
        quadratus = np.array([land.point("L1", side * 46, -20), land.point("L4", side * 66, -12)])
        polyline(canvas, quadratus, k * bulk * np.array([[16.0, 6.0], [20.0, 8.0]]), MUSCLE, replace=(SOFT, ORGAN))


def _pelvis(canvas: Canvas, land: Landscape, rng: np.random.Generator) -> None:
    """Iliac wings beside the sacrum, pubic and ischial bone in front and below."""
    k = land.size
    z, y = land.z, land.y
    crest = land.height["L5"] + float(rng.uniform(-4, 16)) * k
    foot = land.height["S3"] - 6 * k
    # In each slice the wing runs from beside the sacrum forward and outward.
    rise = np.clip((z - foot) / (crest - foot), 0.0, 1.0)
    y_back = np.interp(z, [foot, land.height["S1"], crest], [land.point("S3", 0, -6)[1], land.point("S1", 0, -52)[1], land.point("S1", 0, -30)[1]])
    x_back = np.interp(rise, [0.0, 0.35, 0.8, 1.0], np.array([58.0, 45.0, 52.0, 72.0]) * k)
    ahead = y[None, :] - y_back[:, None]
    inner = x_back[:, None] + 0.42 * np.maximum(ahead, 0) + _smooth_noise(rng, ahead.shape, (40, 30), 1.5)
    thick = (7.0 + 9.0 * np.exp(-(((ahead / k - 18) / 26) ** 2))) * k * np.sqrt(np.clip(4 * rise * (1.15 - rise), 0, 1))[:, None]
    thick = np.where((ahead > 0) & (ahead < 150 * k) & ((z > foot) & (z < crest))[:, None], thick, np.nan)
    thick = thick * np.clip(ahead / (8 * k), 0.2, 1.0)
    replace = (SOFT, MUSCLE, ORGAN, FAT)
    rows(canvas, (inner).astype(np.float32), (inner + thick).astype(np.float32), BONE, replace)
    rows(canvas, (-inner - thick).astype(np.float32), (-inner).astype(np.float32), BONE, replace)
    for side in (-1.0, 1.0):
        socket = land.point("S4", side * 84, 42, -4)
        _blob(canvas, socket, (20 * k, 26 * k, 30 * k), BONE, replace)
        pubis = np.array([socket + [0, 14 * k, 0], land.point("Co1", side * 5, 112, -8)])
        polyline(canvas, pubis, k * np.array([[9.0, 9.0], [8.0, 14.0]]), BONE, replace=replace)
        piriformis = np.array([land.point("S2", side * 20, 14), land.point("S4", side * 74, 10, 0)])
        polyline(canvas, piriformis, k * np.array([[8.0, 8.0], [10.0, 10.0]]), MUSCLE, replace=(SOFT,))


def _ribs(canvas: Canvas, column: Column, land: Landscape, p: SpineParameters, rng: np.random.Generator) -> None:
    """Ribs from head to flank and breastbone; the last two are short."""
    thoracic = [level for level in column.levels if level.region == "T"]
    count = len(thoracic)
    k = p.scale
    drop = float(rng.uniform(0.42, 0.62))  # mm downward per mm along the rib
    for i, level in enumerate(thoracic):
        fraction = i / (count - 1)
        half = np.interp(fraction, [0, 0.12, 0.3, 0.65, 1.0], [44, 70, 108, 130, 124]) * p.girth * k
        deep = np.interp(fraction, [0, 0.12, 0.3, 0.65, 1.0], [34, 52, 82, 98, 92]) * p.girth * k
        last = i - count  # -1 is the last rib
        reach = {-1: 0.30 + float(rng.uniform(-0.14, 0.1)), -2: 0.62}.get(last, 1.5)
        if level.name == "T13":
            reach = float(rng.uniform(0.1, 0.3))
        frame = level.frame
        canal_width, ap = level.canal
        behind = -(level.depth / 2 + 2 * ap + 11 * k)
        for side in (-1.0, 1.0):
            head = frame.at(side * (level.width / 2 - 1.0), -0.55 * level.depth, 0.40 * level.height)
            neck = frame.at(side * (np.interp(fraction, [0, 0.5, 1.0], [34, 28, 25]) + 2) * k, behind + 10 * k, 0.25 * level.height)
            points = [head, neck]
            angles = np.linspace(0.10, reach, max(2, int(9 * reach)))
            start = frame.at(side * 46 * k, behind - 1.0 * k, 0.0)
            center = start - [side * 46 * k, -deep, 0.0]
            for a in angles:
                turn = a * np.pi / 1.5
                along = np.hypot(half, deep) * turn
                point = center + [side * half * np.sin(turn) ** 0.9, -deep * np.cos(turn), -drop * 0.5 * along]
                points.append(point)
            path = np.array(points)
            sizes = k * np.array([[3.2, 4.6], [2.8, 4.2], *[[2.9, 5.2]] * (len(path) - 2)])
            polyline(canvas, path, sizes, BONE, across=np.array([0.0, 1.0, 0.0]), replace=(SOFT, MUSCLE, LUNG, ORGAN, FAT))
    top, bottom = land.point("T3", 0, 88), land.point("T9", 0, 150 * p.girth)
    rod(canvas, top, bottom, (17 * k, 5 * k), (15 * k, 5 * k), BONE, replace=(SOFT, MUSCLE, FAT, LUNG, VESSEL))


def paint_septa(canvas: Canvas, land: Landscape, p: SpineParameters, rng: np.random.Generator) -> None:
    """Thin sheets of fat and fascia between the muscles behind the column, and ligament in the midline.

    Muscle in MR images is never uniform; without such sheets a network takes any dark muscle for bone.

    Parameters
    ----------
    canvas
        Canvas with body and column painted; only muscle is replaced.
    land
        From `paint_body`.
    p
        The subject; more fat makes thicker sheets.
    rng
        Draws the sheets.
    """
    nz, ny = len(land.z), len(land.y)
    k = p.scale
    cell = 26.0 / canvas.spacing
    behind = land.y[None, :] < (land.y_column - 14 * k)[:, None]
    fatty = float(np.clip(p.fat / 14.0, 0.4, 1.8)) * float(rng.uniform(0.6, 1.4))
    for offset in (12.0, 24.0, 36.0, 50.0, 66.0):
        for side in (-1.0, 1.0):
            place = land.x_column[:, None] + side * offset * k + _smooth_noise(rng, (nz, ny), (cell, cell), 4.5 * k)
            place = place + side * 0.25 * (land.y_column[:, None] - land.y[None, :] - 40 * k)
            thick = fatty * 1.3 * (_smooth_noise(rng, (nz, ny), (cell, cell * 0.6), 1.0) + float(rng.uniform(-0.3, 0.5)))
            thick = np.where(behind & (thick > 0), np.minimum(thick, 4.0), np.nan)
            label = SOFT if rng.random() < 0.5 else FAT
            rows(canvas, (place - thick / 2 - canvas.spacing / 4).astype(np.float32), (place + thick / 2 + canvas.spacing / 4).astype(np.float32), label, (MUSCLE,))
    # Midline: ligaments between and behind the spinous processes.
    thick = k * (1.6 + _smooth_noise(rng, (nz, ny), (cell, cell), 0.7))
    thick = np.where(behind, np.maximum(thick, 0.5), np.nan)
    rows(canvas, (land.x_column[:, None] - thick).astype(np.float32), (land.x_column[:, None] + thick).astype(np.float32), SOFT, (MUSCLE,))
    _coronal_sheets(canvas, land, p, fatty, rng)


def _coronal_sheets(canvas: Canvas, land: Landscape, p: SpineParameters, fatty: float, rng: np.random.Generator) -> None:
    """Sheets in front of and behind each other: fascia of the back, planes between the neck muscles."""
    nz, _, nx = canvas.labels.shape
    x = canvas.coordinates(0)
    cell = 30.0 / canvas.spacing
    slices = np.broadcast_to(np.arange(nz)[:, None], (nz, nx))
    columns = np.broadcast_to(np.arange(nx)[None, :], (nz, nx))
    for depth in (30.0, 42.0, 52.0, 62.0):
        curve = 0.0035 * np.square(x[None, :] - land.x_column[:, None])
        place = (land.y_smooth - depth * p.scale)[:, None] + curve * np.float32(rng.uniform(-0.6, 1.0))
        place = place + _smooth_noise(rng, (nz, nx), (cell, cell), 4.0 * p.scale)
        thick = fatty * (_smooth_noise(rng, (nz, nx), (cell, cell), 1.2) + float(rng.uniform(-0.5, 0.4)))
        label = SOFT if rng.random() < 0.5 else FAT
        first = np.round((place - canvas.origin[1]) / canvas.spacing).astype(int)
        for step in range(max(1, int(np.ceil(3.0 / canvas.spacing)))):
            row = first + step
            use = (thick > step * canvas.spacing) & (row >= 0) & (row < canvas.labels.shape[1])
            z, y, x_index = slices[use], row[use], columns[use]
            muscle = canvas.labels[z, y, x_index] == MUSCLE
            canvas.labels[z[muscle], y[muscle], x_index[muscle]] = label
