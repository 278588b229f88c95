"""Repositories of git-annex, fetched with git-annex and without."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.errors import DatasetError, MissingInputError, OutputError, UsageError
from totalspineseg_bids.training.datasets import annex, catalog
from totalspineseg_bids.training.datasets.annex_keys import parse_key, public_remotes, version_in
from totalspineseg_bids.training.datasets.catalog import SOURCES, DatasetSource, find_source
from totalspineseg_bids.training.datasets.get import GetOptions, get_dataset, state_of

from .conftest import OTHERS, WANTED, Server, content_of, git, key_for

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
needs_annex = pytest.mark.skipif(not annex.has_git_annex(), reason="git-annex is not installed")

REMOTE = (
    "5a5447a8 autoenable=true encryption=none name=amazon publicurl={url} type=S3 timestamp=1597347458.48s\n"
    "0000 name=private type=directory timestamp=1s\n"
)
EXPORT = (
    "fca320d8 exporttree=yes fileprefix=ds1/ name=s3-PUBLIC publicurl={url}/bucket type=S3 versioning=yes "
    "timestamp=1743780617.5s\n"
)


def source_of(url: str) -> DatasetSource:
    return replace(find_source("ds005616"), name="small", url=url)


def repository(folder: Path, remote_log: str, *, versions: bool = False) -> Path:
    """A repository as git sees it after git-annex has made it: links to keys, and a branch with logs."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "dataset_description.json").write_text('{"Name": "small", "BIDSVersion": "1.9.0"}')
    for name in (*WANTED, *OTHERS):
        path, key = folder / name, key_for(content_of(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(Path(name).parts) - 1)
        path.symlink_to(f"{up}.git/annex/objects/Xx/Yy/{key}/{key}")
    pointer = folder / WANTED[1]
    pointer.unlink()
    pointer.write_text(f"/annex/objects/{key_for(content_of(WANTED[1]))}\n")  # an unlocked file
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "data")
    git(folder, "checkout", "-q", "--orphan", "git-annex")
    git(folder, "rm", "-rqf", ".")
    (folder / "remote.log").write_text(remote_log)
    for name in WANTED if versions else ():
        key = parse_key(key_for(content_of(name)))
        assert key is not None
        log = folder / key.branch_folder / f"{key.text}.log.rmet"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"1s fca320d8:V +old#ds1/{name}\n2s fca320d8:V +v2#ds1/{name} -old#ds1/{name}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "logs")
    git(folder, "checkout", "-q", "main")
    return folder


def test_keys() -> None:
    text = "SHA256E-s764086--1830bdda48d8af1f2b6e1375cb4998be948bc227b0f93a16ebf77091acb88e86.nii.gz"
    key = parse_key(text)
    assert key is not None
    assert (key.algorithm, key.size, key.branch_folder) == ("sha256", 764086, "000/444")
    other = parse_key("MD5E-s3--900150983cd24fb0d6963f7d28e17f72.txt")
    assert other is not None
    assert other.algorithm == "md5"
    assert parse_key("URL--http&c%%example.org%x") is None


def test_remotes_as_the_public_repositories_have_them() -> None:
    key = parse_key("SHA256E-s1--00.nii.gz")
    assert key is not None
    (amazon,) = public_remotes(REMOTE.format(url="https://x.org/"))
    assert amazon.address(key, "sub-a/anat/a b.nii.gz") == "https://x.org/SHA256E-s1--00.nii.gz"
    (public,) = public_remotes(EXPORT.format(url="https://x.org"))
    assert public.address(key, "sub-a/a b.nii.gz") == "https://x.org/bucket/ds1/sub-a/a%20b.nii.gz"
    log = "1s fca320d8:V +one#ds1/f\n3s fca320d8:V +two#ds1/f -one#ds1/f\n4s other:V +three#ds1/f\n"
    assert version_in(log, public, "f") == "two"
    assert version_in(log, public, "g") is None
    assert public.address(key, "f", "two").endswith("/ds1/f?versionId=two")


@needs_git
@pytest.mark.parametrize("by_path", [False, True])
def test_plain_download(server: Server, tmp_path: Path, *, by_path: bool) -> None:
    log = (EXPORT if by_path else REMOTE).format(url=server.url)
    origin = repository(tmp_path / "origin", log, versions=by_path)
    contents = {name: content_of(name) for name in WANTED}
    for name, content in contents.items():
        server.files[f"/bucket/ds1/{name}" if by_path else f"/{key_for(content)}"] = content
    late = next(iter(server.files))
    held_back = server.files.pop(late)
    root = tmp_path / "bids"
    source = source_of(str(origin))
    first = get_dataset(source, root, GetOptions(plain=True, jobs=2))
    assert (first.wanted, first.fetched) == (5, 4)
    assert [name for name, _ in first.failed] == [WANTED[0]]
    assert "404" in first.failed[0][1]
    assert state_of(source, root).text == "4 of 5"
    server.files[late] = held_back
    server.asked.clear()
    second = get_dataset(source, root, GetOptions(plain=True))
    assert (second.fetched, second.failed) == (1, ())
    assert len(server.asked) == 1
    assert ("versionId=v2" in server.asked[0][0]) == by_path
    for name, content in contents.items():
        assert (root / "small" / name).read_bytes() == content
    assert not any((root / "small" / name).exists() for name in OTHERS)
    assert state_of(source, root).text == "complete"
    assert git(root / "small", "status", "--porcelain").split() == ["M", WANTED[1]]  # the unlocked one
    record = json.loads((root / ".downloads" / "small.json").read_text())
    assert record["version"] == git(origin, "rev-parse", "main").strip()


@needs_git
def test_wrong_content_is_not_taken(server: Server, tmp_path: Path) -> None:
    origin = repository(tmp_path / "origin", REMOTE.format(url=server.url))
    for name in WANTED:
        server.files[f"/{key_for(content_of(name))}"] = content_of(name)
    server.files[f"/{key_for(content_of(WANTED[0]))}"] = b"<html>log in first</html>"
    result = get_dataset(source_of(str(origin)), tmp_path / "bids", GetOptions(plain=True, subjects=("sub-a",)))
    assert (result.wanted, result.fetched) == (4, 3)
    assert "another size or digest" in result.failed[0][1]
    assert not (tmp_path / "bids" / "small" / WANTED[0]).exists()


@needs_git
def test_verify_fetches_damaged_content_again(server: Server, tmp_path: Path) -> None:
    origin = repository(tmp_path / "origin", REMOTE.format(url=server.url))
    for name in WANTED:
        server.files[f"/{key_for(content_of(name))}"] = content_of(name)
    source, root = source_of(str(origin)), tmp_path / "bids"
    get_dataset(source, root, GetOptions(plain=True))
    path = root / "small" / WANTED[3]
    path.resolve().write_bytes(b"damaged")
    assert get_dataset(source, root, GetOptions(plain=True)).fetched == 0
    assert get_dataset(source, root, GetOptions(plain=True, verify=True)).fetched == 1
    assert path.read_bytes() == content_of(WANTED[3])


@needs_git
def test_what_cannot_be_had_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "bids"
    with pytest.raises(MissingInputError, match=r"git annex get.*copy the folder to"):
        get_dataset(source_of(str(tmp_path / "nowhere")), root)
    assert not (root / "small").exists()
    origin = repository(tmp_path / "origin", "0000 name=private type=directory timestamp=1s\n")
    with pytest.raises(DatasetError, match="install git-annex"):
        get_dataset(source_of(str(origin)), root, GetOptions(plain=True))
    with pytest.raises(DatasetError, match="no anatomical image of sub-zz"):
        get_dataset(source_of(str(origin)), root, GetOptions(subjects=("zz",)))
    with pytest.raises(UsageError, match="no revision 'v9'"):
        get_dataset(source_of(str(origin)), root, GetOptions(revision="v9"))
    (tmp_path / "other" / "small").mkdir(parents=True)
    with pytest.raises(OutputError, match="no git repository"):
        get_dataset(source_of(str(origin)), tmp_path / "other")
    monkeypatch.setattr(annex.shutil, "which", lambda _name: None)
    with pytest.raises(MissingInputError, match="git is not installed"):
        get_dataset(source_of(str(origin)), tmp_path / "third")


@needs_git
@needs_annex
def test_with_git_annex(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A real repository of git-annex on the disk, fetched through the command line."""
    monkeypatch.setenv("HOME", str(tmp_path))
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    git(origin, "annex", "init", "-q")
    (origin / "dataset_description.json").write_text('{"Name": "small", "BIDSVersion": "1.9.0"}')
    git(origin, "add", "dataset_description.json")
    for name in (*WANTED, *OTHERS):
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        (origin / name).write_bytes(content_of(name))
    git(origin, "annex", "add", "-q", ".")
    git(origin, "commit", "-qm", "data")
    source = source_of(str(origin))
    monkeypatch.setattr(catalog, "SOURCES", (source,))
    root = tmp_path / "bids"
    # One file's content is gone at the source, as after a failed upload.
    lost = (origin / WANTED[2]).resolve()
    lost.parent.chmod(0o755)
    lost.rename(tmp_path / "kept")
    arguments = ["datasets", "get", "small", "--to", str(root), "--labels", "none"]
    assert main(arguments) == 66
    said = capsys.readouterr()
    assert "small: 4 of 5 files, 4 fetched now" in said.out
    assert WANTED[2] in said.err
    (tmp_path / "kept").rename(lost)
    assert main(arguments) == 0
    assert "5 of 5 files, 1 fetched now" in capsys.readouterr().out
    for name in WANTED:
        assert (
            hashlib.sha256((root / "small" / name).read_bytes()).digest() == hashlib.sha256(content_of(name)).digest()
        )
    assert not any((root / "small" / name).exists() for name in OTHERS)
    # What was damaged on the disk since is fetched again with --verify.
    damaged = (root / "small" / WANTED[0]).resolve()
    damaged.chmod(0o644)
    damaged.write_bytes(b"x")
    assert main([*arguments, "--verify"]) == 0
    assert (root / "small" / WANTED[0]).read_bytes() == content_of(WANTED[0])


def test_catalog() -> None:
    names = [name for source in SOURCES for name in (source.name, *source.aliases)]
    assert len(set(names)) == len(names)
    assert find_source("spider").kind == "spider"
    assert [source.name for source in SOURCES if source.one_person] == ["data-single-subject"]
    with pytest.raises(UsageError, match="choose among"):
        find_source("mnist")
