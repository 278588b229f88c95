"""MetaImage files (.mha) to arrays with an affine.

Source of the format: https://itk.org/Wiki/ITK/MetaIO/Documentation. Read with SimpleITK, which nnU-Net brings along.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from totalspineseg_bids.errors import ImageError
from totalspineseg_bids.imaging.volume import Volume

#: ITK's physical space is LPS, that of NIfTI RAS.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def read_mha(path: Path, name: str | None = None) -> Volume:
    """Read a scalar 3D MetaImage.

    Parameters
    ----------
    path : Path
        ``.mha`` file, or ``.mhd`` beside its data.
    name : str, optional
        What to call the file in messages; its path by default.

    Returns
    -------
    Volume
        Values in the file's type, shape (X, Y, Z); affine to RAS, mm.

    Raises
    ------
    ImageError
        If it cannot be read, or is no scalar 3D image.
    """
    # Heavy, and without types.
    sitk: Any = importlib.import_module("SimpleITK")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        msg = f"{name or path}: not a readable MetaImage ({reason}); download it again"
        raise ImageError(msg) from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        msg = f"{name or path}: not a scalar 3D image"
        raise ImageError(msg)
    affine = np.eye(4)
    directions = np.array(image.GetDirection(), np.float64).reshape(3, 3)
    affine[:3, :3] = _LPS_TO_RAS @ directions @ np.diag(image.GetSpacing())
    affine[:3, 3] = _LPS_TO_RAS @ np.array(image.GetOrigin(), np.float64)
    # SimpleITK gives (z, y, x).
    return Volume(np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0)), affine)
