"""Random poses of tissue label maps: rotation, size, bending of the column and smooth deformation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from totalspineseg_bids.imaging.volume import Volume
from totalspineseg_bids.synthesis.arrays import NUMPY, Arrays, Image
from totalspineseg_bids.synthesis.rasterize import FloatArray

#: Voxel size, mm: one for all axes, or one per axis.
Spacing = float | tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Pose:
    """Amplitudes of random poses; standard deviations unless stated otherwise."""

    rotation_deg: tuple[float, float, float] = (8.0, 5.0, 5.0)
    """Rotation about the left-right, posterior-anterior and inferior-superior axes, degrees."""
    log_scale: float = 0.08
    """Logarithm of the overall scale."""
    log_stretch: float = 0.04
    """Logarithm of the scale of each axis."""
    bend_mm: tuple[float, float] = (4.0, 6.0)
    """Smooth displacement (left-right, posterior-anterior) that varies along the column, mm."""
    bend_period_mm: float = 110.0
    """Distance between the control points of the bending, mm."""
    warp_mm: float = 1.5
    """Smooth displacement in all directions, mm."""
    warp_period_mm: float = 35.0
    """Distance between the control points of the displacement, mm."""

    def scaled(self, strength: float) -> Pose:
        """Return the pose with all amplitudes multiplied."""
        pitch, roll, yaw = self.rotation_deg
        lateral, sagittal = self.bend_mm
        return Pose(
            (pitch * strength, roll * strength, yaw * strength),
            self.log_scale * strength,
            self.log_stretch * strength,
            (lateral * strength, sagittal * strength),
            self.bend_period_mm,
            self.warp_mm * strength,
            self.warp_period_mm,
        )


@dataclass(frozen=True, slots=True)
class Warp:
    """Random pose for one output grid."""

    matrix: NDArray[np.float64]
    """3x3, output mm relative to the centre -> source mm relative to the centre."""
    bend: FloatArray
    """Shape (Z, 2): left-right and posterior-anterior displacement of each axial sheet, mm."""
    control: FloatArray
    """Coarse displacement field, shape (3, x, y, z), mm."""

    @classmethod
    def draw(
        cls, shape: tuple[int, int, int], spacing: Spacing, rng: np.random.Generator, pose: Pose, *, mirror: bool = True
    ) -> Warp:
        """Draw a warp for an output grid of a shape and spacing (mm)."""
        extent = np.array(shape) * spacing
        scale = np.exp(rng.normal(0.0, pose.log_scale) + rng.normal(0.0, pose.log_stretch, 3))
        angles = rng.normal(0.0, 1.0, 3) * pose.rotation_deg
        matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * scale
        if mirror and rng.random() < 0.5:
            matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
        bends = []
        for amplitude in pose.bend_mm:
            points = max(4, int(extent[2] / pose.bend_period_mm) + 3)
            knots = rng.standard_normal(points)
            curve = ndimage.zoom(knots, shape[2] / points, order=3, mode="nearest", grid_mode=True)
            bends.append(amplitude * (curve - curve.mean()))
        coarse = tuple(max(3, int(mm / pose.warp_period_mm) + 2) for mm in extent)
        control = pose.warp_mm * rng.standard_normal((3, *coarse), dtype=np.float32)
        return cls(matrix, np.stack(bends, 1).astype(np.float32), control)


def sample(
    labels: Image,
    centre: NDArray[np.float64],
    shape: tuple[int, int, int],
    spacing: Spacing,
    warp: Warp,
    *,
    source_spacing: float = 1.0,
    arrays: Arrays = NUMPY,
) -> Image:
    """Sample a label map through a warp; nearest neighbour, 0 outside.

    Parameters
    ----------
    labels : Image
        uint8 label map, isotropic, RAS.
    centre : ndarray of float64
        Voxel of ``labels`` that maps to the centre of the output.
    shape : ArrayShape
        Shape of the output.
    spacing : Spacing
        Voxel size of the output, mm.
    warp : Warp
        Random pose drawn for the output grid.
    source_spacing : float
        Voxel size of ``labels``, mm.
    arrays : Arrays
        Array library, which must hold the labels.
    """
    steps = np.broadcast_to(np.asarray(spacing, float), 3)
    lines = [((np.arange(n) - (n - 1) / 2) * step).astype(np.float32) for n, step in zip(shape, steps, strict=True)]
    x, y, z = arrays.on(lines[0][:, None, None]), arrays.on(lines[1][:, None]), arrays.on(lines[2])
    voxels = np.float32(1.0 / source_spacing)
    matrix, bend = warp.matrix.astype(np.float32) * voxels, arrays.on(warp.bend * voxels)
    # The long axis is interpolated first, the two short axes sheet by sheet.
    tall = arrays.resize_axis(arrays.on(warp.control * voxels), shape[2], 3)
    sheets = []
    for start in range(0, shape[2], arrays.sheets):
        part = slice(start, min(start + arrays.sheets, shape[2]))
        field = arrays.resize_axis(arrays.resize_axis(tall[..., part], shape[0], 1), shape[1], 2)
        flat, inside = 0, True
        for axis, size in enumerate(labels.shape):
            position = field[axis]
            right, front, up = (float(value) for value in matrix[axis])
            position += right * x + float(np.float32(centre[axis]))
            position += front * y + up * z[part]
            if axis < 2:
                position += bend[part, axis]
            index = arrays.rounded(position)
            inside = (index >= 0) & (index < size) & inside
            flat = flat * size + index
        sheets.append(arrays.at(labels, flat, inside))
    return arrays.xp.concatenate(sheets, 2)


def deform(volume: Volume, rng: np.random.Generator, *, strength: float = 1.0) -> Volume:
    """Return a randomly posed copy of a 1 mm tissue label map on a grid of the same shape and affine.

    Parameters
    ----------
    volume : Volume
        uint8 label map, RAS, 1 mm isotropic.
    rng : numpy.random.Generator
        Source of randomness; equal states give equal poses.
    strength : float
        Factor of all amplitudes; at 0 the result is the map or its mirror image.

    Raises
    ------
    ValueError
        If the voxels are not 1 mm.

    Examples
    --------
    >>> labels = np.zeros((30, 30, 30), np.uint8)
    >>> labels[10:20, 10:20, 10:20] = 20
    >>> moved = deform(Volume(labels, np.eye(4)), np.random.default_rng(0))
    >>> moved.data.shape, np.unique(moved.data).tolist()
    ((30, 30, 30), [0, 20])
    """
    if not np.allclose(volume.spacing, 1.0, atol=0.01):
        msg = f"label maps are posed at 1 mm, not {volume.spacing}"
        raise ValueError(msg)
    shape = volume.geometry.shape
    warp = Warp.draw(shape, 1.0, rng, Pose().scaled(strength), mirror=True)
    centre = (np.array(shape) - 1) / 2
    labels = np.ascontiguousarray(volume.data)
    return Volume(sample(labels, centre, shape, 1.0, warp), volume.affine)
