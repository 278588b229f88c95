"""Explanations of the findings about an image file, for the page of a participant."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

#: What is wrong with a file, by the note of `imaging.io.load_image` without its number.
_FILE_NOTES: Final = MappingProxyType(
    {
        "sheared-affine": "the axes in the header are not perpendicular; ITK and programs built on it read neither "
        "image nor labels, but labels on the 1 mm grid (--output-resolution both)",
        "qform-sform-differ": "qform and sform of the header place the image differently; the sform is used here, "
        "other programs may use the qform",
        "no-orientation-in-header": "the header does not say which way the image lies; check that head and feet, and "
        "left and right, are not exchanged",
        "intensity-outliers": "that many voxels are far brighter or darker than the rest; they were clipped",
        "non-finite-voxels": "that many voxels are NaN or infinite; they were replaced",
    }
)


def describe_finding(flag: str) -> str:
    """Return the explanation of a finding; empty for findings whose name says enough.

    Examples
    --------
    >>> describe_finding("non-finite-voxels:12")
    'that many voxels are NaN or infinite; they were replaced'
    """
    return _FILE_NOTES.get(flag.partition(":")[0], "")
