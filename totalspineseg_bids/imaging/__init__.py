"""NIfTI in and out, orientation, resampling, cropping and their inverses.

Knows arrays and affines; knows nothing of spines, networks or BIDS.
"""
