"""Time the bundled models on one image, in both arithmetic and against another checkout.

``python benchmarks/bench_segment.py`` draws a whole synthetic spine (or takes ``--image``) and segments it twice in a
process of its own for each way of running: the first time with what is loaded and converted once, the second without.
Prints the seconds of both, the most memory, and how many of the labelled voxels differ from the first row. With
``--against FOLDER`` another checkout of this repository takes part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.synthesis.dataset import write_dataset
from totalspineseg_bids.training.cases import find_cases

_PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from totalspineseg_bids.imaging.io import load_image
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.segmentation.pipeline import SpineSegmenter
image, out, precision, threads = sys.argv[1:]
volume, seconds = load_image(Path(image)).volume, []
segmenter = None
for _ in range(2):
    start = time.perf_counter()
    if segmenter is None:
        models = resolve("bundled", need=("step1", "step2"))
        segmenter = SpineSegmenter(models, precision=precision, threads=int(threads) or None)
    labels = segmenter.segment(volume).labels_on(volume.geometry)
    seconds.append(time.perf_counter() - start)
np.save(out, labels)
print(json.dumps({"seconds": seconds, "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Time the bundled models on one image.")
    parser.add_argument("--image", type=Path, help="NIfTI file (default: a synthetic whole spine)")
    parser.add_argument("--against", type=Path, help="other checkout of this repository")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], help="default: fp32 bf16")
    parser.add_argument("--threads", type=positive, help="default: all cores")
    options = parser.parse_args(argv)
    here = Path(__file__).resolve().parents[1]
    checkouts = [path.resolve() for path in (options.against, here) if path is not None]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        image = (options.image or _drawn(folder / "bids")).resolve()
        print(
            f"{image.name}\n{'checkout':>12} {'precision':>9} {'first, s':>9} {'then, s':>8} {'GiB':>6} {'differ':>8}"
        )
        first: np.ndarray | None = None
        for checkout in checkouts:
            for precision in options.precision:
                out = folder / "labels.npy"
                found = _run(checkout, [str(image), str(out), precision, str(options.threads or 0)])
                labels = np.load(out)
                first = labels if first is None else first
                differ = np.count_nonzero(labels != first) / max(np.count_nonzero(first), 1)
                name = "this" if checkout == here else "other"
                seconds = f"{found['seconds'][0]:9.1f} {found['seconds'][1]:8.1f}"
                print(f"{name:>12} {precision:>9} {seconds} {found['gib']:6.2f} {differ:8.4f}", flush=True)
    return 0


def _drawn(folder: Path) -> Path:
    write_dataset(folder, 1, 1, fields_of_view=["whole"], contrasts=["T2w"], most_images=1)
    return find_cases([folder])[0][0].image


def _run(checkout: Path, arguments: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], env=environment, cwd=checkout, check=True, stdout=subprocess.PIPE
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    raise SystemExit(main())
