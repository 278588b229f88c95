"""Synthetic spines: tissue label maps made from parameters or posed atlases, and MR-like images of them.

Here lives everything that *makes* data: the geometry of a spine (``curve``), its bones (``vertebra``), the
body around it (``body``), whole label maps (``parametric``), pose and contrast, fields of view, the
acquisition and the BIDS dataset they end up in (``dataset``). Nothing here reads patient data or knows of
models, training or labelling; it depends on ``anatomy``, ``errors`` and ``imaging`` only.
"""
