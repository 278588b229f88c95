"""3D arrays with their position in scanner space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray

Affine = NDArray[np.float64]
#: Largest cosine between two axes that ITK takes for perpendicular (measured with SimpleITK; it reads no other image).
_MAX_SHEAR = 1e-4


@dataclass(frozen=True, slots=True)
class Geometry:
    """Grid of a 3D image.

    Examples
    --------
    >>> grid = Geometry((10, 20, 5), np.diag([1.0, 1.0, 3.0, 1.0]))
    >>> grid.spacing, grid.orientation, round(grid.voxel_volume, 6)
    ((1.0, 1.0, 3.0), 'RAS', 3.0)
    """

    shape: tuple[int, int, int]
    """Number of voxels along each array axis."""
    affine: Affine
    """Voxel index to scanner space (RAS+, mm), shape (4, 4)."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each array axis, mm."""
        x, y, z = (float(v) for v in voxel_sizes(self.affine))
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel, mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def orientation(self) -> str:
        """Axis codes, such as ``"RAS"``."""
        return "".join(str(code) for code in nib.orientations.aff2axcodes(self.affine))

    @property
    def is_sheared(self) -> bool:
        """Return whether the axes are not perpendicular."""
        directions = self.affine[:3, :3] / self.spacing
        return bool(np.abs(directions.T @ directions - np.eye(3)).max() > _MAX_SHEAR)

    def index_of(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the voxel indices of points of shape (..., 3), scanner space (RAS+, mm)."""
        index: NDArray[np.float64] = apply_affine(np.linalg.inv(self.affine), points)
        return index

    def same_grid(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Return whether two grids have the same shape and affine; the tolerance is in mm."""
        return self.shape == other.shape and bool(np.allclose(self.affine, other.affine, atol=tolerance))


@dataclass(frozen=True, slots=True)
class Volume:
    """3D image in memory.

    Examples
    --------
    >>> Volume(np.zeros((2, 3, 4)), np.eye(4)).geometry.shape
    (2, 3, 4)
    """

    data: NDArray[Any]
    """Values, shape (X, Y, Z)."""
    affine: Affine
    """Voxel index to scanner space (RAS+, mm), shape (4, 4)."""
    acquisition: str = ""
    """Name that the reconstructions and repetitions of one acquisition share; empty if unknown."""

    @property
    def geometry(self) -> Geometry:
        """The grid without the values."""
        x, y, z = self.data.shape
        return Geometry((x, y, z), self.affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along each array axis, mm."""
        return self.geometry.spacing
