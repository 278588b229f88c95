"""Measure what labels mean in a lumbar spine: ``python benchmarks/definitions_table.py [LABEL_MAP...]``.

Prints the measures of docs/definitions.md for each label map as it is in the file, or for ten synthetic spines.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from totalspineseg_bids.imaging.grid import to_canonical
from totalspineseg_bids.imaging.io import read_labels
from totalspineseg_bids.synthesis.definitions import measure_lumbar_spine
from totalspineseg_bids.synthesis.parametric import make_spine


def main(paths: list[Path]) -> None:
    """Print a row per map, and the range."""
    rows: list[list[float]] = []
    for number in range(len(paths) or 10):
        volume = to_canonical(read_labels(paths[number])) if paths else make_spine(np.random.default_rng(number))
        name = paths[number].name.split(".")[0] if paths else f"synthetic {number}"
        measured = measure_lumbar_spine(volume)
        if not rows:
            print("map", *measured, sep="\t")
        rows.append(list(measured.values()))
        print(name, *(f"{value:.2f}" for value in measured.values()), sep="\t", flush=True)
    for name, of in (("least", np.nanmin), ("greatest", np.nanmax)):
        print(name, *(f"{value:.2f}" for value in of(rows, axis=0)), sep="\t")


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
