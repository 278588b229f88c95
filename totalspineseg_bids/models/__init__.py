"""Public model releases, their installation, and the verification of installed files.

What lives here: the catalogue of public releases and the cache folder (``catalog``), finding the models of a name,
folder or zip by their roles (``registry``, ``roles``), installing with safe unzipping and resumable downloads
(``install``, ``archive``, ``download``), digests (``verify``), writing small export folders (``export``), and the
bundled models (``bundled/``). What may not: running a model, and anything about images. Only ``export`` loads torch.
"""
