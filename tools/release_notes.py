"""Print the changelog section of a version as the text of its release; fail unless tag and files agree on the version.

python tools/release_notes.py v0.1.0
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_VERSION_FILES = {
    "totalspineseg_bids/__init__.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "Dockerfile": r"^ARG VERSION=(.+)$",
    "Singularity.def": r"^ +version=(.+)$",
}


def release_notes(tag: str, root: Path = ROOT) -> str:
    """Return the changelog section of a tag such as ``v0.1.0``.

    Raises
    ------
    ValueError
        If a file names another version or the changelog has no dated section of this one.
    """
    version = tag.removeprefix("v")
    for name, pattern in _VERSION_FILES.items():
        found = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        if found is None or found[1].strip("\"'") != version:
            msg = f"{name}: version {found[1] if found else 'missing'}, but the tag is {tag}"
            raise ValueError(msg)
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    if section is None:
        msg = f"CHANGELOG.md: has no section '## {version} (YYYY-MM-DD)'"
        raise ValueError(msg)
    return section[1].strip() + "\n"


if __name__ == "__main__":
    try:
        sys.stdout.write(release_notes(sys.argv[1]))
    except (ValueError, IndexError) as error:
        sys.exit(f"release_notes: {error}")
