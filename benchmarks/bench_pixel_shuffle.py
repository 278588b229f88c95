"""Time of a patch in blocks of 2 x 2 x 2 voxels: ``python benchmarks/bench_pixel_shuffle.py``.

The networks of steps 1 and 2 take blocks of voxels as channels of one, so that their patch holds eight times the voxels
of that of a plain network with as many wide ones. Both run in turn, untrained, on the engine that the pipeline takes on
a CPU. Prints seconds a patch (median) and their ratio, and the ratio of the times for the same part of a body.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from totalspineseg_bids.cli.tools_common import bar, positive
from totalspineseg_bids.inference.engines import Engine, make_engine
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.pixel_shuffle import FACTOR
from totalspineseg_bids.training.class_maps import dataset_json
from totalspineseg_bids.training.synthetic.small_plans import (
    CONFIGURATION,
    PATCH,
    PLAIN,
    SPACING,
    SUBVOXEL,
    build_network,
    small_plans,
)

#: Voxels of the plain network that shipped before, mm.
_PLAIN_SPACING = 1.75


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time a patch of a plain network and of one in blocks of voxels.")
    parser.add_argument("--patches", type=positive, default=10, help="of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="default: %(default)s")
    return parser.parse_args(argv)


def untrained(folder: Path, network: str, patch: tuple[int, int, int], threads: int) -> Engine:
    """Write an untrained step 2 with a network of a class, and return what runs it."""
    description = dataset_json(102, 1)
    plans = small_plans("Dataset102_untrained", description["channel_names"], patch=patch, network=network)
    built = build_network(plans, len(description["channel_names"]), len(description["labels"]) - 1)
    (folder / "fold_all").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    checkpoint = {
        "network_weights": built.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": CONFIGURATION, "fold": "all"},
        "inference_allowed_mirroring_axes": (),
    }
    torch.save(checkpoint, folder / "fold_all" / "checkpoint_final.pth")
    return make_engine(load_model(folder), InferenceOptions(device="cpu", threads=threads))


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(argv)
    torch.set_num_threads(options.threads)
    wide = (PATCH[0] // FACTOR, PATCH[1] // FACTOR, PATCH[2] // FACTOR)
    patches = {PLAIN: wide, SUBVOXEL: PATCH}
    seconds: dict[str, list[float]] = {name: [] for name in patches}
    with tempfile.TemporaryDirectory() as folder, bar(2 * (options.patches + 1), "predict") as progress:
        root = Path(folder) / "nnUNetTrainer__nnUNetPlansSmall__3d_fullres"
        engines = {
            name: untrained(root.with_name(f"{number}") / root.name, name, patch, options.threads)
            for number, (name, patch) in enumerate(patches.items())
        }
        for number in range(options.patches + 1):
            for name, patch in patches.items():
                image = torch.randn(2, *patch)
                start = time.perf_counter()
                engines[name](image)
                # The first patch warms the engine up.
                if number:
                    seconds[name].append(time.perf_counter() - start)
                progress.update()
    plain, subvoxel = (statistics.median(seconds[name]) for name in (PLAIN, SUBVOXEL))
    body = (SPACING * FACTOR / _PLAIN_SPACING) ** 3
    print(f"plain network, {wide} voxels of {_PLAIN_SPACING} mm\t{plain:.3f} s")
    print(f"in blocks, {PATCH} voxels of {SPACING} mm\t{subvoxel:.3f} s")
    print(f"ratio\t{subvoxel / plain:.2f}")
    print(f"ratio for the same part of a body\t{subvoxel / plain / body:.2f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
