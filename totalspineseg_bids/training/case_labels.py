"""Reading and checking of an image and its labels on one grid."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from totalspineseg_bids import anatomy
from totalspineseg_bids.anatomy import LabelScheme
from totalspineseg_bids.errors import ImageError
from totalspineseg_bids.imaging.grid import restore_labels, to_working_grid
from totalspineseg_bids.imaging.io import read_image, read_labels
from totalspineseg_bids.imaging.volume import Geometry, Volume
from totalspineseg_bids.training.cases import LabelFiles, TrainingCase

#: How the ids of label files are read; ``"auto"`` looks at each file.
SchemeChoice = LabelScheme | Literal["auto"]

#: Tissue classes of synthetic label maps, which are background here.
_TISSUES = range(1, 10)
#: Labelled voxels that may lie outside the image before the labels count as lying elsewhere.
_MAX_OUTSIDE = 0.02


def check_label_space(labels: Geometry, occupied: NDArray[np.bool_], image: Geometry, path: Path) -> None:
    """Raise if labels and image do not occupy the same space.

    A label map may have another grid than the image (labels are often made on a 1 mm copy), but its voxels must fall
    into the image, and one of the image's shape must have its affine.

    Parameters
    ----------
    labels : Geometry
        Grid of the label map.
    occupied : bool array
        Labelled voxels, shape of ``labels``.
    image : Geometry
        Grid of the image.
    path : Path
        Label file, for the message.

    Raises
    ------
    ImageError
        If the labels lie elsewhere.
    """
    if labels.shape == image.shape and not labels.same_grid(image, tolerance=0.1):
        msg = f"{path}: has the image's shape but another affine; copy the image's header to it if the voxels match"
        raise ImageError(msg)
    indices = np.argwhere(occupied)
    step = max(1, len(indices) // 20_000)
    to_image = np.linalg.inv(image.affine) @ labels.affine
    position = indices[::step] @ to_image[:3, :3].T + to_image[:3, 3]
    # Half a voxel of either grid may stick out.
    margin = 0.5 + 0.5 * np.abs(to_image[:3, :3]).sum(axis=1)
    inside = ((position > -margin) & (position < np.array(image.shape) - 1 + margin)).all(axis=1)
    outside = 1.0 - float(inside.mean())
    if outside > _MAX_OUTSIDE:
        msg = (
            f"{path}: {100 * outside:.0f} % of the labelled voxels lie outside the image; they belong to another image"
        )
        raise ImageError(msg)


def _unknown_ids(labels: NDArray[np.uint8], scheme: LabelScheme) -> list[int]:
    """Return the ids in a label map that a scheme does not have."""
    known = {label.id_in(scheme) for label in anatomy.LABELS}
    present = {int(value) for value in np.flatnonzero(np.bincount(labels.ravel(), minlength=256))} - {0}
    tissues = set(_TISSUES) if scheme != "totalspineseg" else set()
    return sorted(present - known - tissues)


def scheme_of(labels: NDArray[np.uint8], path: Path) -> LabelScheme:
    """Detect the label scheme of a map: the only one that has all of its ids.

    Parameters
    ----------
    labels : uint8 array
        Ids, any shape.
    path : Path
        Label file, for the message.

    Raises
    ------
    ImageError
        If both schemes have all of the ids (a few thoracic vertebrae alone), or neither has.
    """
    fitting = [scheme for scheme in anatomy.LABEL_SCHEMES if not _unknown_ids(labels, scheme)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        msg = f"{path}: its labels fit both schemes; choose one with --label-scheme"
        raise ImageError(msg)
    unknown = _unknown_ids(labels, anatomy.DEFAULT_SCHEME)
    msg = f"{path}: label {unknown[0]} and others fit no label scheme; map them to one of them first"
    raise ImageError(msg)


def _canonical_ids(labels: NDArray[np.uint8], scheme: SchemeChoice, path: Path) -> NDArray[np.uint8]:
    """Translate a label scheme to canonical ids; refuse ids that it does not have."""
    if scheme == "auto":
        return anatomy.from_scheme(labels, scheme_of(labels, path) if labels.any() else anatomy.DEFAULT_SCHEME)
    unknown = _unknown_ids(labels, scheme)
    if unknown:
        other = anatomy.DEFAULT_SCHEME if scheme == "totalspineseg" else "totalspineseg"
        msg = f"{path}: label {unknown[0]} is not in the scheme '{scheme}'; try --label-scheme {other}"
        raise ImageError(msg)
    return anatomy.from_scheme(labels, scheme)


def merged_labels(files: LabelFiles, image: Volume, grid: Geometry, scheme: SchemeChoice) -> NDArray[np.uint8]:
    """Return the labels of an image on a grid, in canonical ids: levels, then canal in free voxels, then cord.

    Raises
    ------
    SpineAppError
        If a file cannot be used, or the labels lie elsewhere than the image.
    """
    merged = np.zeros(grid.shape, np.uint8)
    for path in files.levels:
        volume = read_labels(path)
        labels = _canonical_ids(volume.data, scheme, path)
        if not labels.any():
            msg = f"{path}: holds no label of the spine"
            raise ImageError(msg)
        check_label_space(volume.geometry, labels > 0, image.geometry, path)
        on_grid = restore_labels(labels, volume.affine, grid)
        merged = np.where(on_grid > 0, on_grid, merged)
    for mask_path, label_id in ((files.canal, anatomy.CANAL_ID), (files.cord, anatomy.CORD_ID)):
        if mask_path is None:
            continue
        volume = read_labels(mask_path)
        mask = (volume.data > 0).astype(np.uint8)
        if not mask.any():
            continue
        check_label_space(volume.geometry, mask > 0, image.geometry, mask_path)
        on_grid = restore_labels(mask, volume.affine, grid)
        free = (merged == 0) | (merged == anatomy.CANAL_ID) | (merged == anatomy.CORD_ID)
        merged[(on_grid > 0) & (free if label_id == anatomy.CORD_ID else merged == 0)] = label_id
    return merged


def load_case(case: TrainingCase, scheme: SchemeChoice = anatomy.DEFAULT_SCHEME) -> tuple[Volume, NDArray[np.uint8]]:
    """Read an image and its labels on the 1 mm RAS grid.

    A series of several volumes (echoes of a gradient echo) becomes their mean, as in the method.

    Parameters
    ----------
    case : TrainingCase
        Image and label files.
    scheme : SchemeChoice, optional
        Label scheme of the files.

    Returns
    -------
    image : Volume
        float32, shape (X, Y, Z), RAS, 1 mm.
    labels : ndarray of uint8
        Canonical ids, same shape.

    Raises
    ------
    SpineAppError
        If a file cannot be used, or the labels lie elsewhere than the image.
    """
    image = read_image(case.image, volume="mean")
    working = to_working_grid(image)
    labels = merged_labels(case.labels, image, working.geometry, scheme)
    if not labels.any():
        msg = f"{case.labels.levels[0]}: no label is left in the image's field of view"
        raise ImageError(msg)
    return Volume(np.asarray(working.data, np.float32), working.affine), labels
