"""Find and read companions: images of the same session that are labelled together."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.imaging.io import load_image
from totalspineseg_bids.imaging.memory import check_memory
from totalspineseg_bids.imaging.volume import Volume

logger = logging.getLogger(__name__)

#: Images that overlap less than this along an axis of the scanner are not labelled together, mm.
OVERLAP_MM = 10.0
_SAME_POINT_MM = 1e-3


def find_companions(source: SourceImage, session: Iterable[SourceImage]) -> tuple[SourceImage, ...]:
    """Return the images of a session that overlap with an image, and those that overlap with these, and so on.

    Thus all images of a group have the same companions, and their levels do not depend on the image asked for.

    Parameters
    ----------
    source : SourceImage
        Source image.
    session : iterable of SourceImage
        Images of its session, with or without itself. Images with an unreadable header are skipped.
    """
    boxes = {image: box for image in {source: None, **dict.fromkeys(session)} if (box := _box(image)) is not None}
    pending, group = [source] if source in boxes else [], {source}
    while pending:
        low, high = boxes[pending.pop()]
        overlapping = (np.minimum(high, box[1]) - np.maximum(low, box[0]) > OVERLAP_MM for box in boxes.values())
        found = [other for other, yes in zip(boxes, overlapping, strict=True) if yes.all() and other not in group]
        pending += found
        group.update(found)
    return tuple(sorted(group - {source}))


def _box(source: SourceImage) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the lowest and highest scanner coordinates of an image, mm; ``None`` if its header does not give them."""
    try:
        image = nib.load(source.path)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError):
        return None
    shape = np.array([*image.shape, 1, 1, 1][:3])
    if not _is_placed(image, shape):
        return None
    corners = np.array(list(np.ndindex(2, 2, 2))) * shape
    points = apply_affine(image.affine, corners)
    return points.min(axis=0), points.max(axis=0)


def _is_placed(image: nib.spatialimages.SpatialImage, shape: NDArray[np.int_]) -> bool:
    """Return whether a header says where in the scanner the image lies.

    Conversion tools that lose the position leave no orientation code, or put the first voxel or the centre at 0.
    """
    if not (int(image.header["qform_code"]) or int(image.header["sform_code"])):
        return False
    points = apply_affine(image.affine, [np.zeros(3), (shape - 1) / 2])
    return bool((np.abs(points).max(axis=1) > _SAME_POINT_MM).all())


def read_companions(companions: Sequence[SourceImage], source: SourceImage, config: RunConfig) -> list[Volume]:
    """Read the companions of an image; those that cannot be read are skipped with a warning.

    Parameters
    ----------
    companions : sequence of SourceImage
        Images to read.
    source : SourceImage
        Image that they are labelled with.
    config : RunConfig
        Settings of the run, which select the volume of a series.
    """
    volumes = (_read(companion, source, config) for companion in companions)
    return [volume for volume in volumes if volume is not None]


def _read(companion: SourceImage, source: SourceImage, config: RunConfig) -> Volume | None:
    try:
        check_memory(companion.path, config.memory_mb)
        volume = load_image(companion.path, volume=config.volume).volume
        return replace(volume, acquisition=companion.acquisition)
    except (SpineAppError, OSError) as error:
        # The error is reported when that image is processed itself.
        logger.warning("%s: labelled without %s, which cannot be read", source.name, companion.name)
        logger.debug("%s", error)
        return None
