"""Downloads checked by digest: the published one, or that of the first download."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from totalspineseg_bids.errors import ImageError, MissingInputError
from totalspineseg_bids.files import read_json, sha256_of
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.models.download import DownloadError, download

logger = logging.getLogger(__name__)

RECORD = "digests.json"


def fetch(
    url: str,
    folder: Path,
    published: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    *,
    recheck: bool = False,
) -> Path:
    """Download a file into a folder unless it is there, and check its digest.

    An interrupted download is resumed. ``digests.json`` beside the file records address, digest and
    whether that was published or taken from the first download.

    Parameters
    ----------
    url : str
        http or https.
    folder : Path
        Gets the file under the last part of the address.
    published : str, optional
        SHA-256 that the file must have; None if none is published.
    progress : callable, optional
        Called with the bytes so far and in total.
    recheck : bool, default False
        Read the file and compare its digest, also where that was done before and the file has not changed.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingInputError
        If it cannot be reached; the message says where to put it by hand.
    ImageError
        If its digest is not the published or the recorded one.
    """
    target = folder / url.split("?", maxsplit=1)[0].rsplit("/", 1)[-1]
    try:
        download(url, target, progress)
    except DownloadError as error:
        msg = (
            f"{error}; without a network here, download it elsewhere, put it at {target} and run the same command again"
        )
        raise MissingInputError(msg) from error
    known = read_json(folder / RECORD) or {}
    before = known.get(target.name, {})
    wanted = published or before.get("sha256")
    # Hashing gigabytes takes minutes: what was checked and has not changed since is believed.
    stamp = f"{target.stat().st_size} {target.stat().st_mtime_ns}"
    if not recheck and before.get("stamp") == stamp and wanted == before.get("sha256"):
        return target
    found = sha256_of(target)
    if wanted is not None and found != wanted:
        origin = "published" if published else "recorded"
        msg = f"{target}: its SHA-256 {found} is not the {origin} {wanted}; delete the file and run the command again"
        raise ImageError(msg)
    origin = "published" if published else before.get("origin", "first download")
    if not published and not before:
        logger.warning("%s: no published digest; recorded %s", target, found)
    known[target.name] = {"url": url, "sha256": found, "origin": origin, "stamp": stamp}
    write_text(folder / RECORD, json.dumps(known, indent=1, sort_keys=True) + "\n")
    return target
