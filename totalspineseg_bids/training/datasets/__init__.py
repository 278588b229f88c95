"""Public datasets that the method was trained on, fetched into BIDS folders.

What exists and where is told in ``catalog``; two ways of fetching follow from it: repositories of git-annex
(``annex``, with git-annex itself or, where that is not installed, by plain download with the same digests, ``keys``)
and SPIDER's archives (``spider``, converted from .mha). ``labels`` merges an archive of labels into them, ``records``
keeps the digests of what was downloaded, ``get`` puts it together. Nothing here knows what is done with the data.
"""
