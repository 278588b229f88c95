"""Estimate the memory that an image needs, from its header, before its voxels are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nibabel.affines import voxel_sizes

from totalspineseg_bids.errors import ImageError
from totalspineseg_bids.imaging.checks import times
from totalspineseg_bids.imaging.io import read_header

#: Memory of the program and its bundled models, MB: 0.9 GB measured with an image of 0.3 million voxels of 1 mm.
_PROGRAM_MB = 800
#: Memory for each million voxels of 1 mm while step 1 runs, MB: (1419 - 905) / 12, measured with 230 mm of noise.
_MB_PER_MEGAVOXEL = 43
#: The same for an image filled by a spine, with step 2 and refinement: 3.0 GB measured with 9.6 million voxels, and a
#: fifth more for the larger patches of --quality best (assumed).
_MB_PER_SPINE_MEGAVOXEL = 250


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Memory that an image needs, MB."""

    least: float
    """Least amount, with which only an image without a spine succeeds."""
    likely: float
    """Amount for an image that a spine fills."""
    size: str
    """Dimensions of the file, for messages."""
    megavoxels: float
    """Size at 1 mm, million voxels."""


def estimate_memory(path: Path) -> MemoryNeed:
    """Estimate the memory that an image needs.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file; only its header is read.

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If its header is damaged or not that of an image.
    """
    header = read_header(path)
    shape = header.get_data_shape()
    voxels, spacing = math.prod(shape[:3]), voxel_sizes(header.get_best_affine())
    scaled = float(header["scl_slope"]) not in {0.0, 1.0} and math.isfinite(header["scl_slope"])
    item = 8 if scaled else header.get_data_dtype().itemsize
    read = (math.prod(shape) * item + 2 * 4 * voxels) / 1e6
    working = voxels * math.prod(float(size) for size in spacing) / 1e6
    base = _PROGRAM_MB + read
    return MemoryNeed(
        base + working * _MB_PER_MEGAVOXEL, base + working * _MB_PER_SPINE_MEGAVOXEL, times(shape), working
    )


def check_memory(path: Path, limit_mb: float) -> str | None:
    """Reject an image that needs more memory than there is, so that the system does not kill the process.

    Parameters
    ----------
    path : Path
        A ``.nii`` or ``.nii.gz`` file.
    limit_mb : float
        Memory that the process may use, MB.

    Returns
    -------
    str or None
        Warning for an image that may need more.

    Raises
    ------
    MissingInputError
        If the file is absent, not fetched, or not readable.
    ImageError
        If its header is damaged, or the image needs too much memory.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> from totalspineseg_bids.imaging import write_labels
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "image.nii.gz")
    ...     write_labels(path, np.zeros((100, 100, 100), np.uint8), np.eye(4))
    ...     check_memory(path, limit_mb=1000)
    '100 x 100 x 100 voxels may need 1.1 GB of memory, of which 1.0 GB may be used'
    """
    need = estimate_memory(path)
    allowed = f"of which {limit_mb / 1000:.1f} GB may be used"
    if need.least > limit_mb:
        msg = (
            f"{path}: {need.size} voxels need at least {need.least / 1000:.1f} GB of memory, {allowed}; "
            "give more (--mem-mb, the limits of the job or container, another machine) or crop the image"
        )
        raise ImageError(msg)
    if need.likely > limit_mb:
        return f"{need.size} voxels may need {need.likely / 1000:.1f} GB of memory, {allowed}"
    return None
