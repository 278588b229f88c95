"""From BIDS datasets with labels to trained networks: nnU-Net's raw folders, plan, training and export.

``class_maps`` and ``semantic_targets`` define the classes of Dataset101, 102 and 103, ``prepare`` writes nnU-Net's raw
folders, and ``plan``, ``train`` and ``export`` call nnU-Net. ``datasets`` downloads public datasets; ``synthetic``
trains the bundled models, and is the one part that imports ``segmentation``, for the refinement network.
"""
