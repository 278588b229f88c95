"""Label layouts of the public models, one JSON file each: names of the roles and the integers that carry them.

Data only; :mod:`totalspineseg_bids.segmentation.class_map` reads it.
"""
