"""Signal of discs, relative to the cerebrospinal fluid (CSF) and the vertebral bodies next to them.

Signal in MRI has no unit, so that only ratios within an image compare between images. Reference regions close to the
disc cancel most of the bias field too. Mean signal and its ratio to CSF or bone are usual measures of degeneration
(Salamat et al., SpringerPlus 2016, 5:829, doi:10.1186/s40064-016-2542-5). Sizes of the regions are assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from scipy import ndimage

from totalspineseg_bids.anatomy import CANAL_ID
from totalspineseg_bids.imaging.centerline import Vector
from totalspineseg_bids.imaging.volume import Affine, Volume
from totalspineseg_bids.measurement.body_shape import BodyShape
from totalspineseg_bids.measurement.sampling import Mask

#: CSF within this distance above and below the disc is its reference, mm.
_REACH_MM = 10.0
#: Size of the inner part of a disc or body, as a share of its width, depth and height.
_INNER = 0.5
#: A region of fewer voxels has no signal.
_MIN_VOXELS = 8


@dataclass(frozen=True, slots=True)
class SpineSignal:
    """Image and CSF of a labelled spine.

    Examples
    --------
    >>> labels = np.full((9, 9, 30), CANAL_ID, np.uint8)
    >>> signal = SpineSignal.from_labels(Volume(np.full(labels.shape, 300.0), np.eye(4)), labels, np.eye(4))
    >>> len(signal.csf), signal.values(np.array([[4.2, 4.0, 4.0], [4.0, 4.0, 90.0]])).tolist()
    (1372, [300.0])
    """

    image: Volume
    """Image, on any grid."""
    csf: Vector
    """Voxel centres of the canal without the cord, one voxel away from its borders, shape (N, 3), mm."""

    @classmethod
    def from_labels(cls, image: Volume, labels: NDArray[np.uint8], affine: Affine) -> SpineSignal:
        """Find the CSF of a label map of shape (X, Y, Z) with canonical ids; the image may have another grid."""
        canal = labels == CANAL_ID
        boxes = ndimage.find_objects(canal.view(np.uint8))
        if not boxes:
            return cls(image, np.zeros((0, 3)))
        start = [s.start for s in boxes[0]]
        inner = np.argwhere(ndimage.binary_erosion(canal[boxes[0]])) + start
        return cls(image, apply_affine(affine, inner))

    def values(self, points: Vector) -> Vector:
        """Return the finite values of the voxels that hold points of shape (N, 3), mm."""
        index = np.rint(self.image.geometry.index_of(points)).astype(np.intp)
        index = index[((index >= 0) & (index < self.image.data.shape)).all(axis=1)]
        found: Vector = self.image.data[tuple(index.T)].astype(np.float64)
        return found[np.isfinite(found)]

    def mean(self, mask: Mask, shape: BodyShape | None = None) -> float | None:
        """Return the mean over a region, or over its inner ellipsoid; ``None`` if that has too few voxels.

        Parameters
        ----------
        mask : Mask
            The region.
        shape : BodyShape, optional
            Axes and sizes; the ellipsoid has half the width, depth and height.
        """
        points = mask.points()
        if shape is not None:
            half = _INNER / 2 * np.array([shape.width, shape.depth, shape.height])
            points = points[((shape.frame.coordinates(points) / half) ** 2).sum(axis=1) <= 1.0]
        values = self.values(points)
        return float(values.mean()) if len(values) >= _MIN_VOXELS else None

    def csf_beside(self, disc: BodyShape) -> float | None:
        """Return the median of the CSF at the level of a disc; ``None`` without CSF in view there."""
        values = self.values(self.csf[np.abs(disc.frame.coordinates(self.csf)[:, 2]) <= _REACH_MM])
        return float(np.median(values)) if len(values) >= _MIN_VOXELS else None


def ratio(value: float | None, reference: float | None) -> float | None:
    """Divide two signals; ``None`` where one is missing or the reference is not positive.

    >>> ratio(50.0, 200.0), ratio(50.0, 0.0), ratio(None, 200.0)
    (0.25, None, None)
    """
    return None if value is None or reference is None or reference <= 0 else value / reference
