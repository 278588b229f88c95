"""Check that a change leaves results as they are: run one fixed set of work on two checkouts and compare digests.

    python benchmarks/compare_results.py record . after.json --parts demo labelling synthesize prepare
    python benchmarks/compare_results.py record ../other-checkout before.json
    python benchmarks/compare_results.py compare before.json after.json

A checkout is called through its command lines and its public functions only, so that its modules may differ. Both
checkouts run in the interpreter that runs this script. Digests cover arrays and affines of NIfTI files, and numbers
and single words of tables and JSON files; sentences, times, versions and paths may change.

Parts: ``demo`` (the six images of ``make demo``), ``real`` (all images of ``real_bids`` below ``--data-dir``),
``labelling`` (the semantic maps in ``--maps``, each named ``<layout>__<case>.nii.gz``), ``synthesize`` and ``prepare``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTS = ("demo", "real", "labelling", "synthesize", "prepare")
# Keys and columns whose values differ between two runs or versions: file times, and digests of compressed input.
_VOLATILE = ("signature", "Input", "Version", "seconds", "duration", "date", "CodeURL", "memory")
_LABEL_SCRIPT = """
import hashlib, json, sys
from pathlib import Path
from totalspineseg_bids import label
result = {}
for path in sorted(Path(sys.argv[1]).glob("*.nii.gz")):
    spine = label(path, path.name.split("__")[0])
    text = json.dumps([
        [c.label_id, c.level, round(c.confidence, 6), c.runner_up, round(c.volume_mm3, 3)] for c in spine.components
    ] + [spine.status.value, list(spine.flags)])
    result[path.name] = hashlib.sha256(spine.labels.tobytes() + text.encode()).hexdigest()
print(json.dumps(result))
"""


def scripts_of(checkout: Path) -> dict[str, str]:
    """Return the command lines that a checkout installs, as Python expressions."""
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    entries = {name: target.split(":") for name, target in project["scripts"].items()}
    return {name: f"import sys; from {m} import {f}; sys.exit({f}())" for name, (m, f) in entries.items()}


def run(checkout: Path, code: str, *arguments: str | Path) -> str:
    """Run code against the package of a checkout and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{arguments} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        raise SystemExit(message)
    return done.stdout


def _is_stable(text: str) -> bool:
    return " " not in text.strip() and "/" not in text and "<" not in text


def _reduced(value: object) -> object:
    """Keep numbers and single words of a JSON value."""
    if isinstance(value, dict):
        return {k: _reduced(v) for k, v in sorted(value.items()) if not any(v in k for v in _VOLATILE)}
    if isinstance(value, list):
        return [_reduced(v) for v in value]
    if isinstance(value, str) and not _is_stable(value):
        return "text"
    return value


def _table(text: str) -> list[list[str]]:
    header, *rows = [line.split("\t") for line in text.splitlines()]
    kept = [n for n, name in enumerate(header) if not any(v in name for v in _VOLATILE)]
    return [[row[n] if _is_stable(row[n]) else "text" for n in kept] for row in [header, *rows]]


def digest(path: Path) -> str | None:
    """Return the digest of what must not change in a file; ``None`` where nothing is held."""
    whole = hashlib.sha256()
    if path.name.endswith((".nii", ".nii.gz")):
        image = nib.load(path)
        whole.update(np.ascontiguousarray(image.dataobj).tobytes())
        whole.update(np.ascontiguousarray(image.affine).tobytes())
    elif path.suffix == ".tsv":
        whole.update(json.dumps(_table(path.read_text(encoding="utf-8"))).encode())
    elif path.suffix == ".json" and "logs" not in path.parts:
        whole.update(json.dumps(_reduced(json.loads(path.read_text(encoding="utf-8")))).encode())
    else:
        return None
    return whole.hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of the files below a folder, by relative path."""
    found = {p.relative_to(folder).as_posix(): digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: value for name, value in found.items() if value}


def record(checkout: Path, parts: list[str], data: Path, maps: Path) -> dict[str, dict[str, str]]:
    """Run the parts on a checkout."""
    scripts = scripts_of(checkout)
    app, tools = scripts["totalspineseg-bids"], scripts["totalspineseg-tools"]
    result: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as work:
        for part in parts:
            start, bids, out = time.time(), Path(work, "bids"), Path(work, part)
            if part in {"demo", "real"}:
                source = data / "real_bids" if part == "real" else bids
                if part == "demo":
                    run(checkout, tools, "synthesize", bids, "--subjects", "6", "--seed", "2026")
                for level in ("participant", "group"):
                    run(checkout, app, source, out, level, "--model", "bundled")
                result[part] = digests(out)
            elif part == "labelling":
                result[part] = json.loads(run(checkout, _LABEL_SCRIPT, maps))
            elif part == "synthesize":
                run(checkout, tools, "synthesize", out, "--subjects", "5", "--seed", "7", "--variants")
                result[part] = digests(out)
            else:
                source = Path(work, "labelled")
                run(checkout, tools, "synthesize", source, "--subjects", "3", "--seed", "8", "--fov", "lumbar")
                run(checkout, tools, "prepare", out, source, "--copies", "1")
                result[part] = digests(out)
            print(f"{part}: {len(result[part])} files, {time.time() - start:.0f} s", file=sys.stderr)
    return result


def compare(before: Path, after: Path) -> int:
    """Print what differs; return 1 if anything does."""
    first, second = (json.loads(p.read_text(encoding="utf-8")) for p in (before, after))
    different = [
        f"{part}: {name}"
        for part in sorted(first.keys() & second.keys())
        for name in sorted(first[part].keys() | second[part].keys())
        if first[part].get(name) != second[part].get(name)
    ]
    count = sum(len(first[part]) for part in first.keys() & second.keys())
    print("\n".join(different) or f"identical: {count} files of {', '.join(sorted(first.keys() & second.keys()))}")
    return bool(different)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("checkout", type=Path)
    recorder.add_argument("record", type=Path)
    recorder.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    recorder.add_argument("--data-dir", type=Path, default=Path("../shared"))
    recorder.add_argument("--maps", type=Path, default=Path("semantic-maps"))
    comparer = commands.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        return compare(arguments.before, arguments.after)
    data, maps = arguments.data_dir.resolve(), arguments.maps.resolve()
    found = record(arguments.checkout.resolve(), arguments.parts, data, maps)
    arguments.record.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
