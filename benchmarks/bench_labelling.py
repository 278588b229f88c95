"""Time and memory of the labelling of a full column at 1 mm.

Run ``python benchmarks/bench_labelling.py [MAP.nii.gz --layout NAME]``. Without a map, that of a whole
synthetic spine is taken. It prints processor time next to wall time, because only the former means something on a busy
machine.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from totalspineseg_bids.evaluation.corruption.subjects import make_case, make_subject
from totalspineseg_bids.imaging.io import read_labels
from totalspineseg_bids.segmentation.class_map import ClassMap
from totalspineseg_bids.segmentation.labelling import label_map


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one line per class map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map", nargs="?", type=Path, help="semantic map to label instead of a synthetic one")
    parser.add_argument("--layout", action="append", help="layout of the map; several for the synthetic spine")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    names = options.layout or ["r20240601-step1", "r20240601-step2", "r20241115-step2"]
    print(f"{'layout':18s} {'shape':>15s} {'processor s':>12s} {'wall s':>8s} {'peak MB':>8s}  result")
    for name in names:
        layout = ClassMap.named(name)
        if options.map:
            volume = read_labels(options.map)
            semantic, affine = volume.data, volume.affine
        else:
            case = make_case(make_subject(0), "whole", layout, np.random.default_rng(0))
            semantic, affine = case.semantic, case.affine
        processor, wall = [], []
        for _ in range(options.repeat):
            start, clock = time.process_time(), time.perf_counter()
            spine = label_map(semantic, affine, layout)
            processor.append(time.process_time() - start)
            wall.append(time.perf_counter() - clock)
        shape = "x".join(map(str, semantic.shape))
        named = sum(c.level is not None for c in spine.components)
        print(
            f"{name:18s} {shape:>15s} {min(processor):12.2f} {min(wall):8.2f} {_peak_mb():8.0f}  "
            f"{spine.status.value}, {named} levels named"
        )


if __name__ == "__main__":
    main()
