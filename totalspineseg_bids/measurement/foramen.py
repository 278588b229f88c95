"""Height of the neural foramina, between the pedicles of neighbouring vertebrae.

The height is the distance from the lower edge of the pedicle above to the upper edge of the pedicle below (Hasegawa et
al., J Bone Joint Surg Am 1995, 77:32; in three dimensions Senoo et al., Spine 2014, 39:E929). Pedicles are what reaches
from the body to the arch beside the anterior half of the canal; the limits of that region are assumed.
"""

from __future__ import annotations

import numpy as np

from totalspineseg_bids.imaging.centerline import Vector
from totalspineseg_bids.measurement.body_shape import BodyShape
from totalspineseg_bids.measurement.sampling import Mask, outer_edges

#: Distance of the pedicles from the middle of the canal and from the posterior wall of the bodies, at least, mm.
_BESIDE_MM, _BEHIND_MM = 4.0, 1.5
#: Reach above and below the middle of the disc, mm.
_REACH_MM = 35.0
#: Smallest width over which both pedicles are seen, mm.
_MIN_WIDTH_MM = 1.0


def measure_foramina(
    upper: tuple[Mask, BodyShape], lower: tuple[Mask, BodyShape], disc: BodyShape, canal: Vector
) -> tuple[float | None, float | None]:
    """Measure the foramina of a disc.

    Parameters
    ----------
    upper, lower : (Mask, BodyShape)
        Vertebrae above and below.
    disc : BodyShape
        The disc between them; heights are measured along its axis.
    canal : (3,) float, mm
        Middle of the canal behind the disc.

    Returns
    -------
    left, right : float or None
        Heights, mm; ``None`` where the pedicles are not in view or not clear.
    """
    frame = disc.frame
    walls = frame.coordinates(np.stack([upper[1].back_bottom, lower[1].back_top]))[:, 1]
    across, back = (float(c) for c in frame.coordinates(canal)[:2])
    front, half = float(walls.min()) - _BEHIND_MM, float(np.maximum(upper[1].width, lower[1].width)) / 2
    step = float(np.clip(upper[0].spacing, 0.5, 1.0))
    if not front - back >= step or not half > _BESIDE_MM:
        return None, None
    shape = (int(2 * half / step) + 1, int((front - back) / step) + 1, int(2 * _REACH_MM / step) + 1)
    start = np.array([across - half, back, -_REACH_MM])
    lowest, _ = outer_edges(upper[0].sample(frame, start, shape, step))
    _, highest = outer_edges(lower[0].sample(frame, start, shape, step))
    gap = (lowest - highest) * step
    # A pedicle reaches from the body to the arch. Between the pedicles, the foramen is widest at their notches.
    whole = np.isfinite(gap).all(axis=1)
    height = np.where(whole, gap.max(axis=1), np.nan)
    right = np.arange(shape[0]) * step - half
    found = [height[side & whole] for side in (right <= -_BESIDE_MM, right >= _BESIDE_MM)]
    left_mm, right_mm = (float(np.median(h)) if len(h) * step >= _MIN_WIDTH_MM else None for h in found)
    return left_mm, right_mm
