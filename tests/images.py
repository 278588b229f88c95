"""Images of tests, written to disk and read back."""

from pathlib import Path

import nibabel as nib
import numpy as np


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
