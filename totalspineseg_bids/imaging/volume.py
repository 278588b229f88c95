"""Arrays with their place in scanner space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Geometry:
    """Grid of a 3D image.

    Attributes
    ----------
    shape
        Voxels along each array axis.
    affine
        4x4, voxel index to scanner space (RAS+, mm).
    """

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each array axis, mm."""
        x, y, z = (float(v) for v in np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def orientation(self) -> str:
        """Axis codes, such as ``"RAS"``."""
        return "".join(str(code) for code in nib.orientations.aff2axcodes(self.affine))

    def same_grid(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Tell whether two grids have the same shape and affine (tolerance in mm)."""
        return self.shape == other.shape and bool(np.allclose(self.affine, other.affine, atol=tolerance))


@dataclass(frozen=True, slots=True)
class Volume:
    """A 3D image in memory.

    Attributes
    ----------
    data
        Array of shape (X, Y, Z).
    affine
        4x4, voxel index to scanner space (RAS+, mm).
    """

    data: NDArray[Any]
    affine: Affine

    @property
    def geometry(self) -> Geometry:
        """The grid without the values."""
        x, y, z = self.data.shape
        return Geometry((x, y, z), self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each array axis, mm."""
        return self.geometry.spacing
