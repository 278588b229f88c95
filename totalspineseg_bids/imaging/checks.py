"""Checks of a NIfTI file before its data are read: present, complete, scalar, 3D, with a usable affine."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from totalspineseg_bids.errors import ImageError, MissingInputError
from totalspineseg_bids.imaging.volume import Affine, Geometry

#: Highest compression ratio of deflate (RFC 1951: 258 bytes from 2 bits); a header that promises more data is wrong.
_MAX_DEFLATE_RATIO = 1032
#: Largest plausible field of view of a scan of a person, in voxels of 1 mm.
_MAX_VOXELS_AT_1MM = 1_000_000_000
_MAX_VOXELS = 1 << 32
#: Largest pointer of git-annex or git-lfs (git-annex: 32 KiB allowed, a few hundred bytes in practice).
_MAX_POINTER_BYTES = 4096
_MAX_VOXEL_MM = 30.0
_MIN_VOXEL_MM = 0.01
#: Triple product of the directions of the axes, which is 0 if they lie in one plane; images below it are refused.
_MIN_BOX = 0.1
#: Exceptions that reading a damaged file raises.
BAD_FILE = (
    EOFError,
    HeaderDataError,
    HeaderTypeError,
    ImageFileError,
    OverflowError,
    ValueError,
    WrapStructError,
    zlib.error,
    gzip.BadGzipFile,
)


def check_file(path: Path) -> None:
    """Reject a path that is absent, a folder, empty, unreadable, or not fetched.

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If the path is a folder or an empty file.
    """
    if not is_fetched(path):
        kind = "the link points nowhere" if path.is_symlink() else "a git-annex or git-lfs pointer"
        msg = f"{path}: content not fetched ({kind}); run 'datalad get' or 'git annex get' on it"
        raise MissingInputError(msg)
    if not path.exists():
        msg = f"{path}: no such file"
        raise MissingInputError(msg)
    if path.is_dir():
        msg = f"{path}: is a folder, not an image; give the path of a .nii or .nii.gz file"
        raise ImageError(msg)
    if not os.access(path, os.R_OK):
        msg = f"{path}: no permission to read it; change its mode or run as a user who may"
        raise MissingInputError(msg)
    if path.stat().st_size == 0:
        msg = f"{path}: the file is empty; copy or convert it again"
        raise ImageError(msg)


def is_fetched(path: Path) -> bool:
    """Return whether a file is more than a link of git-annex without its content, or a pointer of git-annex or git-lfs.

    Files that are absent or cannot be read count as fetched.
    """
    if path.is_symlink() and not path.exists():
        return False
    try:
        if path.stat().st_size >= _MAX_POINTER_BYTES:
            return True
        with path.open("rb") as stream:
            start = stream.read(256)
    except OSError:
        return True
    return not (start.startswith(b"version https://git-lfs") or b"/annex/objects/" in start)


def truncated(path: Path) -> ImageError:
    """Return the error for a file that ends early."""
    return ImageError(f"{path}: the file is truncated or damaged; copy or convert it again")


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error, or its type if it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_size(path: Path, image: nib.Nifti1Image) -> None:
    """Reject a header that promises more data than the file can hold, before memory is allocated."""
    shape = image.header.get_data_shape()
    dtype = image.header.get_data_dtype()
    if not shape or any(int(n) < 1 for n in shape):
        msg = f"{path}: the header gives dimensions {times(shape)}; convert the image again"
        raise ImageError(msg)
    if math.prod(map(int, shape)) > _MAX_VOXELS:
        msg = f"{path}: {times(shape)} voxels are more than this program takes; split or down-sample the image"
        raise ImageError(msg)
    promised = dtype.itemsize * math.prod(map(int, shape))
    held = path.stat().st_size
    limit = held * _MAX_DEFLATE_RATIO if path.name.endswith(".gz") else held
    if promised > limit:
        msg = (
            f"{path}: the header promises {times(shape)} voxels ({promised / 1e6:.0f} MB), "
            f"the file of {held} bytes cannot hold them; copy or convert it again"
        )
        raise ImageError(msg)


def times(shape: tuple[int, ...]) -> str:
    """Format a shape for a message, such as ``256 x 256 x 15``."""
    return " x ".join(str(int(n)) for n in shape) or "0"


def check_kind(path: Path, image: nib.Nifti1Image) -> tuple[int, ...]:
    """Reject anything but a scalar 3D image or 4D series; return the shape without trailing ones."""
    dtype = image.header.get_data_dtype()
    if dtype.kind not in "iufb":
        kind = "complex" if dtype.kind == "c" else "colour (RGB) or structured"
        msg = f"{path}: holds {kind} values; give a magnitude (scalar) image"
        raise ImageError(msg)
    shape = tuple(int(n) for n in image.header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 4:
        msg = f"{path}: has {len(shape)} dimensions ({times(shape)}); give a 3D image or a 4D series"
        raise ImageError(msg)
    if len(shape) < 3 or min(shape[:3]) < 2:
        msg = f"{path}: is 2D ({times(shape)}); a 3D image is needed, merge its slices into one file"
        raise ImageError(msg)
    return shape


def check_affine(path: Path, image: nib.Nifti1Image, shape: tuple[int, ...]) -> tuple[Affine, list[str]]:
    """Return the best affine of a header and notes on its oddities; reject a degenerate affine."""
    notes: list[str] = []
    try:
        affine = np.asarray(image.affine, np.float64)
    except BAD_FILE as error:
        msg = f"{path}: the header's orientation cannot be read ({first_line(error)}); set a valid sform or qform"
        raise ImageError(msg) from error
    matrix = affine[:3, :3]
    spacing = voxel_sizes(affine)
    if not np.isfinite(affine).all() or (spacing == 0).any():
        msg = f"{path}: the affine is zero or not finite; set a valid sform or qform in the header"
        raise ImageError(msg)
    directions = matrix / spacing
    box = abs(float(np.linalg.det(directions)))
    if box < _MIN_BOX:
        msg = f"{path}: the affine is degenerate (two axes point the same way); set a valid sform or qform"
        raise ImageError(msg)
    if Geometry((shape[0], shape[1], shape[2]), affine).is_sheared:
        notes.append("sheared-affine")
    field = spacing * np.array(shape[:3])
    if spacing.max() > _MAX_VOXEL_MM or spacing.min() < _MIN_VOXEL_MM or float(field.prod()) > _MAX_VOXELS_AT_1MM:
        size = " x ".join(f"{v:.4g}" for v in spacing)
        msg = f"{path}: voxels of {size} mm are not plausible for a spine MRI; correct the header (units are mm)"
        raise ImageError(msg)
    codes = int(image.header["qform_code"]), int(image.header["sform_code"])
    if codes == (0, 0):
        notes.append("no-orientation-in-header")
    elif min(codes) > 0:
        with suppress(*BAD_FILE):
            if not _same_place(image.header.get_qform(), affine, shape):
                notes.append("qform-sform-differ")
    return affine, notes


def _same_place(one: NDArray[Any], other: Affine, shape: tuple[int, ...]) -> bool:
    """Return whether two affines place the corners of a grid within 1 mm of each other."""
    corners = np.array([[x, y, z, 1] for x in (0, shape[0]) for y in (0, shape[1]) for z in (0, shape[2])], float)
    difference = corners @ (np.asarray(one, float) - other).T
    return bool(np.abs(difference).max() < 1.0)
