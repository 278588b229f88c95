"""Datasets in git-annex repositories."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from totalspineseg_bids.cli.tools import main
from totalspineseg_bids.errors import DatasetError, MissingInputError, OutputError, UsageError
from totalspineseg_bids.training.datasets import annex, catalog
from totalspineseg_bids.training.datasets.catalog import SOURCES, DatasetSource, find_source
from totalspineseg_bids.training.datasets.get import GetOptions, get_dataset, state_of

from .conftest import OTHERS, WANTED, content_of, git, key_for

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
needs_annex = pytest.mark.skipif(not annex.has_git_annex(), reason="git-annex is not installed")


def source_of(url: str) -> DatasetSource:
    return replace(find_source("ds005616"), name="small", url=url)


def repository(folder: Path) -> Path:
    """A repository as git alone sees it: links and pointers to content that is elsewhere."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / "dataset_description.json").write_text('{"Name": "small", "BIDSVersion": "1.9.0"}')
    for name in (*WANTED, *OTHERS):
        path, key = folder / name, key_for(content_of(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        up = "../" * (len(Path(name).parts) - 1)
        path.symlink_to(f"{up}.git/annex/objects/Xx/Yy/{key}/{key}")
    unlocked = folder / WANTED[1]
    unlocked.unlink()
    unlocked.write_text(f"/annex/objects/{key_for(content_of(WANTED[1]))}\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "data")
    return folder


@needs_git
def test_without_git_annex_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(annex, "has_git_annex", lambda: False)
    source, root = source_of(str(repository(tmp_path / "origin"))), tmp_path / "bids"
    with pytest.raises(MissingInputError, match="pip install git-annex"):
        get_dataset(source, root)
    assert state_of(source, root) == "0 of 5"
    # Content that was fetched on another machine is enough.
    for name in WANTED:
        (root / "small" / name).unlink()
        (root / "small" / name).write_bytes(content_of(name))
    result = get_dataset(source, root)
    assert (result.selected, result.fetched, result.failed) == (5, 0, [])
    assert state_of(source, root) == "complete"


@needs_git
def test_what_cannot_be_had_is_said(tmp_path, monkeypatch):
    root, origin = tmp_path / "bids", source_of(str(repository(tmp_path / "origin")))
    with pytest.raises(MissingInputError, match=r"git annex get.*copy the folder to"):
        get_dataset(source_of(str(tmp_path / "nowhere")), root)
    assert not (root / "small").exists()
    with pytest.raises(DatasetError, match="no anatomical image of sub-zz"):
        get_dataset(origin, root, GetOptions(subjects=("zz",)))
    with pytest.raises(UsageError, match="no revision 'v9'"):
        get_dataset(origin, root, GetOptions(revision="v9"))
    (tmp_path / "other" / "small").mkdir(parents=True)
    with pytest.raises(OutputError, match="no git repository"):
        get_dataset(origin, tmp_path / "other")
    monkeypatch.setattr(annex.shutil, "which", lambda _name: None)
    with pytest.raises(MissingInputError, match="git is not installed"):
        get_dataset(origin, tmp_path / "third")


@needs_git
@needs_annex
def test_with_git_annex(tmp_path, monkeypatch, capsys):
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
    assert all((root / "small" / name).read_bytes() == content_of(name) for name in WANTED)
    assert not any((root / "small" / name).exists() for name in OTHERS)
    record = json.loads((root / ".downloads" / "small.json").read_text())
    assert record["version"] == git(origin, "rev-parse", "HEAD").strip()
    # What was damaged on the disk since is fetched again with --verify.
    damaged = (root / "small" / WANTED[0]).resolve()
    damaged.chmod(0o644)
    damaged.write_bytes(b"x")
    assert main([*arguments, "--verify"]) == 0
    assert (root / "small" / WANTED[0]).read_bytes() == content_of(WANTED[0])


def test_catalog():
    names = [name for source in SOURCES for name in (source.name, *source.aliases)]
    assert len(set(names)) == len(names)
    assert find_source("spider").kind == "spider"
    assert [source.name for source in SOURCES if source.one_person] == ["data-single-subject"]
    with pytest.raises(UsageError, match="choose among"):
        find_source("mnist")
