from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.measurement.phantom import Phantom
from totalspineseg_bids.anatomy import BY_ID
from totalspineseg_bids.bids.derivatives import ImageDerivatives
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.bids.sidecar import make_label_rows
from totalspineseg_bids.bids.tables import format_table
from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.measurement import measure_spine
from totalspineseg_bids.report.figures import write_figures
from totalspineseg_bids.segmentation.result import LabelledSpine, SpineStatus


@pytest.fixture(scope="session")
def spine():
    """A small labelled spine, a little scoliotic: image on its own, thicker grid, labels, affine and components."""
    labels, affine, components, _ = Phantom(("L3", "L4", "L5"), width=36.0, bend_right=1 / 400).rasterise((2.0,) * 3)
    grey = np.array([BY_ID[i].color[0] if i in BY_ID else 20 for i in range(256)], np.float32)[labels]
    noise = np.random.default_rng(0).normal(0, 8, labels.shape).astype(np.float32)
    image = Volume((grey + noise)[::2], affine @ np.diag([2.0, 1.0, 1.0, 1.0]))
    return image, labels, affine, components


@pytest.fixture(scope="session")
def rows(spine):
    """The rows of its table."""
    _, labels, affine, components = spine
    measures = measure_spine(LabelledSpine(labels, affine, components, SpineStatus.LABELLED)).levels
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
