"""Find the components of a semantic map from cranial to caudal: discs, vertebral bodies and sacrum.

Also adds the evidence of a localizer and of the level prior to each component.
"""
