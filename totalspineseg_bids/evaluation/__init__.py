"""Comparison of predicted with true label maps: overlap, level accuracy and surface distance, per image and per model.

``pairing`` finds the predictions that belong to the truths, ``metrics`` and ``surface_distance`` compute the numbers of
one pair, ``evaluate`` runs over the pairs of one model and ``compare`` over several models on the same images.
"""
