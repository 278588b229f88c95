"""Segment and label the whole spine in MRI, as a BIDS App and as a library.

>>> from totalspineseg_bids import segment
>>> spine = segment("sub-01_T2w.nii.gz", model="bundled")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from totalspineseg_bids.segmentation.api import label, segment
    from totalspineseg_bids.segmentation.pipeline import SpineSegmenter

__version__ = "0.1.0"
__all__ = ["SpineSegmenter", "__version__", "label", "segment"]

# Threads of OpenMP (torch) wait for their next task in a loop by default and take the cores from those of OpenVINO. The
# variable is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Loaded on first use: importing torch takes seconds, which `--help` should not wait for.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__, submod_attrs={"segmentation.api": ["label", "segment"], "segmentation.pipeline": ["SpineSegmenter"]}
)
