"""Progress bars on standard error, which are only shown on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TypeVar

from tqdm import tqdm

_Item = TypeVar("_Item")

#: Progress bar with the arguments of ``tqdm``.
bar = partial(tqdm, disable=None, leave=False, dynamic_ncols=True)


def track(items: Iterable[_Item], title: str, *, total: int | None = None) -> Iterable[_Item]:
    """Return items in their order, with a progress bar.

    Parameters
    ----------
    items : iterable
        Anything.
    title : str
        What stands before the bar.
    total : int, optional
        Number of items, if the iterable does not know it.
    """
    shown: Iterable[_Item] = bar(items, desc=title, total=total)
    return shown
