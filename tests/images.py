"""Images of tests, written to disk and read back."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import ArrayLike

from totalspineseg_bids.imaging.volume import Geometry


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an image, in folders that are made where absent; its affine is the identity unless given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def data(path: Path) -> np.ndarray:
    """Return the values of an image in the type of the file."""
    return np.asanyarray(nib.load(path).dataobj)


def block(value: float = 100.0) -> np.ndarray:
    """A small dark image with a bright block."""
    image = np.zeros((6, 8, 10), np.float32)
    image[2:4, 3:6, 2:9] = value
    image[0, 0, 0] = 1
    return image


#: Orders and directions of the axes in which a file may store an image.
ORIENTATIONS = [
    np.array([*zip(axes, flips, strict=True)])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def stored_along(data: np.ndarray, affine: np.ndarray, orientation: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return data and affine of the same image, stored along other axes."""
    orientation = np.asarray(orientation)
    turned = nib.orientations.apply_orientation(data, orientation)
    return np.ascontiguousarray(turned), affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)


def places(geometry: Geometry) -> np.ndarray:
    """Return the positions of all voxels in scanner space, mm, shape (X, Y, Z, 3)."""
    return apply_affine(geometry.affine, np.moveaxis(np.indices(geometry.shape), 0, -1))


def cropped(
    data: np.ndarray, affine: np.ndarray, axis: int, start: int = 0, stop: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of an image between two voxels along an axis, and its affine."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, axis] * start
    return data[(slice(None),) * axis + (slice(start, stop),)], moved
