"""Segment and label the whole spine in MRI, as a BIDS App and as a library.

>>> from totalspineseg_bids import segment
>>> spine = segment("sub-01_T2w.nii.gz", model="bundled")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from totalspineseg_bids.segmentation.api import label, segment
    from totalspineseg_bids.segmentation.pipeline import SpineSegmenter

__version__ = "0.1.0"
__all__ = ["SpineSegmenter", "__version__", "label", "segment"]

_HOMES = {
    "SpineSegmenter": "totalspineseg_bids.segmentation.pipeline",
    "label": "totalspineseg_bids.segmentation.api",
    "segment": "totalspineseg_bids.segmentation.api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - module attributes are of any type
    # Loaded when asked for: torch takes seconds, and `--help` should not.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
