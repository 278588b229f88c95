"""Run any nnU-Net v2 3D full-resolution model in process: one array in, one label map out.

What lives here: reading model folders and export zips (``folders``, ``model``), nnU-Net's preprocessing
(``preprocess``), where patches lie (``windows``), how each is shown to the network (``looks``) and how what it says of
them is averaged (``sliding_window``), the engines that run the network (``engines``), turning logits into labels
(``decode``) and the class that ties them together (``predictor``). What may not: anything that knows about spines,
BIDS, files of images or where models come from; roles are plain label names here.

Submodules are not imported by this package, because most of them load torch; ``folders`` does not.
"""
