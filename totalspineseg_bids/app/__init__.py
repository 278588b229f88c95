"""The levels of the BIDS App: what is done, in which order, what a failure means, and the exit codes.

Ties query, segmentation, measurement, publishing and reports together. Does no image processing of its own and
parses no arguments.
"""
