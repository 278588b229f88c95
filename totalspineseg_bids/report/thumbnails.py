"""Thumbnails inside a page, small enough that the page of a large study can still be sent."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

#: What all thumbnails of a page may take together, bytes (a third more once they are text).
_BUDGET: Final = 12_000_000
#: Longest side and quality, from good to small, with the bytes that such a picture takes at most in practice.
_STEPS: Final = ((220, 80, 16_000), (180, 70, 9_000), (140, 60, 5_000), (110, 50, 3_000))


def inline_thumbnails(folder: Path, names: Sequence[str]) -> list[str]:
    """Read thumbnails and return them as addresses that hold the picture.

    Parameters
    ----------
    folder
        Folder of the page.
    names
        Files relative to it; empty for none.

    Returns
    -------
    list of str
        ``data:`` addresses of WebP pictures, the smaller the more there are; empty where there is no such picture.
    """
    count = max(1, sum(bool(name) for name in names))
    side, quality, _ = next((step for step in _STEPS if step[2] * count <= _BUDGET), _STEPS[-1])
    return [_inline(folder / name, side, quality) if name else "" for name in names]


def _inline(path: Path, side: int, quality: int) -> str:
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # Pillow calls a damaged PNG a syntax error
        return ""
    picture.thumbnail((side, side), Image.Resampling.BOX)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
