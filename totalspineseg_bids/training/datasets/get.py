"""Fetching a public dataset from its entry in the catalog to a BIDS folder that `prepare` takes."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from totalspineseg_bids import __version__
from totalspineseg_bids.errors import ImageError, MissingInputError
from totalspineseg_bids.files import read_json, sha256_of
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.models.download import DownloadError, download
from totalspineseg_bids.training.datasets.annex import clone, get_content, missing_files, selected_files
from totalspineseg_bids.training.datasets.catalog import DatasetSource
from totalspineseg_bids.training.datasets.spider import ARCHIVES, convert_spider

#: Beside the datasets, hidden so that a pattern such as ``bids/*`` gives datasets only: archives, their digests, and
#: what was fetched of each dataset.
DOWNLOADS = ".downloads"


@dataclass(frozen=True, slots=True)
class GetOptions:
    """Options for fetching a dataset."""

    subjects: Sequence[str] = ()
    """Labels with or without ``sub-``; all by default."""
    revision: str | None = None
    """Of a git repository."""
    jobs: int = 4
    """Downloads at once."""
    verify: bool = False
    """Compare the content of every file with its digest once more."""
    url: str | None = None
    """Address to use instead of the catalog's: a mirror, or a clone on a disk."""


@dataclass(frozen=True, slots=True)
class GetResult:
    """Content of a dataset's folder after a call."""

    folder: Path
    """Root of the dataset."""
    selected: int
    """Files (of SPIDER: series) that belong to it."""
    fetched: int
    """Those that came with this call."""
    failed: list[tuple[str, str]]
    """Name and reason of those that are not there."""
    version: str
    """Commit of the repository, or digests of the archives."""


def get_dataset(
    source: DatasetSource,
    root: Path,
    options: GetOptions | None = None,
) -> GetResult:
    """Fetch a dataset, resuming an earlier call.

    Parameters
    ----------
    source : DatasetSource
        Entry of the catalog.
    root : Path
        Folder of all datasets; this one goes into ``<root>/<name>``.
    options : GetOptions, optional
        How; by default everything.

    Returns
    -------
    GetResult
        Files that could not be fetched are in ``failed``; the next call tries them again.

    Raises
    ------
    MissingInputError
        If the source cannot be reached; the message says what to do without a network.
    ImageError
        If an archive does not have its digest.
    """
    options = options or GetOptions()
    root = Path(root).resolve()
    result = (_get_annex if source.kind == "annex" else _get_spider)(source, root, options)
    _record(source, root, options, result)
    return result


def _get_annex(source: DatasetSource, root: Path, options: GetOptions) -> GetResult:
    folder = root / source.name
    commit = clone(options.url or source.url, folder, options.revision)
    files = selected_files(folder, options.subjects)
    fetched, failed = get_content(folder, files, jobs=options.jobs, verify=options.verify)
    return GetResult(folder, len(files), fetched, failed, commit)


def _get_spider(source: DatasetSource, root: Path, options: GetOptions) -> GetResult:
    downloads = root / DOWNLOADS / source.name
    base = (options.url or source.url).rstrip("/")
    for name in ARCHIVES:
        fetch(f"{base}/{name}?download=1", downloads, source.digests.get(name), recheck=options.verify)
    folder = root / source.name
    selected, written, failed = convert_spider(source, downloads, folder, subjects=options.subjects)
    known = json.loads((downloads / "digests.json").read_text(encoding="utf-8"))
    version = ", ".join(f"{name} sha256:{known[name]['sha256']}" for name in ARCHIVES)
    return GetResult(folder, selected, written, failed, version)


def _record(source: DatasetSource, root: Path, options: GetOptions, result: GetResult) -> None:
    """Record the source of a dataset, for the card of a model trained with it."""
    path = root / DOWNLOADS / f"{source.name}.json"
    content = {
        "name": source.name,
        "url": options.url or source.url,
        "page": source.page,
        "licence": source.licence,
        "citation": source.citation,
        "version": result.version,
        "subjects": list(options.subjects) or "all",
        "wanted": result.selected,
        "failed": [{"name": name, "reason": reason} for name, reason in result.failed],
        "one_person": source.one_person,
        "tool": f"totalspineseg_bids {__version__}",
    }
    write_text(path, json.dumps(content, indent=1) + "\n")


def state_of(source: DatasetSource, root: Path) -> str:
    """Say how much of a dataset a folder has, without network access: ``absent``, ``complete`` or ``3 of 5``."""
    folder, present, selected = Path(root) / source.name, 0, 0
    if folder.is_dir() and source.kind == "annex":
        with suppress(Exception):  # the folder is not the dataset
            files = selected_files(folder)
            present, selected = len(files) - len(missing_files(folder, files)), len(files)
    elif folder.is_dir():
        record = read_json(Path(root) / DOWNLOADS / f"{source.name}.json") or {}
        present, selected = len(list(folder.glob("sub-*/anat/*.nii.gz"))), int(record.get("wanted", 0))
    if selected == 0:
        return "absent"
    return "complete" if present == selected else f"{present} of {selected}"


def fetch_labels(labels: str, root: Path) -> Path:
    """Return an archive of labels: a file that is there, or downloaded to the folder of downloads.

    Raises
    ------
    ImageError
        If a file is named that is not there.
    MissingInputError
        If the address cannot be reached.
    """
    if labels.startswith(("http://", "https://")):
        return fetch(labels, Path(root).resolve() / DOWNLOADS / "labels")
    path = Path(labels)
    if not path.is_file():
        msg = f"{path}: no such archive of labels"
        raise ImageError(msg)
    return path


logger = logging.getLogger(__name__)

RECORD = "digests.json"


def fetch(url: str, folder: Path, published: str | None = None, *, recheck: bool = False) -> Path:
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
        download(url, target)
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
