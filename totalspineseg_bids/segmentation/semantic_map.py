"""A semantic label map together with the meaning of its integers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids.imaging.grid import Box, paste
from totalspineseg_bids.segmentation.class_map import ClassMap

#: Roles whose probabilities are measured.
MEASURED_ROLES = ("cord", "canal")


@dataclass(frozen=True)
class SemanticMap:
    """Semantic segmentation of one image, as a network or a file provides it."""

    labels: NDArray[np.uint8]
    """Class of each voxel, shape (X, Y, Z)."""
    class_map: ClassMap
    """Meaning of the integers."""
    probabilities: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    """Probability maps by role name, in [0, 1], shape (X, Y, Z); empty unless they were kept."""
    margin: NDArray[np.float16] | None = None
    """Logit margin to the next tissue, shape (X, Y, Z); used to place borders between voxels."""

    def crop(self, box: Box) -> SemanticMap:
        """Return the part within a box as views of the same arrays."""
        return SemanticMap(
            self.labels[box],
            self.class_map,
            {role: values[box] for role, values in self.probabilities.items()},
            None if self.margin is None else self.margin[box],
        )

    def paste(self, box: Box, shape: tuple[int, int, int]) -> SemanticMap:
        """Return a map of ``shape`` with this one in a box and background elsewhere."""
        return SemanticMap(
            paste(self.labels, box, shape),
            self.class_map,
            {role: paste(values, box, shape) for role, values in self.probabilities.items()},
            None if self.margin is None else paste(self.margin, box, shape, outside=np.inf),
        )

    def measured(self) -> SemanticMap:
        """Return the map with the probabilities of `MEASURED_ROLES` only, as float32."""
        roles = [role for role in MEASURED_ROLES if role in self.class_map.labels]
        return replace(self, probabilities={r: self.probabilities[r].astype(np.float32, copy=False) for r in roles})
