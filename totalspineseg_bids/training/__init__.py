"""From label maps to trained networks: datasets in nnU-Net's raw form, its plan, preprocess and train, and figures.

Here live the three datasets of the method (``layouts``, ``semantic``), the way from BIDS to nnU-Net's raw folders
(``prepare``), the calls into nnU-Net (``plan``, ``train``, ``export``), the training on synthetic images that made the
bundled models (``synthetic_trainer``), and the comparison of predictions with the truth (``evaluate``). Nothing here
knows how an image is segmented or labelled: ``segmentation``, ``bids`` and ``app`` are not imported.
"""
