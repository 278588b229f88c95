from .atomic import atomic_writer, write_bytes, write_text
from .centerline import Centerline, Projection
from .grid import (
    restore_labels,
    restore_probability,
    to_canonical,
    to_working_grid,
    working_geometry,
)
from .io import load_image, read_image, read_labels, write_labels, write_probability
from .volume import Geometry, Volume

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
