"""Image in, labelled spine out, in memory.

Ties the networks (``inference``) to the anatomy: the stages of the two-step method, the labelling and the way
back to the image's own grid. Knows nothing of files' names, BIDS or reports.
"""
