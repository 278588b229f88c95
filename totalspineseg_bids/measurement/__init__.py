"""Measures of a labelled spine.

Volumes, heights, diameters, areas and angles, each with its unit, definition and source, computed from a label
map and the centreline of the canal; signals and image quality, which need the image too. Measures that cannot be
taken are missing, with a reason. The package reads and writes no files and does not depend on segmentation models or
figures.
"""

import lazy_loader

# The names in __init__.pyi, loaded on first use: the columns serve reports and tables, which should not wait for scipy.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
