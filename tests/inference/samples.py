"""Small datasets and images for the tests of inference and models."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

STEP1: dict[str, Any] = {
    "channel_names": {"0": "MRI"},
    "labels": {
        "background": 0,
        "disc": [1, 2, 3, 4, 5],
        "disc_C2_C3": 2,
        "disc_C7_T1": 3,
        "disc_T12_L1": 4,
        "disc_L5_S": 5,
        "vertebrae": 6,
        "canal": [7, 8, 9],
        "csf": 8,
        "cord": 9,
    },
    "regions_class_order": [1, 2, 3, 4, 5, 6, 7, 8, 9],
}
STEP2: dict[str, Any] = {
    "channel_names": {"0": "MRI", "1": "noNorm"},
    "labels": {
        "background": 0,
        "disc": [1, 2, 3, 4, 5],
        "disc_C2_C3": 2,
        "disc_C7_T1": 3,
        "disc_T12_L1": 4,
        "disc_L5_S": 5,
        "vertebrae": [6, 7, 8, 9],
        "vertebrae_O": 7,
        "vertebrae_E": 8,
        "sacrum": 9,
        "canal": [10, 11],
        "cord": 11,
    },
    "regions_class_order": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
}
SOFTMAX: dict[str, Any] = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "disc": 1, "canal": 2, "cord": 3},
}
NAMED: dict[str, Any] = {
    "channel_names": {"0": "MRI"},
    "labels": {
        "background": 0,
        **{f"vertebrae_{level}": i for i, level in enumerate(["C3", "T6", "L3"], 1)},
        "disc_L3_L4": 4,
    },
}


def image(channels: int = 1, shape: tuple[int, int, int] = (24, 30, 36), seed: int = 0) -> np.ndarray:
    """Smooth blobs with empty borders, the second channel binary; shape (channels, X, Y, Z)."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.normal(size=shape), 2.0) * 400 + 100
    blobs[:2] = 0
    blobs[:, :, -3:] = 0
    layers = [blobs, blobs > 110][:channels]
    return np.stack(layers).astype(np.float32)
