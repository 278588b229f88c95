"""Draw the figure of docs/definitions.md: ``python benchmarks/definitions_figure.py docs/definitions.png``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import Structure
from totalspineseg_bids.synthesis.appearance import render
from totalspineseg_bids.synthesis.body_profile import ENDPLATE, FAT
from totalspineseg_bids.synthesis.parametric import SpineParameters, make_spine

_NAMES = ("vertebra", "disc", "endplate", "canal (dural sac)", "cord", "fat")
_COLORS = ("#c8b489", "#4f8f6b", "#d1495b", "#4c78c9", "#8e5bb5", "#efe3a0")


def classes(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 + the index in ``_NAMES`` of each voxel, 0 for the rest."""
    order = (Structure.VERTEBRA, Structure.DISC, None, Structure.CANAL, Structure.CORD)
    table = np.zeros(256, np.uint8)
    for label in anatomy.LABELS:
        structure = Structure.VERTEBRA if label.structure is Structure.SACRUM else label.structure
        table[label.id] = 1 + order.index(structure)
    table[ENDPLATE], table[FAT] = 3, 6
    found: NDArray[np.uint8] = table[labels]
    return found


def main(path: Path) -> None:
    """Draw a lumbar spine: labels and a T1w image of them, sagittal and axial."""
    mpl.use("Agg")
    spine = make_spine(np.random.default_rng(11), parameters=SpineParameters(), spacing=0.7)
    labels = spine.data
    x, y, z = np.argwhere(labels == anatomy.vertebra("L4").id).mean(axis=0).astype(int)
    box = (slice(x - 55, x + 55), slice(y - 75, y + 65), slice(z - 40, z + 160))
    part = np.ascontiguousarray(labels[box])
    image = render(part, np.random.default_rng(4), contrast="T1w", spacing=spine.spacing)
    figure = Figure(figsize=(8.0, 4.6), dpi=80, layout="constrained")
    colors = mpl.colors.ListedColormap(["#ffffff00", *_COLORS])
    axial = int(np.argwhere(part == anatomy.vertebra("L3").id)[:, 2].mean())
    slices = (image[55].T, classes(part)[55].T, classes(part)[:, :, axial].T)
    for axes, shown in zip(figure.subplots(1, 3), slices, strict=True):
        labelled = shown.dtype == np.uint8
        axes.imshow(shown, origin="lower", interpolation="none", cmap=colors if labelled else "gray", vmin=0,
                    vmax=6 if labelled else np.quantile(image, 0.995))  # fmt: skip
        axes.set_axis_off()
    handles = [Patch(facecolor=color, label=name) for name, color in zip(_NAMES, _COLORS, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(_NAMES), frameon=False, fontsize=9)
    figure.savefig(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
