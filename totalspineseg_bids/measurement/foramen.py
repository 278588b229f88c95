"""Height of the neural foramina, between the pedicles of neighbouring vertebrae.

The height is the distance from the lower edge of the pedicle above to the upper edge of the pedicle below (Hasegawa et
al., J Bone Joint Surg Am 1995, 77:32; in three dimensions Senoo et al., Spine 2014, 39:E929). Pedicles are what both
vertebrae have beside the anterior half of the canal; the extent of that region is assumed.
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
#: Smallest cross-section of the pedicles seen from above, mm².
_MIN_AREA_MM2 = 4.0
#: Where the quartiles of the distances differ more, other processes than pedicles face each other, mm (assumed).
_MAX_SPREAD_MM = 4.0


def measure_foramina(
    upper: tuple[Mask, BodyShape], lower: tuple[Mask, BodyShape], disc: BodyShape, canal: Vector
) -> tuple[float | None, float | None]:
    """Measure the foramina of a disc.

    Parameters
    ----------
    upper, lower : (Mask, BodyShape)
        Vertebrae above and below.
    disc : BodyShape
        The disc, along whose axis heights are measured.
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
    front, half = float(walls.min()) - _BEHIND_MM, max(upper[1].width, lower[1].width) / 2
    step = float(np.clip(upper[0].spacing, 0.5, 1.0))
    if not front - back >= step or not half > _BESIDE_MM:
        return None, None
    shape = (int(2 * half / step) + 1, int((front - back) / step) + 1, int(2 * _REACH_MM / step) + 1)
    start = np.array([across - half, back, -_REACH_MM])
    lowest, _ = outer_edges(upper[0].sample(frame, start, shape, step))
    _, highest = outer_edges(lower[0].sample(frame, start, shape, step))
    gap = (lowest - highest) * step
    right = np.arange(shape[0]) * step - half
    heights = []
    for side in (right <= -_BESIDE_MM, right >= _BESIDE_MM):
        found = gap[side]
        found = found[found > 0]
        low, middle, high = np.percentile(found, (25, 50, 75)) if len(found) * step**2 >= _MIN_AREA_MM2 else (0, 0, 99)
        heights.append(float(middle) if high - low <= _MAX_SPREAD_MM else None)
    return heights[0], heights[1]
