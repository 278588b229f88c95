"""Download one file, resuming where a former try stopped."""

from __future__ import annotations

import http.client
import json
import logging
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from totalspineseg_bids import __version__
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.progress import bar

logger = logging.getLogger(__name__)


class DownloadError(ModelError):
    """A file cannot be fetched."""


_TIMEOUT = 30.0
_TRIES = 4
_PAUSE = 0.5
_BLOCK = 2**18
_PARTIAL = 206
_RANGE_REFUSED = 416


def download(url: str, target: Path) -> Path:
    """Fetch a file; ``<target>.part`` grows until it is whole and is then renamed.

    A later call goes on where the last stopped if the server still has the same file (RFC 9110, range requests with
    ``If-Range``), and starts again otherwise.

    Parameters
    ----------
    url
        http or https.
    target
        File to write; if it is there already nothing is done.

    Raises
    ------
    ModelError
        If the address is of another kind; a ``DownloadError`` if it cannot be reached.
    """
    if target.is_file():
        return target
    if urlsplit(url).scheme not in {"http", "https"}:
        msg = f"cannot download {url}: only http and https addresses are"
        raise ModelError(msg)
    target.parent.mkdir(parents=True, exist_ok=True)
    part, note = target.with_name(target.name + ".part"), target.with_name(target.name + ".part.json")
    reason = ""
    for attempt in range(_TRIES):
        try:
            _fetch(url, part, note)
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code == _RANGE_REFUSED:
                part.unlink(missing_ok=True)
            elif error.code < 500:  # a refusal that another try does not change
                break
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            if attempt == 0 and not part.exists():
                break  # not reached at all: say so at once
        else:
            part.replace(target)
            note.unlink(missing_ok=True)
            return target
        time.sleep(_PAUSE * attempt)
        logger.info("download of %s stopped (%s), going on", url, reason)
    msg = f"cannot download {url} ({reason})"
    raise DownloadError(msg)


def _fetch(url: str, part: Path, note: Path) -> None:
    request = urllib.request.Request(url, headers={"User-Agent": f"totalspineseg-bids/{__version__}"})  # noqa: S310 - scheme checked
    have = part.stat().st_size if part.exists() else 0
    known = json.loads(note.read_text(encoding="utf-8")) if have and note.is_file() else {}
    if have and known.get("url") == url and known.get("validator"):
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known["validator"])
    else:
        have = 0
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310 - scheme checked
        if response.status != _PARTIAL:
            have = 0
        length = response.headers.get("Content-Length")
        whole = have + int(length) if length is not None else None
        # A weak ETag does not promise equal bytes; without a promise the next try starts again.
        tag = response.headers.get("ETag", "")
        validator = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")
        note.write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")
        shown = bar(desc=part.stem, total=whole, initial=have, unit="B", unit_scale=True)
        with part.open("ab" if have else "wb") as sink, shown:
            while block := response.read(_BLOCK):
                sink.write(block)
                have += len(block)
                shown.update(len(block))
    if whole is not None and have < whole:
        msg = f"{have} of {whole} bytes came"
        raise ConnectionError(msg)
