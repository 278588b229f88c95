"""Semantic map to ordered components to anatomical levels with confidence, as pure functions over arrays.

Holds the canal's centreline, the components and their repair, the dynamic programme over levels and the painting of
instances. No file, no network and no BIDS may appear here; ``docs/method.md`` tells the method and its numbers.
"""

from totalspineseg_bids.segmentation.labelling.components.level_prior import LevelPrior
from totalspineseg_bids.segmentation.labelling.labeller import LabellingInput, label_map
from totalspineseg_bids.segmentation.labelling.odd_discs import odd_discs
from totalspineseg_bids.segmentation.labelling.session import label_session

__all__ = ["LabellingInput", "LevelPrior", "label_map", "label_session", "odd_discs"]
