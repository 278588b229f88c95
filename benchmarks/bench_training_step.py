"""Time of a training step of the bundled networks in 32 and in 16 bits: ``python benchmarks/bench_training_step.py``.

The trainer is the one of ``make bundled-models``. Both kinds of steps take the same drawn patch in turn. Drawing is not
in the time: other processes or a thread do it. Prints seconds a step (median) and their ratio, and how many patches are
drawn a second, one by one in numpy by a process and in groups in torch on the device.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from totalspineseg_bids.cli.tools_common import positive
from totalspineseg_bids.progress import bar
from totalspineseg_bids.training.synthetic.hardware import computes_bfloat16
from totalspineseg_bids.training.synthetic.small_plans import CONFIGURATION, CONVOLUTIONS, FEATURES, PATCH, SPACING

#: Images drawn at once; a batch of a training on a GPU.
GROUP = 8


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time a training step in 32 and in 16 bits.")
    parser.add_argument("--steps", type=positive, default=20, help="of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(argv)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = str(Path(folder) / name)
        measure(options, Path(folder))
    return 0


def drawn_a_second(drawn: Iterator[Any], times: int, device: torch.device) -> float:
    """Return the number of draws per second."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    next(drawn)
    wait()
    start = time.perf_counter()
    for _ in range(times):
        next(drawn)
    wait()
    return times / (time.perf_counter() - start)


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Take steps of both kinds in turn and print the table."""
    # nnU-Net reads its folders from the environment when it is imported.
    from totalspineseg_bids.synthesis.dataset import TRAINING_DOMAIN  # noqa: PLC0415
    from totalspineseg_bids.synthesis.parametric import make_spine  # noqa: PLC0415
    from totalspineseg_bids.training.synthetic.label_map_pool import PoolRecipe, build_pool  # noqa: PLC0415
    from totalspineseg_bids.training.synthetic.options import SyntheticTraining, describe  # noqa: PLC0415
    from totalspineseg_bids.training.synthetic.patch_dataset import SyntheticPatchDataset  # noqa: PLC0415
    from totalspineseg_bids.training.synthetic.trainer import nnUNetTrainerSynthetic  # noqa: PLC0415

    recipe = PoolRecipe(1, spacing=2.0)
    pool = build_pool(
        folder / "pool", None, recipe, TRAINING_DOMAIN, lambda rng, _number, spacing: make_spine(rng, spacing=spacing)
    )
    description, plans = describe(102, 1, features=FEATURES, convolutions=CONVOLUTIONS)
    plans["continue_training"] = False
    device = torch.device(options.device)
    trainer = nnUNetTrainerSynthetic(plans, CONFIGURATION, "all", description, device)
    trainer.prepare(SyntheticTraining(folder, 102, minutes=1e6, device=options.device), pool)
    stream = SyntheticPatchDataset(pool, 102, PATCH, SPACING[0], [1])
    on_device = SyntheticPatchDataset(pool, 102, PATCH, SPACING[0], [1], device=device)
    one_by_one = drawn_a_second(iter(stream), options.steps, device)
    in_groups = GROUP * drawn_a_second(on_device.groups(GROUP), max(1, options.steps // GROUP), device)
    # With odd discs, so that all outputs are asked for.
    batch = next(batch for batch in torch.utils.data.DataLoader(stream) if batch[0][0, 1].any())
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with bar(total=2 * (options.steps + 2), desc="train") as progress:
        for number in range(options.steps + 2):
            for bfloat16 in (False, True):
                trainer.bfloat16 = bfloat16
                start = time.perf_counter()
                trainer.train_step(batch)
                # The first two steps warm the device up.
                if number >= 2:
                    seconds[bfloat16].append(time.perf_counter() - start)
                progress.update()
    wide, narrow = (statistics.median(seconds[key]) for key in (False, True))
    print(f"32 bits\t{wide:.3f} s\n16 bits\t{narrow:.3f} s\nratio\t{wide / narrow:.2f}")
    print(f"drawn a second: in numpy {one_by_one:.1f}, in torch on {device} {in_groups:.1f}")
    print(f"a training on this device takes {16 if computes_bfloat16(device) else 32} bits")


if __name__ == "__main__":
    raise SystemExit(main())
