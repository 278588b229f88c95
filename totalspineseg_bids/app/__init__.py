"""Participant and group level of the BIDS App: order of the steps, handling of failures, exit codes.

The package combines query, segmentation, measurement, publication and reports. It contains no image processing and
does not parse arguments.
"""
