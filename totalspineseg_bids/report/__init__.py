"""Figures (PNG) and HTML pages that show the results of one participant or of a dataset.

The caller passes images, tables and paths; nothing here queries a dataset, segments or measures. Pages are
self-contained: a browser opens them from disk and requests nothing over the network.
"""
