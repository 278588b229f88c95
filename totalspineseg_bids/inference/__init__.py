"""Run any nnU-Net v2 3D full-resolution model in process: one array in, one label map out.

Contents: model folders and export zips (``folders``, ``model``), nnU-Net's preprocessing (``preprocess``), positions of
patches (``patch_grid``), test-time augmentation (``tta``), averaging over patches (``sliding_window``), engines
(``engines``), decoding of logits into labels (``decode``), and the class that combines them (``predictor``). Nothing
here depends on spines, BIDS, image files or the source of models; roles are plain label names.

The package imports no submodule, because most of them load torch; ``folders`` does not.
"""

import os

# Torch then asks Linux for huge pages, without which a tenth of the time goes into mapping memory. Read at torch's
# first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
