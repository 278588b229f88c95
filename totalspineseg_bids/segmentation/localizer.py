"""Read labelled images that guide the labelling of other images of the same person."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LabelScheme
from totalspineseg_bids.errors import ImageError
from totalspineseg_bids.imaging.io import read_labels
from totalspineseg_bids.imaging.volume import Volume

logger = logging.getLogger(__name__)


def read_localizer(source: str | Path | Volume, scheme: LabelScheme) -> Volume:
    """Read a labelled image of the same person and convert it to canonical ids.

    An image whose ids fit another label scheme better is read in that scheme, with a warning: taken for ids of
    ``scheme``, they would name other structures.

    Parameters
    ----------
    source : str, Path or Volume
        Labelled image.
    scheme : {"totalsegmri", "totalspineseg"}
        Expected label scheme.

    Raises
    ------
    MissingInputError
        If the file is absent or cannot be read.
    ImageError
        If it is no label image, or holds no label of any scheme.
    """
    volume = source if isinstance(source, Volume) else read_labels(source)
    name = "localizer" if isinstance(source, Volume) else str(source)
    ids = [int(value) for value in np.unique(volume.data) if value]
    found = anatomy.guess_scheme(ids, scheme)
    if found != scheme:
        logger.warning("%s: its ids are those of the label scheme %s, not %s; read as %s", name, found, scheme, found)
    labels = anatomy.from_scheme(volume.data, found)
    if not labels.any():
        msg = f"{name}: holds no label of the scheme '{scheme}'; it must be the output of an earlier labelling"
        raise ImageError(msg)
    return Volume(labels, volume.affine)
