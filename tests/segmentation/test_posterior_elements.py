"""Heights and regions expected for posterior bone."""

import numpy as np

from totalspineseg_bids import anatomy
from totalspineseg_bids.imaging.centerline import Projection
from totalspineseg_bids.segmentation.labelling.instances.posterior_elements import (
    body_height,
    regions_along_canal,
)


def test_processes_hang_below_their_bodies_and_arches_of_the_neck_lower_than_those_of_the_chest():
    regions = np.array(["C", "T", "L", ""])
    for anterior, behind in ((-30.0, True), (-2.5, True), (12.0, False)):
        place = Projection(np.full(4, 50.0), np.full(4, anterior), np.zeros(4))
        height, is_behind = body_height(place, regions)
        assert (is_behind == behind).all()
        if anterior == -30.0:
            assert (height < 45).all()
        elif behind:
            assert height[0] < 50 < min(height[1:])
        else:
            np.testing.assert_array_equal(height, 50.0)


def test_the_region_is_that_of_the_nearest_body_with_a_name():
    ids = [anatomy.vertebra("C7").id, anatomy.vertebra("T1").id, anatomy.unnamed(anatomy.Structure.VERTEBRA, 1).id]
    s = np.array([0.0, 20.0, 40.0, 4.0, 24.0, 36.0])
    assert regions_along_canal(s, np.array([*ids, 0, 0, 0])).tolist() == ["C", "T", "", "C", "T", ""]
    assert regions_along_canal(s, np.zeros(6, np.int64)).tolist() == [""] * 6
