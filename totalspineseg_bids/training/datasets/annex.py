"""Datasets in git-annex repositories: cloned with git, their content fetched with git-annex.

Only the files that a training needs are fetched: anatomical images and labels of the spine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from totalspineseg_bids.errors import DatasetError, MissingInputError, OutputError, UsageError
from totalspineseg_bids.imaging.checks import is_fetched
from totalspineseg_bids.progress import track
from totalspineseg_bids.training.cases import is_image, is_spine_label

_CHUNK = 100  # paths per call of git-annex, well below the limit of a command line
#: git asks for no password here, and git-annex commits to its own branch under this name.
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "totalspineseg-tools",
    "GIT_AUTHOR_EMAIL": "noreply@localhost",
    "GIT_COMMITTER_NAME": "totalspineseg-tools",
    "GIT_COMMITTER_EMAIL": "noreply@localhost",
}


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
    """Return whether git-annex is installed."""
    return shutil.which("git") is not None and _git("annex", "version", "--raw").returncode == 0


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"


def clone(url: str, target: Path, revision: str | None = None) -> str:
    """Clone a repository unless it is there, and return the commit.

    Parameters
    ----------
    url : str
        Address or path that git understands.
    target : Path
        Folder of the clone; it takes its name only when the clone is whole.
    revision : str, optional
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


def selected_files(repository: Path, subjects: Sequence[str] = ()) -> list[str]:
    """Return the images and labels of the spine that a repository tracks, fetched or not.

    Parameters
    ----------
    repository : Path
        A clone.
    subjects : sequence of str, optional
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
    """Return the files whose content has not been fetched.

    A locked file is a link into the annex, which leads nowhere until the content is there; an unlocked file is a
    pointer until then (https://git-annex.branchable.com/internals/pointer_file).
    """
    return [name for name in files if not ((repository / name).is_file() and is_fetched(repository / name))]


def get_content(
    repository: Path,
    files: Sequence[str],
    *,
    jobs: int = 4,
    verify: bool = False,
) -> tuple[int, list[tuple[str, str]]]:
    """Fetch the content of files that is not there yet.

    Parameters
    ----------
    repository : Path
        A clone.
    files : sequence of str
        Paths from its root.
    jobs : int, default 4
        Number of downloads at the same time.
    verify : bool, default False
        Compare the content that is there with its digests first, and fetch damaged files again.

    Returns
    -------
    fetched : int
        Number of files that came now.
    failed : list of (str, str)
        Path and reason of those that did not come.

    Raises
    ------
    MissingInputError
        If content has to be fetched or verified and git-annex is not installed.
    DatasetError
        If git-annex cannot use the repository.
    """
    if verify:
        _init(repository)
        for chunk in _chunks(files):
            # Damaged content is moved to .git/annex/bad, so that it counts as missing.
            _git("annex", "fsck", "--quiet", f"-J{jobs}", "--", *chunk, cwd=repository)
    missing = missing_files(repository, files)
    if not missing:
        return 0, []
    _init(repository)
    found = track(_get(repository, missing, jobs), repository.name, total=len(missing))
    failed = [(name, reason) for name, reason in found if reason is not None]
    return len(missing) - len(failed), failed


def _init(repository: Path) -> None:
    """Prepare a clone for git-annex, which also enables the public remotes that the repository names."""
    if not has_git_annex():
        msg = (
            f"{repository}: git-annex is needed to fetch the content of this dataset and is not installed; install it "
            "('pip install git-annex', 'conda install -c conda-forge git-annex' or 'apt install git-annex'; DataLad "
            f"needs it as well) and run the same command again, or run 'git annex get' or 'datalad get' in a copy of "
            "this folder on another machine and copy it back"
        )
        raise MissingInputError(msg)
    started = _git("annex", "init", "--quiet", cwd=repository)
    if started.returncode != 0:
        msg = f"{repository}: git-annex cannot use it ({_last_line(started.stderr)})"
        raise DatasetError(msg)


def _chunks(files: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(files), _CHUNK):
        yield files[start : start + _CHUNK]


def _get(repository: Path, files: Sequence[str], jobs: int) -> Iterator[tuple[str, str | None]]:
    """Fetch files; yield each path with the reason why it could not be fetched, or ``None``."""
    for chunk in _chunks(files):
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
