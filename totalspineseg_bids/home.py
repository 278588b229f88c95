"""A home folder for libraries that need one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path


@contextmanager
def home_folder() -> Iterator[None]:
    """Set ``HOME`` to a temporary folder while a library needs it, where the user has no home folder.

    In a container, a user id without an entry in ``/etc/passwd`` has none unless ``HOME`` is set. If there is no
    folder for temporary files either, ``HOME`` is the root of the file system.

    Examples
    --------
    >>> with home_folder():
    ...     Path.home().is_absolute()
    True
    """
    try:
        Path.home()
    except RuntimeError:
        with _temporary_folder() as folder:
            os.environ["HOME"] = folder
            try:
                yield
            finally:
                del os.environ["HOME"]
        return
    yield


def _temporary_folder() -> AbstractContextManager[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="totalspineseg-home-")
    except OSError:
        return nullcontext(str(Path(os.sep).resolve()))
