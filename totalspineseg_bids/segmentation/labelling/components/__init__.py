"""From a semantic map to components ordered from cranial to caudal: discs, vertebral bodies and sacrum.

Also attaches what a localizer and the level prior say about each component.
"""
