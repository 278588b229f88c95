"""Time of the bundled step 2 with the patch it was trained with and with one that fits the image.

A patch may grow where fewer patches then cover the image (``patch_growth`` in the plans). Both predict noise of the
sizes of boxes around whole and thoracolumbar spines, in turn, after a prediction that is not timed.

    python benchmarks/bench_patches.py --threads 2
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace

import numpy as np

from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.inference.model import NnUNetModel, load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.patch_grid import fitting_grid
from totalspineseg_bids.inference.predictor import Predictor
from totalspineseg_bids.models.registry import resolve
from totalspineseg_bids.models.roles import Role

#: Left-right, posterior-anterior, superior-inferior, mm; as the boxes of images of `evaluate_synthetic.py`.
BOXES = ((69, 178, 746), (94, 195, 690), (90, 232, 761), (71, 141, 368))


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Time patches that fit an image.")
    parser.add_argument("--threads", type=positive, default=os.cpu_count() or 1, help="default: %(default)s")
    options = parser.parse_args(argv)
    model = load_model(resolve("bundled").require(Role.STEP2))
    plain = replace(model, configuration={**model.configuration, "patch_growth": 1.0})
    print(f"{'box, mm':>16} {'patches':>18} {'seconds':>8} {'patches that fit':>18} {'seconds':>8} {'faster':>7}")
    totals = [0.0, 0.0]
    for box in BOXES:
        image = np.random.default_rng(0).normal(size=(len(model.channel_names), *box)).astype(np.float32)
        rows = [(laid(kind, box), timed(kind, image, options.threads)) for kind in (plain, model)]
        totals = [total + seconds for total, (_, seconds) in zip(totals, rows, strict=True)]
        cells = " ".join(f"{text:>18} {seconds:8.1f}" for text, seconds in rows)
        print(f"{' x '.join(map(str, box)):>16} {cells} {rows[0][1] / rows[1][1]:6.2f}x", flush=True)
    print(f"all boxes: {totals[0]:.1f} s, {totals[1]:.1f} s, ratio {totals[0] / totals[1]:.2f}")
    return 0


def laid(model: NnUNetModel, box: tuple[int, int, int]) -> str:
    """Return number and size of the patches over an image."""
    x, y, z = box
    shape = (z, y, x)
    step, growth = model.tile_step, model.patch_growth
    grid = fitting_grid(shape, model.network_patch_size, step, model.patch_multiple, growth)
    return f"{grid.count} x {'x'.join(map(str, grid.patch))}"


def timed(model: NnUNetModel, image: np.ndarray, threads: int) -> float:
    """Return the seconds of a prediction."""
    predictor = Predictor(
        model, InferenceOptions(device="cpu", threads=threads), step=model.tile_step, mirror=model.use_mirroring
    )
    # Converts the network, once for all images; compiling it for a patch is part of what an image takes.
    predictor.predict(image[:, :, :, :8], (1.0, 1.0, 1.0))
    start = time.perf_counter()
    predictor.predict(image, (1.0, 1.0, 1.0))
    return time.perf_counter() - start


if __name__ == "__main__":
    raise SystemExit(main())
