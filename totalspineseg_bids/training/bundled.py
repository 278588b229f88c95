"""Put trained synthetic models in the place of the bundled ones, stripped, each with a model card.

``python -m totalspineseg_bids.training.bundled WORK_DIR DESTINATION [--figures summary.json]``
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from totalspineseg_bids import __version__
from totalspineseg_bids.errors import ModelError, SpineAppError
from totalspineseg_bids.models.export import strip_checkpoint
from totalspineseg_bids.training.layouts import DATASET_NAMES, DatasetId

#: Weights that ship must not be larger than this, bytes.
SIZE_LIMIT = 15 * 1024 * 1024

_CARD = """# Model card: {name}

**For trying out and for tests.** These weights never saw a real image in training. Do not use them for research
results; install a public release instead (`totalspineseg-tools models install`).

| | |
|---|---|
| Task | {task} |
| Network | plain 3D U-Net, {parameters:.1f} M parameters, nnU-Net v2 plans `{plans}` |
| Voxels | {spacing} mm isotropic, patches of {patch} voxels (superior-inferior, posterior-anterior, left-right) |
| Classes | {classes} |
| Training images | synthetic, drawn on the fly: random pose, bending, contrast, slice thickness, bias field, noise |
| Label maps drawn from | {maps} |
| Steps | {steps} ({skipped} left out because loss or gradient was not finite) |
| Training time | {minutes:.0f} minutes on {machine} |
| Seed | {seed} |
| Optimiser | AdamW, peak learning rate {rate}, polynomial decay; a running average of the weights is kept |
| Loss | nnU-Net's Dice + binary cross-entropy over regions |
| Made with | totalspineseg_bids {version}, torch {torch} |

## Data and licences

Parametric spines are made by `totalspineseg_bids.synthesis` from code alone. {real}

## What it reaches

{figures}

## Limits

- Contrast and anatomy are those of a generator: implants, fractures, tumours, strong degeneration, fat-water swaps and
  coils that drop off are not in it.
- Posterior muscle and ligament are at times taken for bone on real images.
- Fields of view that show no landmark disc, sacrum, C1 or C2 cannot be named; the labelling then abstains.

## How to repeat

`make bundled-models` (with `LABEL_MAPS=<folder>` for the maps of real anatomy named above).
"""

_TASKS: dict[DatasetId, str] = {
    101: "step 1: cord, canal, discs, vertebrae and the four landmark discs",
    102: "step 2: image and odd discs in; odd and even discs and vertebrae, landmarks, cord and canal out",
    103: "single step: every vertebra and disc by its name",
}

_ATTRIBUTION = (
    "Maps of real anatomy were drawn from too, which are not part of this repository: BodyParts3D "
    "(© The Database Center for Life Science, CC BY 4.0, on the hosting page CC BY-SA 2.1 JP), SPL abdominal and SPL "
    "head-neck atlases (3D Slicer License), VHP lumbosacral spine (© 2021 Robin Remus, BSD-3-Clause)."
)


@dataclass(frozen=True, slots=True)
class Published:
    """A model that was put in place: its folder and bytes."""

    folder: Path
    size: int


def publish(
    work_dir: Path, destination: Path, *, figures: Mapping[str, Any] | None = None, datasets: Sequence[DatasetId] = ()
) -> list[Published]:
    """Strip the trained models of a work folder into a folder of bundled models.

    Parameters
    ----------
    work_dir
        That of ``synthetic_trainer.train_bundled``.
    destination
        Folder that gets one ``Dataset10X_…`` folder a model; what is there of the same name is replaced.
    figures
        Figures for the model cards, name -> value.
    datasets
        Which models; all that are trained where empty.

    Raises
    ------
    ModelError
        If nothing is trained, or the stripped model is larger than 15 MB.
    """
    published: list[Published] = []
    for dataset, name in DATASET_NAMES.items():
        if datasets and dataset not in datasets:
            continue
        sources = sorted((work_dir / "results" / name).glob("*__3d_fullres"))
        published.extend(
            _publish_one(dataset, source, destination / name, work_dir, figures or {})
            for source in sources
            if (source / "fold_all" / "checkpoint_final.pth").exists()
        )
    if not published:
        msg = f"{work_dir} holds no trained model; run `totalspineseg-tools train-bundled {work_dir}` first"
        raise ModelError(msg)
    return published


def _publish_one(
    dataset: DatasetId, source: Path, target: Path, work_dir: Path, figures: Mapping[str, Any]
) -> Published:
    checkpoint = torch.load(source / "fold_all" / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    parameters = sum(value.numel() for value in checkpoint["network_weights"].values()) / 1e6
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    strip_checkpoint(source, staging / source.name)
    size = sum(file.stat().st_size for file in staging.rglob("*") if file.is_file())
    if size > SIZE_LIMIT:
        msg = f"{source.name} is {size / 2**20:.1f} MB stripped, over the limit of 15 MB; train a smaller network"
        raise ModelError(msg)
    plans = json.loads((source / "plans.json").read_text())
    labels = json.loads((source / "dataset.json").read_text())["labels"]
    configuration = plans["configurations"]["3d_fullres"]
    state = checkpoint["synthetic"]
    pool = sorted(Path(entry["path"]).stem for entry in json.loads((work_dir / "pool" / "pool.json").read_text()))
    real = [name.removeprefix("real_") for name in pool if name.startswith("real_")]
    parametric = len(pool) - len(real)
    card = _CARD.format(
        name=target.name,
        task=_TASKS[dataset],
        parameters=parameters,
        plans=plans["plans_name"],
        spacing=configuration["spacing"][0],
        patch=" x ".join(map(str, configuration["patch_size"])),
        classes=", ".join(f"`{label}`" for label in labels if label != "background"),
        maps=f"{parametric} parametric spines" + (f" and {', '.join(f'`{name}`' for name in real)}" if real else ""),
        steps=state["step"],
        skipped=state["skipped"],
        minutes=state["seconds"] / 60,
        machine=f"{torch.get_num_threads()} threads ({platform.machine()})",
        seed=state["seed"],
        rate=state["learning_rate"],
        version=__version__,
        torch=torch.__version__.split("+")[0],
        real=_ATTRIBUTION if real else "",
        figures="\n".join(f"- {key}: {value}" for key, value in figures.items())
        or "Run `python benchmarks/evaluate_synthetic.py`; it prints the figures of the bundled models.",
    )
    (staging / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    staging.replace(target)
    return Published(target, size)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the module; returns the exit code."""
    parser = argparse.ArgumentParser(description="Put trained synthetic models in the place of the bundled ones.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--figures", type=Path, help="JSON object of figures for the model cards")
    options = parser.parse_args(argv)
    figures = json.loads(options.figures.read_text()) if options.figures else None
    try:
        for item in publish(options.work_dir, options.destination, figures=figures):
            sys.stdout.write(f"{item.folder}: {item.size / 2**20:.1f} MB\n")
    except SpineAppError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
