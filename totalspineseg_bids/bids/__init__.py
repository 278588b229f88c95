"""The BIDS side: which images there are, what their derivatives are called and say, how they are published.

Knows file names, sidecars and datasets; knows nothing of voxels beyond passing arrays to ``imaging``, and nothing of
networks or of what a run does in which order (that is ``app``).
"""
