from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.measurement.phantom import components_of
from totalspineseg_bids.anatomy import BY_ID, CANAL_ID, CORD_ID
from totalspineseg_bids.bids.derivatives import ImageDerivatives
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.bids.sidecar import make_label_rows
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.measurement import measure_spine
from totalspineseg_bids.report.figures import write_figures


def label_map() -> np.ndarray:
    """Three lumbar vertebrae of boxes (36 x 28 x 24 mm) with discs, canal and cord, a little scoliotic; 2 mm voxels."""
    labels = np.zeros((40, 56, 66), np.uint8)
    for z in range(66):
        x = 20 + round(2 * np.sin(z / 12))
        rest = (z - 3) % 17
        number = (z - 3) // 17
        level = 20 - min(max(number, 0), 2)
        inside = 3 <= z < 3 + 17 * 2 + 12
        if inside and rest < 12:
            labels[x - 9 : x + 9, 34:48, 65 - z] = level
            labels[x - 2 : x + 2, 12:20, 65 - z] = level
        elif inside and 13 <= rest < 16:
            labels[x - 9 : x + 9, 34:48, 65 - z] = 204 - number
        labels[x - 5 : x + 5, 23:32, 65 - z] = CANAL_ID
        labels[x - 3 : x + 3, 25:30, 65 - z] = CORD_ID
    return labels


@pytest.fixture(scope="session")
def spine():
    """A small labelled spine: image on its own, thicker grid, labels and affine."""
    labels, affine = label_map(), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-40.0, -60.0, 100.0)
    grey = np.array([BY_ID[i].color[0] if i in BY_ID else 20 for i in range(256)], np.float32)[labels]
    noise = np.random.default_rng(0).normal(0, 8, labels.shape).astype(np.float32)
    image = Volume((grey + noise)[::2], affine @ np.diag([2.0, 1.0, 1.0, 1.0]))
    return image, labels, affine, components_of(labels, affine)


@pytest.fixture(scope="session")
def rows(spine):
    """The rows of its table."""
    _, labels, affine, components = spine
    measures = measure_spine(labels, affine, components, np.zeros((0, 3))).levels
    return make_label_rows([replace(c, confidence=0.97) for c in components], measures, "totalsegmri")


def derivatives(name: str = "sub-01_T2w", rows: Any = (), **sidecar: object) -> ImageDerivatives:
    """Derivatives of an image, with entries of the sidecar."""
    participant = name.split("_", 1)[0]
    source = SourceImage(f"{participant}/anat/{name}.nii.gz", Path(name))
    return ImageDerivatives(source, {"Status": "labelled", **sidecar}, tuple(rows))


def draw_figures(folder: Path, spine: Any) -> dict[str, str]:
    """Write the figures of a spine as those of an image, and return their paths by kind."""
    image, labels, affine, *_ = spine
    files = write_figures(folder / "sub-01/figures", "sub-01_T2w", image, labels, affine)
    return {kind: f"sub-01/figures/{name}" for kind, name in files.items()}


def write_profile(folder: Path, image: ImageDerivatives, rows: list[dict[str, str]]) -> None:
    """Write the table of areas along the column of an image."""
    path = folder / image.names.profile(".tsv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(format_table(list(rows[0]), rows))
