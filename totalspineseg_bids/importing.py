"""Import large libraries without looking for garbage among their modules."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def modules_stay() -> Iterator[None]:
    """Import modules without looking for garbage, neither meanwhile nor later among them.

    Torch alone has 150 000 objects, and Python looks at all of them several times while there are more and more. What
    else is unreachable at the end stays too.

    Examples
    --------
    >>> with modules_stay():
    ...     gc.isenabled()
    False
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.freeze()
            gc.enable()
