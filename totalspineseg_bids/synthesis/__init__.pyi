from .acquisition import Protocol, acquire, draw_protocol
from .appearance import render
from .curve import SpineParameters
from .dataset import write_dataset
from .fields_of_view import PlacedField, draw_field
from .parametric import make_spine
from .pose import deform

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
