"""BIDS input and output: query of images, names, sidecars and tables of derivatives, and their publication.

The package handles file names, sidecars and datasets. It passes arrays to ``imaging`` unchanged, and does not depend on
networks or on the order of the steps of a run, which ``app`` defines.
"""
