"""The body around a column: skin, fat, muscles with septa, chest, abdomen, neck, head and pelvis.

Structures are placed slice by slice relative to the column, coarsely, but with the neighbours of the spine that
dominate MR images: psoas and erector muscles, aorta, lungs beside the vertebrae, bowel with gas, ribs, iliac wings,
brain stem.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d

from totalspineseg_bids.synthesis.body_profile import (
    FAT,
    LUNG,
    MUSCLE,
    SOFT,
    BodyProfile,
    draw_blob,
    measure_body_profile,
    smooth_sheet,
)
from totalspineseg_bids.synthesis.curve import SpinalColumn, SpineParameters
from totalspineseg_bids.synthesis.organs import draw_abdomen, draw_neck_and_head, draw_vessels
from totalspineseg_bids.synthesis.rasterize import Canvas, ellipse_rows, rows
from totalspineseg_bids.synthesis.skeleton import draw_pelvis, draw_ribs, draw_trunk_muscles


def draw_body(canvas: Canvas, column: SpinalColumn, p: SpineParameters, rng: np.random.Generator) -> BodyProfile:
    """Draw everything around the column, before the column itself.

    Parameters
    ----------
    canvas : Canvas
        Empty canvas.
    column : SpinalColumn
        Geometry of the spine.
    p : SpineParameters
        Parameters of the subject.
    rng : numpy.random.Generator
        Draws shapes and positions of organs.

    Returns
    -------
    BodyProfile
        Profile that `draw_septa` needs after the column was drawn.
    """
    profile = measure_body_profile(canvas, column, p.scale)
    _outline(canvas, profile, p, rng)
    _cavities(canvas, profile, p, rng)
    draw_abdomen(canvas, profile, p, rng)
    draw_vessels(canvas, profile, rng)
    draw_neck_and_head(canvas, profile, p, rng)
    draw_trunk_muscles(canvas, profile, rng)
    draw_pelvis(canvas, profile, rng)
    draw_ribs(canvas, column, profile, p, rng)
    return profile


def _outline(canvas: Canvas, profile: BodyProfile, p: SpineParameters, rng: np.random.Generator) -> None:
    """Draw skin and subcutaneous fat, and fill the rest with muscle."""
    g = p.girth
    width = profile.interpolate([
        ("C1+75", 66), ("C1+30", 76), ("C1", 70), ("C3", 58), ("C5", 57 * g), ("C7", 80 * g), ("T1", 120 * g),
        ("T3", 185 * g), ("T8", 160 * g), ("L3", 148 * g), ("S1", 168 * g), ("Co1", 170 * g),
    ])  # fmt: skip
    front = profile.interpolate([
        ("C1+75", 80), ("C1+40", 98), ("C1", 100), ("C3", 78), ("C5", 56), ("C7", 60), ("T2", 92 * g), ("T5", 132 * g),
        ("T9", 158 * g), ("L1", 150 * g), ("L4", 128 * g), ("S1", 120 * g), ("S3", 150 * g), ("Co1", 140 * g),
    ])  # fmt: skip
    back = profile.interpolate([
        ("C1+75", 88), ("C1+30", 82), ("C1", 62), ("C3", 55), ("C5", 55), ("C7", 62), ("T2", 66), ("T6", 66),
        ("T10", 62), ("L2", 72), ("L4", 76), ("S1", 66), ("S3", 46), ("Co1", 50),
    ])  # fmt: skip
    thickness = profile.interpolate([
        ("C1+30", 0.35), ("C3", 0.6), ("C6", 1.0), ("T3", 1.0), ("T8", 0.8), ("L2", 1.1), ("L5", 1.7), ("S3", 2.0),
        ("Co1", 2.2),
    ])  # fmt: skip
    fat = p.fat * thickness / p.scale
    belly = fat * profile.interpolate([("C1", 0.6), ("T3", 0.5), ("T10", 0.7), ("L3", 1.6), ("S2", 1.6)]) / p.scale
    x = gaussian_filter1d(profile.x_column, 45.0 * p.scale / canvas.spacing, mode="nearest").astype(np.float32) * 0.6
    back += gaussian_filter1d(rng.standard_normal(len(profile.z)), 18 / canvas.spacing).astype(np.float32) * 6.0
    top, bottom = profile.y_smooth + front, profile.y_smooth - back
    for inset_front, inset_back, label in (
        (-belly - 2.0, -fat - 2.0, SOFT),
        (-belly, -fat, FAT),
        (np.zeros_like(fat), np.zeros_like(fat), MUSCLE),
    ):
        y1, y0 = top - inset_front, bottom + inset_back
        half = width - 0.5 * (inset_front + inset_back)
        low, high = ellipse_rows(profile.y, (x, (y0 + y1) / 2), half, (y1 - y0) / 2, 2.5)
        rows(canvas, low, high, label)


def _cavities(canvas: Canvas, profile: BodyProfile, p: SpineParameters, rng: np.random.Generator) -> None:
    """Draw the chest with lungs, and abdomen and pelvis filled with soft tissue (visceral fat)."""
    g = p.girth
    # Chest: an ellipse whose back wall lies behind the vertebral bodies.
    half = profile.interpolate(
        [("T1+8", 0), ("T1", 34), ("T2", 62 * g), ("T4", 104 * g), ("T8", 126 * g), ("T12", 126 * g)]
    )
    front = profile.interpolate(
        [("T1+8", 10), ("T1", 30), ("T2", 62), ("T4", 100 * g), ("T8", 138 * g), ("T12", 135 * g)]
    )
    back = profile.interpolate([("T1+8", 2), ("T1", 10), ("T2", 20), ("T4", 33), ("T8", 40), ("T11", 38), ("T12", 30)])
    top = profile.height["T1"] + 8 * p.scale
    floor = profile.height["T12"] - 6 * p.scale
    chest = (profile.z < top) & (profile.z > floor)
    middle = 0.4 * profile.x_column
    y0, y1 = profile.y_smooth - back, profile.y_smooth + front
    depth = np.where(chest, (y1 - y0) / 2, 0.0).astype(np.float32)
    low, high = ellipse_rows(profile.y, (middle, (y0 + y1) / 2), half, depth, 2.3)
    rows(canvas, low, high, SOFT, (MUSCLE,))
    # Lungs: the chest without the mediastinum; the domes of the diaphragm are drawn into them afterwards.
    space = np.where(profile.z > floor + 4 * p.scale, np.float32(0), np.nan).astype(np.float32)[:, None]
    ahead = profile.y[None, :] - profile.y_column[:, None]
    body = profile.interpolate([("T1", 16), ("T6", 18), ("T12", 23)])[:, None]
    wide = profile.interpolate([("T1", 22), ("T4", 26), ("T7", 38), ("T12", 34)])[:, None]
    near = np.where(ahead < 0, body + 2.0 * p.scale, body + (wide - body) * np.clip(ahead / (35 * p.scale), 0, 1))
    near = near + smooth_sheet(rng, near.shape, (30, 25), 2.0)
    inset = 5.0 * p.scale
    center = profile.x_column[:, None]
    rows(canvas, center + near + space, high - inset, LUNG, (SOFT,))
    rows(canvas, low + inset, center - near + space, LUNG, (SOFT,))
    for side in (-1.0, 1.0):
        lift = float(rng.normal(4.0 * side, 8.0))
        for shell, label, give_way in ((0.0, MUSCLE, (LUNG,)), (3.0, SOFT, (MUSCLE, LUNG))):
            sizes = tuple(p.scale * (v - shell) for v in (80.0, 84.0, 84.0))
            draw_blob(
                canvas, profile.point("T12", side * 58, 56, 8 + lift), (sizes[0], sizes[1], sizes[2]), label, give_way
            )
    # Abdomen and pelvis: in front of the bodies' backs; muscle stays behind and at the wall.
    half = profile.interpolate(
        [("T10", 112 * g), ("L1", 126 * g), ("L3", 122 * g), ("S1", 112 * g), ("S3", 70), ("Co1", 58)]
    )
    front = profile.interpolate(
        [("T10", 140 * g), ("L2", 132 * g), ("L4", 112 * g), ("S1", 104 * g), ("S3", 118), ("Co1", 110)]
    )
    back = profile.interpolate(
        [("T10", 30), ("L1", 12), ("L3", 2), ("L5", 0), ("S1", 4), ("S2", 6), ("S4", 2), ("Co1", 0)]
    )
    y0, y1 = profile.y_smooth - back, profile.y_smooth + front
    depth = np.where(profile.z < profile.height["T10"] + 20 * p.scale, (y1 - y0) / 2, 0.0).astype(np.float32)
    low, high = ellipse_rows(profile.y, (middle, (y0 + y1) / 2), half, depth, 2.4)
    rows(canvas, low, high, SOFT, (MUSCLE,))


def draw_septa(canvas: Canvas, profile: BodyProfile, p: SpineParameters, rng: np.random.Generator) -> None:
    """Draw sheets of fat and fascia between the muscles behind the column, and midline ligaments.

    Muscle in MR images is never uniform; without such sheets a network mistakes dark muscle for bone.

    Parameters
    ----------
    canvas : Canvas
        Canvas that contains body and column; only muscle is replaced.
    profile : BodyProfile
        Output of `draw_body`.
    p : SpineParameters
        Parameters of the subject; more fat makes thicker sheets.
    rng : numpy.random.Generator
        Draws the sheets.
    """
    nz, ny = len(profile.z), len(profile.y)
    k = p.scale
    cell = 26.0 / canvas.spacing
    behind = profile.y[None, :] < (profile.y_column - 14 * k)[:, None]
    fatty = float(np.clip(p.fat / 14.0, 0.4, 1.8)) * float(rng.uniform(0.6, 1.4))
    for offset in (12.0, 24.0, 36.0, 50.0, 66.0):
        for side in (-1.0, 1.0):
            place = profile.x_column[:, None] + side * offset * k + smooth_sheet(rng, (nz, ny), (cell, cell), 4.5 * k)
            place = place + side * 0.25 * (profile.y_column[:, None] - profile.y[None, :] - 40 * k)
            thick = fatty * 1.3 * (smooth_sheet(rng, (nz, ny), (cell, cell * 0.6), 1.0) + float(rng.uniform(-0.3, 0.5)))
            thick = np.where(behind & (thick > 0), np.minimum(thick, 4.0), np.nan)
            label = SOFT if rng.random() < 0.5 else FAT
            rows(
                canvas,
                (place - thick / 2 - canvas.spacing / 4).astype(np.float32),
                (place + thick / 2 + canvas.spacing / 4).astype(np.float32),
                label,
                (MUSCLE,),
            )
    # Midline: ligaments between and behind the spinous processes.
    thick = k * (1.6 + smooth_sheet(rng, (nz, ny), (cell, cell), 0.7))
    thick = np.where(behind, np.maximum(thick, 0.5), np.nan)
    rows(
        canvas,
        (profile.x_column[:, None] - thick).astype(np.float32),
        (profile.x_column[:, None] + thick).astype(np.float32),
        SOFT,
        (MUSCLE,),
    )
    _coronal_sheets(canvas, profile, p, fatty, rng)


def _coronal_sheets(
    canvas: Canvas, profile: BodyProfile, p: SpineParameters, fatty: float, rng: np.random.Generator
) -> None:
    """Draw coronal sheets: fascia of the back, planes between the neck muscles."""
    nz, _, nx = canvas.labels.shape
    x = canvas.coordinates(0)
    cell = 30.0 / canvas.spacing
    slices = np.broadcast_to(np.arange(nz)[:, None], (nz, nx))
    columns = np.broadcast_to(np.arange(nx)[None, :], (nz, nx))
    for depth in (30.0, 42.0, 52.0, 62.0):
        curve = 0.0035 * np.square(x[None, :] - profile.x_column[:, None])
        place = (profile.y_smooth - depth * p.scale)[:, None] + curve * np.float32(rng.uniform(-0.6, 1.0))
        place = place + smooth_sheet(rng, (nz, nx), (cell, cell), 4.0 * p.scale)
        thick = fatty * (smooth_sheet(rng, (nz, nx), (cell, cell), 1.2) + float(rng.uniform(-0.5, 0.4)))
        label = SOFT if rng.random() < 0.5 else FAT
        first = np.round((place - canvas.origin[1]) / canvas.spacing).astype(int)
        for step in range(max(1, int(np.ceil(3.0 / canvas.spacing)))):
            row = first + step
            use = (thick > step * canvas.spacing) & (row >= 0) & (row < canvas.labels.shape[1])
            z, y, x_index = slices[use], row[use], columns[use]
            muscle = canvas.labels[z, y, x_index] == MUSCLE
            canvas.labels[z[muscle], y[muscle], x_index[muscle]] = label
