"""Bones around the column, ribs and pelvis, and the muscles that lie on it inside the trunk."""

from __future__ import annotations

import numpy as np

from totalspineseg_bids.synthesis.body_profile import (
    BONE,
    FAT,
    LUNG,
    MUSCLE,
    ORGAN,
    SOFT,
    VESSEL,
    BodyProfile,
    draw_blob,
    smooth_sheet,
)
from totalspineseg_bids.synthesis.curve import SpinalColumn, SpineParameters
from totalspineseg_bids.synthesis.rasterize import Canvas, polyline, rod, rows


def draw_trunk_muscles(canvas: Canvas, profile: BodyProfile, rng: np.random.Generator) -> None:
    """Draw psoas and quadratus lumborum in the cavity beside the lumbar bodies."""
    k = profile.size
    bulk = float(rng.uniform(0.8, 1.2))
    for side in (-1.0, 1.0):
        psoas = profile.path(
            ("T12", side * 22, 0, -8),
            ("L2", side * 31, 0),
            ("L4", side * 41, 3),
            ("S1", side * 58, 24),
            ("S3", side * 72, 62),
        )
        radii = k * bulk * np.array([[4.0, 5.0], [10.0, 12.0], [16.0, 18.0], [18.0, 18.0], [14.0, 14.0]])
        polyline(canvas, psoas, radii, MUSCLE, replace=(SOFT, ORGAN))
        quadratus = profile.path(("L1", side * 46, -20), ("L4", side * 66, -12))
        polyline(canvas, quadratus, k * bulk * np.array([[16.0, 6.0], [20.0, 8.0]]), MUSCLE, replace=(SOFT, ORGAN))


def draw_pelvis(canvas: Canvas, profile: BodyProfile, rng: np.random.Generator) -> None:
    """Draw iliac wings beside the sacrum, pubic and ischial bone in front and below."""
    k = profile.size
    z, y = profile.z, profile.y
    crest = profile.height["L5"] + float(rng.uniform(-4, 16)) * k
    foot = profile.height["S3"] - 6 * k
    # In each slice the wing runs from beside the sacrum forward and outward.
    rise = np.clip((z - foot) / (crest - foot), 0.0, 1.0)
    y_back = np.interp(
        z,
        [foot, profile.height["S1"], crest],
        [profile.point("S3", 0, -6)[1], profile.point("S1", 0, -52)[1], profile.point("S1", 0, -30)[1]],
    )
    x_back = np.interp(rise, [0.0, 0.35, 0.8, 1.0], np.array([58.0, 45.0, 52.0, 72.0]) * k)
    ahead = y[None, :] - y_back[:, None]
    inner = x_back[:, None] + 0.42 * np.maximum(ahead, 0) + smooth_sheet(rng, ahead.shape, (40, 30), 1.5)
    thick = (
        (7.0 + 9.0 * np.exp(-(((ahead / k - 18) / 26) ** 2)))
        * k
        * np.sqrt(np.clip(4 * rise * (1.15 - rise), 0, 1))[:, None]
    )
    thick = np.where((ahead > 0) & (ahead < 150 * k) & ((z > foot) & (z < crest))[:, None], thick, np.nan)
    thick = thick * np.clip(ahead / (8 * k), 0.2, 1.0)
    replace = (SOFT, MUSCLE, ORGAN, FAT)
    rows(canvas, (inner).astype(np.float32), (inner + thick).astype(np.float32), BONE, replace)
    rows(canvas, (-inner - thick).astype(np.float32), (-inner).astype(np.float32), BONE, replace)
    for side in (-1.0, 1.0):
        socket = profile.point("S4", side * 84, 42, -4)
        draw_blob(canvas, socket, (20 * k, 26 * k, 30 * k), BONE, replace)
        pubis = np.array([socket + np.array([0.0, 14.0 * k, 0.0]), profile.point("Co1", side * 5, 112, -8)])
        polyline(canvas, pubis, k * np.array([[9.0, 9.0], [8.0, 14.0]]), BONE, replace=replace)
        piriformis = profile.path(("S2", side * 20, 14), ("S4", side * 74, 10, 0))
        polyline(canvas, piriformis, k * np.array([[8.0, 8.0], [10.0, 10.0]]), MUSCLE, replace=(SOFT,))


def draw_ribs(
    canvas: Canvas, column: SpinalColumn, profile: BodyProfile, p: SpineParameters, rng: np.random.Generator
) -> None:
    """Draw ribs from head to flank and breastbone; the last two are short."""
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
        ap = level.canal[1]
        behind = -(level.depth / 2 + 2 * ap + 11 * k)
        for side in (-1.0, 1.0):
            head = frame.at(side * (level.width / 2 - 1.0), -0.55 * level.depth, 0.40 * level.height)
            neck = frame.at(
                side * (np.interp(fraction, [0, 0.5, 1.0], [34, 28, 25]) + 2) * k, behind + 10 * k, 0.25 * level.height
            )
            points = [head, neck]
            angles = np.linspace(0.10, reach, max(2, int(9 * reach)))
            start = frame.at(side * 46 * k, behind - 1.0 * k, 0.0)
            center = start - [side * 46 * k, -deep, 0.0]
            for a in angles:
                turn = a * np.pi / 1.5
                along = np.hypot(half, deep) * turn
                point = center + np.array(
                    [side * half * np.sin(turn) ** 0.9, -deep * np.cos(turn), -0.5 * drop * along]
                )
                points.append(point)
            path = np.array(points)
            sizes = k * np.array([[3.2, 4.6], [2.8, 4.2], *[[2.9, 5.2]] * (len(path) - 2)])
            polyline(
                canvas, path, sizes, BONE, across=np.array([0.0, 1.0, 0.0]), replace=(SOFT, MUSCLE, LUNG, ORGAN, FAT)
            )
    top, bottom = profile.point("T3", 0, 88), profile.point("T9", 0, 150 * p.girth)
    rod(canvas, top, bottom, (17 * k, 5 * k), (15 * k, 5 * k), BONE, replace=(SOFT, MUSCLE, FAT, LUNG, VESSEL))
