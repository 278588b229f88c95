"""Images of one session that help each other: which they are, and reading them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.config import RunConfig
from totalspineseg_bids.errors import SpineAppError
from totalspineseg_bids.imaging.io import load_image
from totalspineseg_bids.imaging.volume import Volume

logger = logging.getLogger(__name__)

#: Images that share less than this along an axis of the scanner tell each other nothing.
OVERLAP_MM = 10.0


def find_companions(source: SourceImage, session: Iterable[SourceImage]) -> tuple[SourceImage, ...]:
    """Return the images of a session that show some of what an image shows.

    Parameters
    ----------
    source : SourceImage
        The image.
    session : iterable of SourceImage
        Images of its session, itself among them or not. Those whose header cannot be read are no companions.
    """
    own = _box(source)
    if own is None:
        return ()
    found = []
    for other in session:
        box = None if other == source else _box(other)
        if box is not None and bool((np.minimum(own[1], box[1]) - np.maximum(own[0], box[0]) > OVERLAP_MM).all()):
            found.append(other)
    return tuple(found)


def _box(source: SourceImage) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the lowest and highest scanner coordinates of an image, mm, from its header alone."""
    try:
        image = nib.load(source.path)
    except (OSError, ValueError, EOFError, nib.filebasedimages.ImageFileError):
        return None
    shape = np.array([*image.shape, 1, 1, 1][:3])
    corners = np.array(list(np.ndindex(2, 2, 2))) * shape
    points = apply_affine(image.affine, corners)
    return points.min(axis=0), points.max(axis=0)


def read_companions(companions: Sequence[SourceImage], source: SourceImage, config: RunConfig) -> list[Volume]:
    """Read the companions of an image; one that cannot be read is left out with a warning.

    Parameters
    ----------
    companions : sequence of SourceImage
        What to read.
    source : SourceImage
        The image that they are to help.
    config : RunConfig
        Says which volume of a series counts.
    """
    volumes = (_read(companion, source, config) for companion in companions)
    return [volume for volume in volumes if volume is not None]


def _read(companion: SourceImage, source: SourceImage, config: RunConfig) -> Volume | None:
    try:
        return load_image(companion.path, volume=config.volume).volume
    except (SpineAppError, OSError) as error:
        # Its own turn tells what is wrong with it; here it only does not help.
        logger.warning("%s: labelled without %s, which cannot be read", source.name, companion.name)
        logger.debug("%s", error)
        return None
