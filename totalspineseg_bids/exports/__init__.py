"""Files for other tools: 3D Slicer, ITK-SNAP, the Spinal Cord Toolbox and DICOM viewers.

`make_exports` turns a labelled spine into label maps and texts; `write_dicom_segmentation` writes it for a DICOM
series. Nothing here knows names or folders of the output.
"""

from __future__ import annotations

from totalspineseg_bids.exports.body_parts import split_vertebrae
from totalspineseg_bids.exports.dicom_segmentation import write_dicom_segmentation
from totalspineseg_bids.exports.markups import make_markups
from totalspineseg_bids.exports.products import ExportedMap, ExportedText, make_exports
from totalspineseg_bids.exports.spinal_cord_toolbox import draw_centerline, label_cord

__all__ = [
    "ExportedMap",
    "ExportedText",
    "draw_centerline",
    "label_cord",
    "make_exports",
    "make_markups",
    "split_vertebrae",
    "write_dicom_segmentation",
]
