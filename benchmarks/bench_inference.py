"""Compare time and memory of this package's predictor with nnUNetPredictor, on the same weights and image.

Each engine runs in a process of its own, so that peak memory is its own and nothing is warm but what it warms itself.
The first prediction includes building (and converting) the network; the table shows it apart from the later ones.

    python benchmarks/bench_inference.py --threads 2
    python benchmarks/bench_inference.py --model data/nnUNet/results/Dataset101_x --shape 160 256 320
    python benchmarks/bench_inference.py --architecture residual --features 32 64 128 256 320 320 \
        --blocks 1 3 4 6 6 6 --patch 96 160 160 --shape 80 160 240
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from totalspineseg_bids.inference.options import EngineName

ENGINES = ("nnunet", "torch", "openvino")
RANDOM_DATASET = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "disc": [1, 2], "disc_C2_C3": 2, "vertebrae": 3, "canal": [4, 5], "cord": 5},
    "regions_class_order": [1, 2, 3, 4, 5],
}


def make_image(channels: int, shape: tuple[int, int, int]) -> Any:  # noqa: ANN401 - numpy is imported in the child only
    """Return smooth noise, shape (channels, X, Y, Z); channels after the first are 0/1."""
    import numpy as np  # noqa: PLC0415
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415

    blobs = gaussian_filter(np.random.default_rng(0).normal(size=shape).astype(np.float32), 3.0) * 1000 + 100
    return np.stack([blobs, *[(blobs > 110).astype(np.float32)] * (channels - 1)])


def peak_kib() -> int:
    """Return the peak resident memory of this process, KiB."""
    # getrusage also counts the parent's memory at the time of the fork; the kernel's own figure does not.
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_one(
    engine: EngineName | Literal["nnunet"],
    model_path: Path,
    shape: tuple[int, int, int],
    spacing: float,
    options: dict[str, Any],
) -> None:
    """Predict in this process and print one JSON line: times, peak memory, and where the labels were saved."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from totalspineseg_bids.inference.model import load_model  # noqa: PLC0415
    from totalspineseg_bids.inference.options import InferenceOptions  # noqa: PLC0415
    from totalspineseg_bids.inference.predictor import Predictor  # noqa: PLC0415

    torch.set_num_threads(options["threads"])
    model = load_model(model_path)
    image = make_image(len(model.channel_names), shape)
    before = peak_kib()
    if engine == "nnunet":
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: PLC0415

        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(options["folder"]), options["folds"], options["checkpoint"])

        def predict() -> Any:  # noqa: ANN401 - numpy array
            data = image.transpose(0, 3, 2, 1)
            return predictor.predict_single_npy_array(data, {"spacing": [spacing] * 3}, None, None).transpose(2, 1, 0)
    else:
        ours = Predictor(
            model,
            InferenceOptions(device="cpu", engine=engine, threads=options["threads"], precision=options["precision"]),
        )

        def predict() -> Any:  # noqa: ANN401 - numpy array
            return ours.predict(image, (spacing,) * 3).labels

    times = []
    for _ in range(options["repeats"] + 1):
        start = time.perf_counter()
        labels = predict()
        times.append(time.perf_counter() - start)
    file = Path(options["out"]) / f"{engine}.npy"
    np.save(file, labels)
    peak = peak_kib()
    later = min(times[1:]) if len(times) > 1 else times[0]
    print(json.dumps({"first": times[0], "later": later, "peak": peak, "growth": peak - before, "labels": str(file)}))


def least_dice(a: Any, b: Any, least_voxels: int = 1000) -> float:  # noqa: ANN401 - numpy arrays
    """Return the smallest Dice over labels of some size."""
    import numpy as np  # noqa: PLC0415

    labels = [v for v in np.unique(a) if (a == v).sum() >= least_voxels]
    return float(min(2 * ((a == v) & (b == v)).sum() / ((a == v).sum() + (b == v).sum()) for v in labels))


def main() -> None:
    """Run the engines one after the other and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model folder; an untrained U-Net if not given")
    parser.add_argument("--architecture", choices=("plain", "residual"), default="plain", help="of the untrained one")
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16, 32, 64], help="of the untrained one")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 96, 128), help="image, voxels, X Y Z")
    parser.add_argument("--blocks", type=int, nargs="+", help="per stage of the untrained one (default: 2)")
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 64), help="of the untrained one, Z Y X")
    parser.add_argument("--spacing", type=float, default=1.0, help="voxel size of the image, mm")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=1, help="predictions after the first")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of our engines")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--run", choices=ENGINES, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shape = tuple(arguments.shape)
    if arguments.run:
        run_one(arguments.run, arguments.model, shape, arguments.spacing, arguments.options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        model = arguments.model or untrained(Path(scratch), arguments)
        results = {engine: in_child(engine, model, Path(scratch), arguments) for engine in arguments.engines}
        report(results, shape)


def untrained(scratch: Path, arguments: argparse.Namespace) -> Path:
    """Write the untrained model."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.inference.untrained import write_untrained_model  # noqa: PLC0415

    return write_untrained_model(
        scratch / "model",
        RANDOM_DATASET,
        architecture=arguments.architecture,
        features=arguments.features,
        blocks=arguments.blocks,
        patch_size=arguments.patch,
    )


def in_child(engine: str, model: Path, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one engine in a process of its own."""
    from totalspineseg_bids.inference import folders  # noqa: PLC0415

    folder = folders.select_model_folder(model)
    checkpoints = folders.fold_checkpoints(folder)
    options = {
        "threads": arguments.threads,
        "repeats": arguments.repeats,
        "precision": arguments.precision,
        "out": str(scratch),
        "folder": str(folder),
        # Left to itself, nnU-Net does not find a model that was trained on all folds.
        "folds": [file.parent.name.removeprefix("fold_") for file in checkpoints],
        "checkpoint": str(checkpoints[0].name),
    }
    command = [sys.executable, __file__, "--run", engine, "--options", json.dumps(options), "--model", str(model)]
    command += ["--shape", *map(str, arguments.shape), "--spacing", str(arguments.spacing)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def report(results: dict[str, dict[str, Any]], shape: tuple[int, ...]) -> None:
    """Print times, memory, and the agreement with the first engine."""
    import numpy as np  # noqa: PLC0415

    base_name, base = next(iter(results.items()))
    expected = np.load(base["labels"])
    print(f"image {' x '.join(map(str, shape))}, {len(np.unique(expected))} labels; ratios to {base_name}")
    print(f"{'engine':10} {'first s':>8} {'later s':>8} {'faster':>7} {'peak MiB':>9} {'grown MiB':>9} {'min Dice':>9}")
    for name, result in results.items():
        dice = least_dice(expected, np.load(result["labels"]))
        print(
            f"{name:10} {result['first']:8.2f} {result['later']:8.2f} {base['later'] / result['later']:6.2f}x "
            f"{result['peak'] / 1024:9.0f} {result['growth'] / 1024:9.0f} {dice:9.5f}"
        )


if __name__ == "__main__":
    main()
