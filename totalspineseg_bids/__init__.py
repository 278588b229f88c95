"""Segment and label the whole spine in MRI, as a BIDS App and as a library."""

from __future__ import annotations

__version__ = "0.1.0"
