"""Compare the measures of two stored images with stored values, so that no change moves results unnoticed.

python tools/drift.py check                 list the values outside the tolerances
python tools/drift.py record "LINE"         store the values of this version; LINE says what changed for users and must
                                            be part of CHANGELOG.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from totalspineseg_bids import __version__, anatomy
from totalspineseg_bids.bids.sidecar import make_label_rows
from totalspineseg_bids.imaging.io import read_image
from totalspineseg_bids.measurement.measure import measure_spine
from totalspineseg_bids.segmentation.api import segment

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "tests/data/drift"
STORED = IMAGES / "measures.json"
#: Largest difference that another processor may explain: relative and absolute part (unit of the column).
TOLERANCES = {
    "volume-mm3": (0.03, 60.0),
    "height-mm": (0.0, 0.3),
    "depth-mm": (0.0, 1.0),
    "canal-area-mm2": (0.04, 4.0),
    "cord-area-mm2": (0.04, 3.0),
}


def measure(path: Path) -> dict[str, dict[str, float]]:
    """Return the measures of an image by label and column, segmented with the bundled model in fp32."""
    image = read_image(path)
    spine = segment(image, "bundled", device="cpu", precision="fp32", resolution="1mm")
    measures = measure_spine(spine, image)
    rows = make_label_rows(spine.components, measures.levels, anatomy.DEFAULT_SCHEME)
    return {
        row["name"]: {name: float(row[name]) for name in TOLERANCES if row.get(name) not in {None, "", "n/a"}}
        for row in rows
    }


def measure_all() -> dict[str, dict[str, dict[str, float]]]:
    """Return the measures of all stored images by file name."""
    return {path.name: measure(path) for path in sorted(IMAGES.glob("*.nii.gz"))}


def differences(stored: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Describe each label that only one side has, and each value outside its tolerance."""
    lines = []
    for image, labels in stored.items():
        present = found.get(image, {})
        lines += [f"{image}: {name} is missing" for name in labels.keys() - present.keys()]
        lines += [f"{image}: {name} is new" for name in present.keys() - labels.keys()]
        for name in labels.keys() & present.keys():
            for column in labels[name].keys() | present[name].keys():
                before, now = labels[name].get(column), present[name].get(column)
                relative, absolute = TOLERANCES[column]
                if before is None or now is None or abs(now - before) > relative * abs(before) + absolute:
                    lines.append(f"{image}: {name} {column} {before} -> {now}")
    return sorted(lines)


def main(arguments: list[str]) -> int:
    """Run a command; return the exit code."""
    if arguments[:1] == ["record"] and len(arguments) == 2:
        if arguments[1] not in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
            print("drift: write the line into CHANGELOG.md first", file=sys.stderr)
            return 1
        content = {"version": __version__, "changelog": arguments[1], "images": measure_all()}
        STORED.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return 0
    if arguments != ["check"]:
        print(__doc__, file=sys.stderr)
        return 64
    lines = differences(json.loads(STORED.read_text(encoding="utf-8"))["images"], measure_all())
    print("\n".join([*lines, f"{len(lines)} values differ"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
