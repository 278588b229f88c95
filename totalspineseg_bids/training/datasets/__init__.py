"""Public datasets that the method was trained on, fetched into BIDS folders.

``catalog`` lists the datasets. ``annex`` fetches git-annex repositories and ``spider`` converts SPIDER's archives from
.mha. ``labels`` merges an archive of labels, ``checksums`` records the digests of downloads, and ``get``
combines these.
"""
