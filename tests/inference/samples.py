"""Small datasets and images for the tests of inference and models."""

import json
from importlib import resources
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.segmentation import class_maps

ISO = (1.0, 1.0, 1.0)
TORCH = InferenceOptions(device="cpu", engine="torch")
OPENVINO = InferenceOptions(device="cpu", engine="openvino", threads=1)


def release(name: str) -> dict[str, Any]:
    """Return the ``dataset.json`` of a public release, such as ``r20240601-step1``."""
    stored = json.loads((resources.files(class_maps) / f"{name}.json").read_text())
    labels = {"background": 0, **stored["labels"]}
    channels = {str(number): channel for number, channel in enumerate(stored["channels"])}
    return {"channel_names": channels, "labels": labels, "regions_class_order": list(range(1, len(labels)))}


STEP1, STEP2 = release("r20240601-step1"), release("r20241115-step2")
SOFTMAX = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "disc": 1, "canal": 2, "cord": 3}}


def image(channels: int = 1, shape: tuple[int, int, int] = (24, 30, 36), seed: int = 0) -> np.ndarray:
    """Smooth blobs with empty borders, the second channel binary; shape (channels, X, Y, Z)."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.normal(size=shape), 2.0) * 400 + 100
    blobs[:2] = 0
    blobs[:, :, -3:] = 0
    layers = [blobs, blobs > 110][:channels]
    return np.stack(layers).astype(np.float32)
