"""A semantic label map together with the meaning of its integers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.segmentation.class_map import ClassMap


@dataclass(frozen=True)
class SemanticMap:
    """Semantic segmentation of one image, as a network or a file provides it."""

    labels: NDArray[np.uint8]
    """Class of each voxel, shape (X, Y, Z)."""
    layout: ClassMap
    """Meaning of the integers."""
    probabilities: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    """Probability maps by role name, in [0, 1], shape (X, Y, Z); empty unless they were kept."""
    margin: NDArray[np.float16] | None = None
    """Logit margin to the next tissue, shape (X, Y, Z); used to place borders between voxels."""
