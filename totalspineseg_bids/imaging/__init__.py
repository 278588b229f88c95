"""NIfTI input and output, orientation, resampling, cropping and their inverses, and the centreline of the canal.

The package handles arrays and affines. It does not depend on networks or BIDS.

>>> import numpy as np
>>> from totalspineseg_bids.imaging import Volume, to_working_grid
>>> image = Volume(np.zeros((4, 6, 2), np.float32), np.diag([-1.0, 1.0, 3.0, 1.0]))
>>> working = to_working_grid(image)
>>> working.data.shape, working.geometry.orientation
((4, 6, 6), 'RAS')
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from totalspineseg_bids.imaging.atomic import atomic_writer, write_bytes, write_text
    from totalspineseg_bids.imaging.centerline import Centerline, Projection
    from totalspineseg_bids.imaging.grid import (
        restore_labels,
        restore_probability,
        to_canonical,
        to_working_grid,
        working_geometry,
    )
    from totalspineseg_bids.imaging.io import load_image, read_image, read_labels, write_labels, write_probability
    from totalspineseg_bids.imaging.volume import Geometry, Volume

__all__ = [
    "Centerline",
    "Geometry",
    "Projection",
    "Volume",
    "atomic_writer",
    "load_image",
    "read_image",
    "read_labels",
    "restore_labels",
    "restore_probability",
    "to_canonical",
    "to_working_grid",
    "working_geometry",
    "write_bytes",
    "write_labels",
    "write_probability",
    "write_text",
]

# Loaded on first use: `atomic` serves the command line, whose start should not wait for scipy and nibabel.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "atomic": ["atomic_writer", "write_bytes", "write_text"],
        "centerline": ["Centerline", "Projection"],
        "grid": ["restore_labels", "restore_probability", "to_canonical", "to_working_grid", "working_geometry"],
        "io": ["load_image", "read_image", "read_labels", "write_labels", "write_probability"],
        "volume": ["Geometry", "Volume"],
    },
)
