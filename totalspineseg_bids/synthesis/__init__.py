"""Synthetic spines: tissue label maps made from parameters or posed atlases, and MR-like images of them.

The steps are the tissue label map of a spine and the body around it (`make_spine`), a random pose (`deform`), MR-like
intensities (`render`), a field of view (`draw_field`) and its acquisition (`draw_protocol`, `acquire`); `write_dataset`
runs all of them. The package reads no patient data and does not depend on models, training or labelling.

>>> import numpy as np
>>> from totalspineseg_bids.synthesis import render
>>> labels = np.zeros((8, 8, 8), np.uint8)
>>> labels[2:6, 2:6, 2:6] = 2
>>> render(labels, np.random.default_rng(0), contrast="T2w").shape
(8, 8, 8)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from totalspineseg_bids.synthesis.acquisition import Protocol, acquire, draw_protocol
    from totalspineseg_bids.synthesis.appearance import render
    from totalspineseg_bids.synthesis.curve import SpineParameters
    from totalspineseg_bids.synthesis.dataset import write_dataset
    from totalspineseg_bids.synthesis.fields_of_view import PlacedField, draw_field
    from totalspineseg_bids.synthesis.parametric import make_spine
    from totalspineseg_bids.synthesis.pose import deform

__all__ = [
    "PlacedField",
    "Protocol",
    "SpineParameters",
    "acquire",
    "deform",
    "draw_field",
    "draw_protocol",
    "make_spine",
    "render",
    "write_dataset",
]

# Loaded on first use: the command line imports names of this package, and its start should not wait for scipy.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "acquisition": ["Protocol", "acquire", "draw_protocol"],
        "appearance": ["render"],
        "curve": ["SpineParameters"],
        "dataset": ["write_dataset"],
        "fields_of_view": ["PlacedField", "draw_field"],
        "parametric": ["make_spine"],
        "pose": ["deform"],
    },
)
