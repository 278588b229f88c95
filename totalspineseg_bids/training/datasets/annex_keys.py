"""Keys and remotes of git-annex, read without git-annex.

A repository that was cloned by git alone tells everything that a plain download needs: the link of each file names its
key, which holds size and digest of the content (``SHA256E-s764086--1830….nii.gz``), and the branch ``git-annex`` tells
under which public address a special remote keeps it.

Sources
-------
git-annex, "internals": key format, ``.git/annex/objects``, ``remote.log``, ``remote metadata log files``, ``hashing``
(https://git-annex.branchable.com/internals/), and the branches ``git-annex`` of OpenNeuroDatasets/ds005616 (content by
path, ``exporttree=yes``, versions in ``.log.rmet``) and spine-generic/data-multi-subject (content by key).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_KEY = re.compile(
    r"^(?P<backend>SHA256E?|SHA512E?|SHA1E?|MD5E?)(-s(?P<size>\d+))?(-[a-zA-Z]\d+)*--(?P<hash>[0-9a-f]+)(\..*)?$"
)
_POINTER = re.compile(r"^(?:/|.*/)annex/objects/(?:[^/\s]+/)*(?P<key>[^/\s]+)\s*$")
#: A pointer file (content of an unlocked file that was not fetched) is no longer than this, bytes.
_MAX_POINTER = 32_768


@dataclass(frozen=True, slots=True)
class AnnexKey:
    """What a file of git-annex must hold.

    Attributes
    ----------
    text
        The whole key.
    algorithm
        Name for ``hashlib``.
    digest
        Hexadecimal.
    size
        Bytes, where the key tells.
    """

    text: str
    algorithm: str
    digest: str
    size: int | None

    @property
    def branch_folder(self) -> str:
        """Folder of the key's logs in the branch ``git-annex``."""
        digest = hashlib.md5(self.text.encode(), usedforsecurity=False).hexdigest()
        return f"{digest[:3]}/{digest[3:6]}"

    def fits(self, path: Path) -> bool:
        """Tell whether a file has the size and the digest of the key."""
        if self.size is not None and path.stat().st_size != self.size:
            return False
        digest = hashlib.new(self.algorithm, usedforsecurity=False)
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == self.digest


@dataclass(frozen=True, slots=True)
class PublicRemote:
    """A special remote whose content can be had by http.

    Attributes
    ----------
    uuid, name
        Of the remote.
    url
        Public address.
    prefix
        Before each file's path or key.
    by_path
        Content lies under the file's path, not under its key.
    """

    uuid: str
    name: str
    url: str
    prefix: str
    by_path: bool

    def address(self, key: AnnexKey, path: str, version: str | None = None) -> str:
        """Return where the content of a file lies.

        Parameters
        ----------
        key, path
            Of the file, the path from the root of the repository.
        version
            Of the content, in a remote that keeps versions.
        """
        name = path if self.by_path else key.text
        address = f"{self.url.rstrip('/')}/{quote(self.prefix + name)}"
        return f"{address}?versionId={quote(version)}" if version else address


def parse_key(text: str) -> AnnexKey | None:
    """Read a key; ``None`` where it holds no digest of the content (``URL--…``, ``WORM-…``)."""
    match = _KEY.match(text)
    if match is None:
        return None
    size = match["size"]
    return AnnexKey(text, match["backend"].rstrip("E").lower(), match["hash"], int(size) if size else None)


def key_of(path: Path) -> str | None:
    """Return the key of a file in a working tree; ``None`` for a file that git itself holds.

    A link into the annex and a pointer file (unlocked, not fetched) tell their key; an unlocked file whose content is
    there does not, and needs no fetching.
    """
    if path.is_symlink():
        match = _POINTER.match(path.readlink().as_posix())
        return match["key"] if match else None
    if not path.is_file() or path.stat().st_size > _MAX_POINTER:
        return None
    first = path.read_bytes().split(b"\n", 1)[0]
    match = _POINTER.match(first.decode("utf-8", "replace"))
    return match["key"] if match and first.startswith(b"/annex/objects/") else None


def public_remotes(log: str) -> list[PublicRemote]:
    """Read ``remote.log``: the remotes that have a public address, the newest entry of each.

    Parameters
    ----------
    log
        Content of the file.
    """
    found: dict[str, tuple[float, PublicRemote]] = {}
    for line in log.splitlines():
        uuid, _, rest = line.partition(" ")
        settings = dict(pair.split("=", 1) for pair in rest.split(" ") if "=" in pair)
        if "publicurl" not in settings:
            continue
        stamp = float(settings.get("timestamp", "0").rstrip("s") or 0)
        if uuid in found and found[uuid][0] > stamp:
            continue
        remote = PublicRemote(
            uuid,
            settings.get("name", uuid),
            settings["publicurl"],
            settings.get("fileprefix", ""),
            settings.get("exporttree") == "yes",
        )
        found[uuid] = (stamp, remote)
    return [remote for _, remote in found.values()]


def version_in(log: str, remote: PublicRemote, path: str) -> str | None:
    """Read a key's ``.log.rmet``: which version of a path in a remote holds the content.

    Parameters
    ----------
    log
        Content of the file.
    remote, path
        The remote, and the file's path from the root of the repository.

    Returns
    -------
    str or None
        The newest version that is recorded; ``None`` where there is none.
    """
    entries: list[tuple[float, str]] = []
    for line in log.splitlines():
        stamp, _, rest = line.partition(" ")
        uuid, _, values = rest.partition(":V ")
        if uuid != remote.uuid:
            continue
        entries += _versions(stamp, values.split(" "), remote.prefix + path)
    return max(entries)[1] if entries else None


def _versions(stamp: str, values: Iterable[str], wanted: str) -> list[tuple[float, str]]:
    found = []
    for value in values:
        version, hash_mark, path = value.removeprefix("+").partition("#")
        if value.startswith("+") and hash_mark and path == wanted:
            found.append((float(stamp.rstrip("s") or 0), version))
    return found
