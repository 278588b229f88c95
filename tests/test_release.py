"""Locked versions, release notes and workflows agree with the project's files."""

import re
import runpy
import shutil
from pathlib import Path

import pytest

from totalspineseg_bids import __version__

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ["requirements.txt", "cpu-linux-x86_64.txt", "build.txt"]
release_notes = runpy.run_path(str(ROOT / "tools/release_notes.py"))["release_notes"]


def pins(text: str) -> dict[str, set[str]]:
    """Return the versions of each package in a file of pins."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE):
        found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_has_hashes(lock):
    text = (ROOT / "locks" / lock).read_text()
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) > 20
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text


@pytest.mark.parametrize("lock", ["requirements.txt", "cpu-linux-x86_64.txt"])
def test_locks_hold_the_versions_of_the_constraints(lock):
    constraints = pins((ROOT / "constraints.txt").read_text())
    locked = pins((ROOT / "locks" / lock).read_text())
    assert {
        name: versions for name, versions in locked.items() if not versions <= constraints.get(name, versions)
    } == {}
    required = re.findall(
        r'^  "([\w-]+)', (ROOT / "pyproject.toml").read_text().split("[project.optional")[0], re.MULTILINE
    )
    names = {name.lower() for name in required if name not in {"Intended", "Programming", "Topic", "tomli"}}
    assert names <= set(locked)


def test_the_release_text_is_the_changelog_section_of_the_tag(tmp_path):
    for name in ("totalspineseg_bids/__init__.py", "CITATION.cff", "Dockerfile", "Singularity.def"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text(
        f"# Changelog\n\n## {__version__} (2026-12-01)\n\n### Added\n\n- A.\n\n## 0.0.1 (2026-01-01)\n\n- B.\n"
    )
    assert release_notes(f"v{__version__}", tmp_path) == "### Added\n\n- A.\n"
    with pytest.raises(ValueError, match="but the tag is v9"):
        release_notes("v9.0.0", tmp_path)
    changelog.write_text(f"## {__version__} (unreleased)\n")
    with pytest.raises(ValueError, match="has no section"):
        release_notes(f"v{__version__}", tmp_path)


def test_workflows_call_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        called = set(re.findall(r"make ([a-z-]+)", workflow.read_text()))
        assert called <= targets, workflow.name
