"""Thumbnails embedded in a page, scaled so that the page of a large study stays small enough to send."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

#: Size of all thumbnails of a page together, bytes; base64 adds a third. Assumed.
_BUDGET_BYTES: Final = 12_000_000
#: Longest side (pixels), WebP quality and upper bound of the file size (bytes), from best to smallest.
_SIZES: Final = ((220, 80, 16_000), (180, 70, 9_000), (140, 60, 5_000), (110, 50, 3_000))


def inline_thumbnails(folder: Path, names: Sequence[str]) -> list[str]:
    """Encode thumbnails as ``data:`` URLs.

    Parameters
    ----------
    folder : Path
        Folder of the page.
    names : sequence of str
        Paths relative to it; empty where an image has no thumbnail.

    Returns
    -------
    list of str
        WebP pictures, smaller the more there are; empty where the file is missing or damaged.

    Examples
    --------
    >>> inline_thumbnails(Path("no-such-folder"), ["", "missing.png"])
    ['', '']
    """
    count = max(1, sum(bool(name) for name in names))
    side, quality, _ = next((size for size in _SIZES if size[2] * count <= _BUDGET_BYTES), _SIZES[-1])
    return [_inline(folder / name, side, quality) if name else "" for name in names]


def _inline(path: Path, side: int, quality: int) -> str:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # Pillow raises SyntaxError for a damaged PNG
        return ""
    picture.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
