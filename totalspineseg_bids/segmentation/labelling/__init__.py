"""Label a semantic map: find its components, their anatomical levels with confidence, and the voxels of each level.

`components` finds and repairs the components, `column` finds their levels by dynamic programming, and `instances`
assigns voxels to levels. All are pure functions of arrays, without files, networks or BIDS. ``docs/method.md``
describes the method.

Examples
--------
A map without a spine has no components:

>>> import numpy as np
>>> from totalspineseg_bids.segmentation.class_map import ClassMap
>>> spine = label_map(np.zeros((8, 8, 8), np.uint8), np.eye(4), ClassMap.named("r20240601-step1"))
>>> spine.status.value, spine.components
('no-spine', ())
"""

from totalspineseg_bids.segmentation.labelling.components.level_prior import LevelPrior
from totalspineseg_bids.segmentation.labelling.labeller import LabellingInput, label_map
from totalspineseg_bids.segmentation.labelling.odd_discs import odd_discs
from totalspineseg_bids.segmentation.labelling.session import label_session

__all__ = ["LabellingInput", "LevelPrior", "label_map", "label_session", "odd_discs"]
