"""Datasets in repositories of git-annex: cloned with git, their content fetched with git-annex or by plain download.

Only the files that a training needs are fetched: anatomical images and labels of the spine. git-annex checks each
file's digest itself; the plain way checks it here against the same key. Both leave content where git-annex looks for
it, so that either can go on where the other stopped.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from totalspineseg_bids.errors import DatasetError, MissingInputError, OutputError, UsageError
from totalspineseg_bids.models.download import DownloadError, download
from totalspineseg_bids.training.cases import is_image, is_spine_label
from totalspineseg_bids.training.datasets.annex_keys import (
    AnnexKey,
    PublicRemote,
    key_of,
    parse_key,
    public_remotes,
    version_in,
)

logger = logging.getLogger(__name__)

_CHUNK = 100  # paths a call of git-annex, well below the limit of a command line
#: git asks for no password here, and git-annex commits to its own branch under this name.
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "totalspineseg-tools",
    "GIT_AUTHOR_EMAIL": "noreply@localhost",
    "GIT_COMMITTER_NAME": "totalspineseg-tools",
    "GIT_COMMITTER_EMAIL": "noreply@localhost",
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a call fetched.

    Attributes
    ----------
    wanted
        Files that belong to the choice.
    fetched
        Those that came now.
    failed
        Path and reason of those that did not come.
    """

    wanted: int
    fetched: int
    failed: tuple[tuple[str, str], ...]


def _git(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    if shutil.which("git") is None:
        msg = "git is not installed; install it, or clone the dataset elsewhere and copy the folder"
        raise MissingInputError(msg)
    return subprocess.run(
        ["git", *arguments],  # noqa: S607 - the git that the user has
        cwd=cwd,
        env={**os.environ, **_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )


def has_git_annex() -> bool:
    """Tell whether git-annex is installed."""
    return shutil.which("git") is not None and _git("annex", "version", "--raw").returncode == 0


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def clone(url: str, target: Path, revision: str | None = None) -> str:
    """Clone a repository unless it is there, and return the commit.

    Parameters
    ----------
    url
        Address or path that git understands.
    target
        Folder of the clone; it takes its name only when the clone is whole.
    revision
        Branch, tag or commit to have; by default that of the repository.

    Raises
    ------
    MissingInputError
        If the repository cannot be reached.
    OutputError
        If the folder holds something else.
    UsageError
        If there is no such revision.
    """
    if target.exists() and not (target / ".git").exists():
        msg = f"{target}: is there already and is no git repository; move it away or choose another folder"
        raise OutputError(msg)
    if not target.exists():
        part = target.with_name(f".{target.name}.cloning")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        done = _git("clone", "--quiet", url, str(part))
        if done.returncode != 0:
            shutil.rmtree(part, ignore_errors=True)
            msg = (
                f"cannot clone {url} ({_last_line(done.stderr)}); without a network here, run 'git clone {url}' and "
                f"'git annex get' elsewhere, copy the folder to {target} and run the same command again"
            )
            raise MissingInputError(msg)
        part.rename(target)
    if revision is not None and _git("checkout", "--quiet", revision, cwd=target).returncode != 0:
        msg = f"{target}: has no revision '{revision}'"
        raise UsageError(msg)
    head = _git("rev-parse", "HEAD", cwd=target)
    if head.returncode != 0:
        msg = f"{target}: not a whole git repository ({_last_line(head.stderr)}); remove it and run the command again"
        raise OutputError(msg)
    return head.stdout.strip()


def wanted_files(repository: Path, subjects: Sequence[str] = ()) -> list[str]:
    """Return the images and labels of the spine that a repository tracks, fetched or not.

    Parameters
    ----------
    repository
        A clone.
    subjects
        Labels with or without ``sub-``; all by default.

    Raises
    ------
    DatasetError
        If there is none.
    """
    listed = _git("ls-files", "-z", cwd=repository).stdout.split("\0")
    chosen = {f"sub-{subject.removeprefix('sub-')}" for subject in subjects}
    files = []
    for text in listed:
        path = Path(text)
        if chosen and not chosen.intersection(path.parts):
            continue
        own = path.parts[0].startswith("sub-") if path.parts else False
        label = len(path.parts) > 2 and path.parts[0] == "derivatives" and path.parts[1].startswith("labels")
        if path.parent.name == "anat" and ((own and is_image(path)) or (label and is_spine_label(path))):
            files.append(text)
    if not files:
        what = f"of {', '.join(sorted(chosen))}" if chosen else "in sub-*/anat"
        msg = f"{repository}: tracks no anatomical image {what}"
        raise DatasetError(msg)
    return sorted(files)


def missing_files(repository: Path, files: Sequence[str]) -> list[str]:
    """Return the files whose content is not there."""
    missing = []
    for name in files:
        path = repository / name
        key = key_of(path)
        if not path.exists() or (key is not None and not path.is_symlink()):
            missing.append(name)
    return missing


def get_content(
    repository: Path,
    files: Sequence[str],
    *,
    plain: bool | None = None,
    jobs: int = 4,
    progress: Callable[[int, int, str], None] | None = None,
) -> Fetched:
    """Fetch the content of files that is not there yet.

    Parameters
    ----------
    repository
        A clone.
    files
        Paths from its root.
    plain
        Download without git-annex; by default where that is not installed.
    jobs
        Downloads at once.
    progress
        Told of each file.
    """
    missing = missing_files(repository, files)
    if not missing:
        return Fetched(len(files), 0, ())
    alone = not has_git_annex() if plain is None else plain
    results = _download(repository, missing, jobs) if alone else _annex_get(repository, missing, jobs)
    failed: list[tuple[str, str]] = []
    fetched = 0
    for name, reason in results:
        if reason is None:
            fetched += 1
        else:
            failed.append((name, reason))
        if progress is not None:
            progress(fetched + len(failed), len(missing), name)
    return Fetched(len(files), fetched, tuple(failed))


def _annex_get(repository: Path, files: Sequence[str], jobs: int) -> Iterator[tuple[str, str | None]]:
    """Fetch with git-annex; yield each path with the reason why it did not come, if it did not."""
    started = _git("annex", "init", "--quiet", cwd=repository)
    if started.returncode != 0:
        msg = f"{repository}: git-annex cannot use it ({_last_line(started.stderr)})"
        raise DatasetError(msg)
    for start in range(0, len(files), _CHUNK):
        chunk = list(files[start : start + _CHUNK])
        done = _git("annex", "get", "--json", "--json-error-messages", f"-J{jobs}", "--", *chunk, cwd=repository)
        reasons: dict[str, str | None] = {}
        for line in done.stdout.splitlines():
            found = json.loads(line)
            text = " ".join(" ".join(found.get("error-messages", [])).split())
            reasons[found["file"]] = None if found["success"] else text or "git-annex gives no reason"
        still = set(missing_files(repository, chunk))
        for name in chunk:
            reason = reasons.get(name)
            if name in still and reason is None:
                reason = _last_line(done.stderr)
            yield name, reason


def _branch(repository: Path) -> str:
    """Return the name under which a clone has the branch of git-annex."""
    for name in ("origin/git-annex", "git-annex"):
        if _git("rev-parse", "--verify", "--quiet", name, cwd=repository).returncode == 0:
            return name
    msg = f"{repository}: has no branch git-annex, so it is not known where its content lies; install git-annex"
    raise DatasetError(msg)


def _download(repository: Path, files: Sequence[str], jobs: int) -> Iterator[tuple[str, str | None]]:
    """Fetch from public addresses; yield each path with the reason why it did not come, if it did not."""
    branch = _branch(repository)
    remotes = public_remotes(_git("show", f"{branch}:remote.log", cwd=repository).stdout)
    if not remotes:
        msg = (
            f"{repository}: no remote of it has a public address; install git-annex (and DataLad) to fetch its content"
        )
        raise DatasetError(msg)
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        waiting = {pool.submit(_download_one, repository, branch, remotes, name): name for name in files}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def _download_one(repository: Path, branch: str, remotes: Sequence[PublicRemote], name: str) -> str | None:
    """Fetch one file and check its digest; return why it did not come, if it did not."""
    path = repository / name
    text = key_of(path)
    key = parse_key(text) if text else None
    if key is None:
        return f"its key {text} holds no digest; fetch it with git-annex"
    content = path.parent / path.readlink() if path.is_symlink() else path.with_name(f".{path.name}.fetched")
    content = Path(os.path.normpath(content))
    if path.is_symlink() and not content.is_relative_to(Path(os.path.normpath(repository)) / ".git"):
        return "its link leads out of the repository"
    reason = "no remote has it"
    for remote in remotes:
        log = _git("show", f"{branch}:{key.branch_folder}/{key.text}.log.rmet", cwd=repository)
        version = version_in(log.stdout, remote, name) if log.returncode == 0 else None
        part = content.with_name(f"{content.name}.download")
        try:
            download(remote.address(key, name, version), part)
        except DownloadError as error:
            reason = str(error)
            continue
        if not key.fits(part):
            part.unlink()
            reason = f"what {remote.name} sends has another size or digest than {key.text}"
            continue
        part.replace(content if path.is_symlink() else path)
        return None
    return reason


def damaged_files(
    repository: Path, files: Sequence[str], progress: Callable[[int, int, str], None] | None = None
) -> list[str]:
    """Return the fetched files whose content does not have the size and digest of their key.

    Unlocked files whose content is there tell no key and are not judged.
    """
    damaged = []
    for number, name in enumerate(files, start=1):
        path = repository / name
        text = key_of(path)
        key: AnnexKey | None = parse_key(text) if text else None
        if key is not None and path.is_symlink() and path.exists() and not key.fits(path):
            damaged.append(name)
        if progress is not None:
            progress(number, len(files), name)
    return damaged
