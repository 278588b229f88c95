"""NIfTI input and output, orientation, resampling, cropping and their inverses, and the centreline of the canal.

The package handles arrays and affines. It does not depend on networks or BIDS.

>>> import numpy as np
>>> from totalspineseg_bids.imaging import Volume, to_working_grid
>>> image = Volume(np.zeros((4, 6, 2), np.float32), np.diag([-1.0, 1.0, 3.0, 1.0]))
>>> working = to_working_grid(image)
>>> working.data.shape, working.geometry.orientation
((4, 6, 6), 'RAS')
"""

import lazy_loader

# The names in __init__.pyi, loaded on first use: `atomic` serves the command line, which should not wait for scipy.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
