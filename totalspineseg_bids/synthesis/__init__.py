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

import lazy_loader

# The names in __init__.pyi, loaded on first use: the command line, which imports some, should not wait for scipy.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
