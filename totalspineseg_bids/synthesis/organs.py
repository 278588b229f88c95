"""Organs, vessels, and the structures of neck and head."""

from __future__ import annotations

import numpy as np

from totalspineseg_bids.synthesis.body_profile import (
    BONE,
    BRAIN,
    FAT,
    GAS,
    LUNG,
    MUSCLE,
    ORGAN,
    SOFT,
    VESSEL,
    BodyProfile,
    draw_blob,
)
from totalspineseg_bids.synthesis.curve import SpineParameters
from totalspineseg_bids.synthesis.rasterize import Canvas, ellipse_rows, polyline, rod, rows


def draw_abdomen(canvas: Canvas, profile: BodyProfile, p: SpineParameters, rng: np.random.Generator) -> None:
    """Draw liver, spleen, stomach, kidneys and bowel."""
    k = p.scale

    def jitter(mm: float) -> float:
        return float(rng.normal(0, mm))

    inside = (SOFT,)
    draw_blob(
        canvas,
        profile.point("T11", 62 + jitter(6), 62 + jitter(6), 8 + jitter(10)),
        (68 * k, 68 * k, 74 * k),
        ORGAN,
        inside,
    )
    draw_blob(
        canvas, profile.point("T10", -58 + jitter(6), 72 + jitter(8), -12), (48 * k, 52 * k, 52 * k), ORGAN, inside
    )
    draw_blob(canvas, profile.point("T11", -84 + jitter(4), 2 + jitter(5), 4), (26 * k, 36 * k, 44 * k), ORGAN, inside)
    # Reach of the diaphragm: a thin muscle along the spine (crura).
    for side in (-1.0, 1.0):
        path = profile.path(("T11", side * 18, 17), ("L1", side * 15, 20), ("L3", side * 9, 21))
        polyline(canvas, path, k * np.array([[5.0, 5.0], [5.0, 4.0], [2.0, 2.0]]), MUSCLE, replace=inside)
        kidney = profile.point("L1", side * (60 + jitter(4)), -2 + jitter(5), -8 + jitter(8))
        draw_blob(canvas, kidney, (26 * k, 25 * k, 54 * k), ORGAN, inside)
        draw_blob(canvas, kidney - [side * 9 * k, -3 * k, 0], (11 * k, 10 * k, 24 * k), SOFT, (ORGAN,))
    lowest, highest = profile.height["S3"], profile.height["L1"]
    for _ in range(int(rng.integers(60, 95))):
        z = float(rng.uniform(lowest, highest))
        y = float(np.interp(z, profile.z, profile.y_smooth)) + float(rng.uniform(34, 125)) * k
        center = np.array([rng.uniform(-88, 88) * k, y, z])
        tilt = rng.normal(0, 1, 3)
        reach = float(rng.uniform(8, 26)) * k
        radius = float(rng.uniform(7, 14)) * k
        end = center + reach * tilt / np.linalg.norm(tilt)
        rod(canvas, center, end, (radius, radius), (radius, radius), ORGAN, replace=inside)
        if rng.random() < 0.3:
            r = radius * float(rng.uniform(0.4, 0.75))
            rod(canvas, center, end, (r, r), (r, r), GAS, replace=(ORGAN,))
    rectum = profile.path(("S2", jitter(6), 30), ("S4", jitter(4), 26), ("Co1", 0, 30, -10))
    polyline(canvas, rectum, k * np.array([[13.0, 12.0], [16.0, 14.0], [12.0, 12.0]]), ORGAN, replace=inside)
    if rng.random() < 0.6:
        polyline(canvas, rectum[:2], k * np.array([[6.0, 5.0], [9.0, 7.0]]), GAS, replace=(ORGAN,))
    draw_blob(canvas, profile.point("S4", jitter(4), 78 + jitter(6), -10), (36 * k, 26 * k, 26 * k), ORGAN, inside)


def draw_vessels(canvas: Canvas, profile: BodyProfile, rng: np.random.Generator) -> None:
    """Draw heart, aorta, caval vein, lung hila and carotids."""
    k = profile.size
    inside = (SOFT, LUNG)
    heart = profile.point("T7", -14 + rng.normal(0, 4), 82 + rng.normal(0, 5), rng.normal(0, 8))
    draw_blob(canvas, heart, (52 * k, 42 * k, 54 * k), VESSEL, inside)
    side = float(rng.uniform(10, 17))
    radius = float(rng.uniform(9, 13)) * k
    down = profile.path(
        ("T4", -side, 22), ("T6", -side - 6, 18), ("T9", -side, 24), ("T12", -7, 31), ("L2", -8, 32), ("L4", -3, 32)
    )
    sizes = radius * np.array([1.25, 1.2, 1.1, 1.0, 0.85, 0.8])
    polyline(canvas, down, np.stack([sizes, sizes], axis=1), VESSEL, replace=(*inside, ORGAN))
    arch = np.array([down[0], profile.point("T3", -8, 48), profile.point("T4", 6, 70), profile.point("T6", 6, 76)])
    polyline(canvas, arch, np.full((4, 2), 1.3 * radius), VESSEL, replace=inside)
    cava = profile.path(("T9", 26, 50), ("T12", 24, 36), ("L2", 20, 31), ("L5", 14, 30))
    polyline(canvas, cava, np.full((4, 2), radius) * [1.1, 0.85], VESSEL, replace=(*inside, ORGAN))
    for s in (-1.0, 1.0):
        iliac = profile.path(("L4", s * 4, 32), ("L5", s * 24, 30), ("S1", s * 46, 34), ("S3", s * 60, 60))
        polyline(canvas, iliac, np.full((4, 2), 0.7 * radius), VESSEL, replace=(SOFT, MUSCLE))
        for _ in range(9):
            z = float(rng.uniform(-45, 45))
            start = profile.point("T6", s * 36, 45 + float(rng.normal(0, 10)), z)
            end = start + k * np.array([s * rng.uniform(10, 35), rng.normal(0, 22), rng.normal(0, 22)])
            r = float(rng.uniform(1.6, 4.5)) * k
            rod(canvas, start, end, (r, r), (0.5 * r, 0.5 * r), VESSEL, replace=(LUNG,))


def draw_neck_and_head(canvas: Canvas, profile: BodyProfile, p: SpineParameters, rng: np.random.Generator) -> None:
    """Draw the visceral compartment and vessels of the neck, airway, skull with brain, jaw."""
    k = p.scale
    z = profile.z
    neck = (z > profile.height["T2"]) & (z < profile.height["C1"] + 20 * k)
    front = profile.interpolate([("T2", 56), ("C7", 50), ("C5", 48), ("C3", 66), ("C1", 88)])
    half = profile.interpolate([("T2", 40), ("C7", 38), ("C5", 36), ("C3", 46), ("C1", 58)])
    near = profile.interpolate([("T2", 12), ("C7", 11), ("C3", 11), ("C1", 12)])
    depth = np.where(neck, (front - near) / 2, 0.0).astype(np.float32)
    low, high = ellipse_rows(profile.y, (profile.x_column, profile.y_column + (front + near) / 2), half, depth, 2.2)
    rows(canvas, low, high, SOFT, (MUSCLE,))
    for _ in range(12):  # lymph nodes, glands, tongue base: muscle-like lumps
        place = profile.point(
            str(rng.choice(["C2", "C3", "C4", "C5"])), float(rng.normal(0, 26)), float(rng.uniform(24, 60))
        )
        r = rng.uniform(5, 13, 3) * k
        draw_blob(canvas, place, (float(r[0]), float(r[1]), float(r[2])), MUSCLE, (SOFT,))
    ahead = float(rng.uniform(20, 25))
    air = profile.path(
        ("C1", 0, ahead + 5, 14),
        ("C2", 0, ahead - 1),
        ("C4", 0, ahead),
        ("C6", 0, ahead + 6),
        ("T1", 0, ahead + 8),
        ("T4", 2, ahead + 15),
    )
    wide = k * np.array([[12, 7], [13, 5.5], [10, 7], [8, 8], [8.5, 8], [8.5, 8]])
    polyline(canvas, air, wide, GAS, replace=(SOFT, MUSCLE))
    for side in (-1.0, 1.0):
        bronchus = profile.point("T6", side * 28, ahead + 22)
        rod(canvas, air[-1], bronchus, (7 * k, 7 * k), (5 * k, 5 * k), GAS, replace=(SOFT, LUNG, VESSEL))
        carotid = profile.path(
            ("T2", side * 14, 34), ("C6", side * 24, 20), ("C3", side * 27, 17), ("C1", side * 26, 14, 10)
        )
        polyline(canvas, carotid, np.full((4, 2), 3.4 * k), VESSEL, replace=(SOFT, MUSCLE))
        jugular = carotid + k * np.array([side * 9.0, -1.0, 0.0])
        polyline(canvas, jugular, np.full((4, 2), 4.4 * k), VESSEL, replace=(SOFT, MUSCLE))
        longus = profile.path(("C1", side * 7, 10), ("C4", side * 9, 11), ("T2", side * 8, 11))
        polyline(canvas, longus, k * np.array([[5.0, 3.0], [6.0, 4.0], [4.0, 3.0]]), MUSCLE, replace=(SOFT,))
    gullet = profile.path(("C6", -3, 15), ("T3", -5, 19), ("T8", -3, 30), ("T11", -14, 40))
    polyline(canvas, gullet, np.full((4, 2), 5.5 * k) * [1.3, 1.0], MUSCLE, replace=(SOFT, LUNG))
    _head(canvas, profile, k, rng)


def _head(canvas: Canvas, profile: BodyProfile, k: float, rng: np.random.Generator) -> None:
    """Draw the skull with brain; clivus and occiput around the foramen magnum; jaw and palate."""
    top = profile.point("C1", 0, 0, 0)
    base = 27.0 + float(rng.normal(0, 2))  # height of the skull base above the atlas
    center = top + k * np.array([0.0, 2.0, base + 62.0])
    draw_blob(canvas, center, (72 * k, 92 * k, 70 * k), BONE, (MUSCLE, SOFT, FAT))
    draw_blob(canvas, center, (66 * k, 86 * k, 64 * k), BRAIN, (BONE,))
    # Posterior fossa with the cerebellum, bulging down behind the foramen.
    fossa = top + k * np.array([0.0, -34.0, base + 6.0])
    draw_blob(canvas, fossa, (54 * k, 34 * k, 27 * k), BONE, (MUSCLE, SOFT))
    draw_blob(canvas, fossa, (50 * k, 30 * k, 23 * k), BRAIN, (BONE,))
    for side in (-1.0, 1.0):  # condyles on the atlas
        start, end = top + k * np.array([side * 17, -1, 16.0]), top + k * np.array([side * 19, -6, base])
        rod(canvas, start, end, (5.5 * k, 9 * k), (9 * k, 12 * k), BONE, replace=(MUSCLE, SOFT))
        jaw = np.array(
            [
                top + k * np.array([side * 48, 22, 10.0]),
                top + k * np.array([side * 47, 30, -28.0]),
                top + k * np.array([side * 14, 84, -44.0]),
            ]
        )
        polyline(canvas, jaw, k * np.array([[4.5, 9.0], [4.5, 9.0], [5.0, 9.0]]), BONE, replace=(MUSCLE, SOFT))
    clivus = np.array([top + k * np.array([0, 6, base - 6.0]), top + k * np.array([0, 24, base + 24.0])])
    polyline(canvas, clivus, k * np.array([[15.0, 4.0], [15.0, 7.0]]), BONE, replace=(MUSCLE, SOFT, BRAIN))
    face = top + k * np.array([0.0, 66.0, 22.0])
    draw_blob(canvas, face, (26 * k, 32 * k, 5 * k), BONE, (MUSCLE, SOFT))
    nose = top + k * np.array([0.0, 58.0, 36.0])
    draw_blob(canvas, nose, (13 * k, 34 * k, 9 * k), GAS, (MUSCLE, SOFT, BONE))
    # Cisterns and brain stem: the canal continues into the head.
    stem = np.array([top + k * np.array([0, -14.0, base - 8]), top + k * np.array([0, -8, base + 30.0])])
    polyline(canvas, stem, k * np.array([[11.0, 9.0], [20.0, 16.0]]), BRAIN, replace=(MUSCLE, SOFT, BONE))
