"""Put models into the cache folder: from a public release, an address, a zip or a folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from totalspineseg_bids.errors import ModelError, OutputError
from totalspineseg_bids.inference import folders
from totalspineseg_bids.models import archive, catalog, download, verify

logger = logging.getLogger(__name__)

_TAG = re.compile(r"r\d{8}")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


def install(
    spec_or_path: str | Path | None = None,
    *,
    url: str | Sequence[str] | None = None,
    name: str | None = None,
    force: bool = False,
    sha256: Collection[str] = (),
) -> Path:
    """Install models and record their digests.

    Parameters
    ----------
    spec_or_path
        Name of a public release, or a zip or folder with one or several models. Zips of the same release may be
        installed one after the other.
    url
        Address or addresses of zips, instead of or beside the name of a release.
    name
        Name to install under; by default the release named in the file's name, else the file's name.
    force
        Reinstall models that are installed and intact.
    sha256
        Expected digests of the zips, hexadecimal, in any order; without them any content is accepted and recorded.

    Returns
    -------
    Path
        Folder of the installed models; its name is the name for ``--model``.

    Raises
    ------
    ModelError
        If the source does not exist, cannot be reached, is refused, has another digest or holds no model.
    OutputError
        If the cache folder cannot be written.
    """
    expected = _digests(sha256)
    spec = str(spec_or_path) if spec_or_path is not None else None
    local = Path(spec).expanduser() if spec is not None else None
    if url is None and local is not None and local.exists():
        return _install_local(local, _checked_name(name or _derived_name(local.name)), expected)
    urls = _addresses(spec, url)
    release = spec if spec in catalog.RELEASES else None
    target_name = _checked_name(name or release or _derived_name(_file_name(urls[0])))
    folder = catalog.cache_folder() / target_name
    if not force and _is_complete(folder, urls):
        logger.info("model %s is installed already: %s", target_name, folder)
        return folder
    downloads = catalog.cache_folder() / ".downloads"
    for address in urls:
        file = downloads / f"{target_name}-{_file_name(address)}"
        try:
            download.download(address, file)
        except OSError as error:
            msg = f"cannot write to {downloads}: {error}; set {catalog.CACHE_VARIABLE} to a folder that can be written"
            raise OutputError(msg) from error
        except download.DownloadError as error:
            msg = (
                f"{error}; on a computer with network fetch {' and '.join(urls)}, copy here and run "
                f"totalspineseg-tools models install ZIP --name {target_name} for each"
            )
            raise ModelError(msg) from error
        try:
            digest = _checked_digest(file, address, expected)
            archive.copy_models(file, folder)
            _record(folder, {"origin": address, "sha256": digest})
        finally:
            # A complete file that is damaged or refused must be downloaded again next time.
            file.unlink(missing_ok=True)
    return folder


def _install_local(source: Path, name: str, expected: frozenset[str]) -> Path:
    folder = catalog.cache_folder() / name
    archives = archive.zips_with_models(source) or [source]
    if expected and not all(item.is_file() for item in archives):
        msg = f"{source} is a folder, a digest is that of a zip; install it without, or give the zip"
        raise ModelError(msg)
    digests = {item: _checked_digest(item, str(item), expected) for item in archives if item.is_file()}
    for item in archives:
        archive.copy_models(item, folder)
        recorded = {"sha256": digests[item]} if item in digests else {}
        _record(folder, {"origin": str(item.resolve()), **recorded})
    return folder


def _digests(given: Collection[str]) -> frozenset[str]:
    expected = frozenset(digest.lower().removeprefix("sha256:") for digest in given)
    for digest in expected:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            msg = f"'{digest}' is not a SHA-256 digest (64 hexadecimal digits)"
            raise ModelError(msg)
    return expected


def _checked_digest(file: Path, origin: str, expected: frozenset[str]) -> str:
    """Return the digest of a zip after comparing it with the expected ones."""
    digest: str = folders.sha256(file)
    if expected and digest not in expected:
        msg = (
            f"{origin} is refused: its SHA-256 is {digest}, which is not what was asked for; check where it comes from"
        )
        raise ModelError(msg)
    return digest


def _addresses(spec: str | None, url: str | Sequence[str] | None) -> list[str]:
    if url is not None:
        return [url] if isinstance(url, str) else list(url)
    if spec is not None and spec in catalog.RELEASES:
        return list(catalog.RELEASES[spec])
    if spec is not None and urlsplit(spec).scheme in {"http", "https"}:
        return [spec]
    known = ", ".join(catalog.RELEASES)
    msg = f"{spec} is neither a file, a folder, an address nor a public release; releases are {known}"
    raise ModelError(msg)


def _record(folder: Path, source: dict[str, str]) -> None:
    manifest = verify.read_manifest(folder) or {}
    kept = [other for other in manifest.get("sources", []) if other.get("origin") != source["origin"]]
    verify.write_manifest(folder, [*kept, source])


def _is_complete(folder: Path, urls: Sequence[str]) -> bool:
    manifest = verify.read_manifest(folder) or {}
    with suppress(ModelError):
        return {*urls} <= {source.get("origin") for source in manifest.get("sources", [])} and bool(
            verify.check(folder.name)
        )
    return False


def _file_name(address: str) -> str:
    return Path(unquote(urlsplit(address).path)).name or "model.zip"


def _derived_name(file_name: str) -> str:
    if tag := _TAG.search(file_name):
        return tag[0]
    return re.sub(r"\W+", "-", Path(file_name).stem if file_name.endswith(".zip") else file_name).strip("-") or "local"


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name == catalog.BUNDLED:
        msg = f"{name!r} cannot be the name of an installed model; use letters, digits, '.', '_' and '-'"
        raise ModelError(msg)
    return name
