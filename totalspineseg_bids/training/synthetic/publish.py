"""Put trained synthetic models in the place of the bundled ones, stripped, each with a model card.

``python -m totalspineseg_bids.training.synthetic.publish WORK_DIR DESTINATION [--figures summary.json]``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from totalspineseg_bids import __version__
from totalspineseg_bids.errors import ModelError, SpineAppError
from totalspineseg_bids.inference.checkpoint import StateDict, read_checkpoint
from totalspineseg_bids.models.verify import write_manifest
from totalspineseg_bids.training.class_maps import DATASET_NAMES, DatasetId, dataset_json
from totalspineseg_bids.training.synthetic.bundle import Published, put_in_place
from totalspineseg_bids.training.synthetic.options import describe, finished, model_folder_name, pool_folder
from totalspineseg_bids.training.synthetic.publish_refinement import publish_refinement
from totalspineseg_bids.training.synthetic.small_plans import CONFIGURATION, PLAIN, SUBVOXEL, network_class
from totalspineseg_bids.training.synthetic.warm_start import reads_image

_STEPS: tuple[DatasetId, ...] = (101, 102)
_STEP2_CHANNELS = 2
_FIRST_OF_STAGE = re.compile(r"encoder\.stages\.(?P<stage>\d+)\.0\.convs\.0\.conv\.weight")
_OF_FIRST_STAGE = re.compile(r"encoder\.stages\.0\.0\.convs\.\d+\.conv\.weight")

_CARD = """# Model card: {name}

**For trying out and for tests.** These weights never saw a real image in training. Do not use them for research
results; install a public release instead (`totalspineseg-tools models install`).

| | |
|---|---|
| Task | {task} |
| Network | {network}, {parameters:.1f} M parameters, stages of {features} features, nnU-Net v2 plans `{plans}` |
| Voxels | {spacing} mm, patches of {patch} voxels ({axes}) |
| Classes | {classes} |
| Training images | synthetic, drawn on the fly: random pose, bending, contrast, slice thickness, bias field, noise |
| Label maps drawn from | {maps} |
| Optimiser | AdamW, polynomial decay over the training time; a running average of the weights is kept |
| Loss | {loss} |
| Made with | totalspineseg_bids {version}, torch {torch} |

## Training

{stages}

{note}

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

_ONE_NETWORK = (
    "One training after the other, each from the weights of the one before. Half of the patches of Dataset102 come "
    "without odd discs, so that its network also does what step 1 does; the bundled step 1 is cut out of it (one input "
    "channel, the outputs of step 1)."
)
_ALONE = (
    "Trained from scratch. Beside the two steps it serves as level scout: its probabilities of each level are evidence "
    "for the labelling."
)
_NETWORKS = {
    PLAIN: "plain 3D U-Net",
    SUBVOXEL: "plain 3D U-Net that takes and gives 2 x 2 x 2 voxels as channels of one "
    "(this package's `PixelShuffleUNet`)",
}
_STEP_AXES = "superior-inferior, posterior-anterior, left-right"
_AXES: dict[DatasetId, str] = {
    101: _STEP_AXES,
    102: _STEP_AXES,
    103: "left-right, superior-inferior, posterior-anterior",
}
_STEP_LOSS = (
    "nnU-Net's Dice (smoothed, so that classes out of view count too) + binary cross-entropy over regions "
    "+ cross-entropy of regions within others, with the weight told below"
)
_LOSSES: dict[DatasetId, str] = {
    101: _STEP_LOSS,
    102: _STEP_LOSS,
    103: "cross-entropy over levels, in and around the spine and at a sample of the other voxels",
}

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


def step1_of_step2(weights: StateDict) -> StateDict:
    """Cut the network of step 1 out of one that was trained for step 2 with and without its odd discs.

    Without odd discs the second input channel is zero, so leaving out its weights changes nothing; the regions of
    step 1 are among those of step 2, so their outputs are picked.

    Parameters
    ----------
    weights
        Of a network for Dataset102.

    Returns
    -------
    dict
        Weights of the same network with one input channel and the regions of Dataset101.
    """
    regions = {
        dataset: [name for name in dataset_json(dataset, 0)["labels"] if name != "background"] for dataset in _STEPS
    }
    picked = [regions[102].index(name) for name in regions[101]]
    cut: StateDict = {}
    for name, value in weights.items():
        if "seg_layers" in name:
            cut[name] = value.reshape(len(regions[102]), -1, *value.shape[1:])[picked].flatten(0, 1)
        elif reads_image(name):
            cut[name] = value[:, : value.shape[1] // _STEP2_CHANNELS]
        else:
            cut[name] = value
    return cut


def publish(
    work_dir: Path, destination: Path, *, figures: Mapping[str, Any] | None = None, earlier: Sequence[str] = ()
) -> list[Published]:
    """Strip the trained models of a work folder into a folder of bundled models.

    Where step 2 is trained, step 1 is cut out of it (`step1_of_step2`); else it is the network of step 1 itself.

    Parameters
    ----------
    work_dir
        That of ``synthetic_training.train_bundled``.
    destination
        Folder that gets one ``Dataset10X_…`` folder a model; what is there of the same name is replaced.
    figures
        Figures for the model cards, name -> value.
    earlier
        Trainings of the steps before those of this work folder, a line each, where they started from others' weights.

    Raises
    ------
    ModelError
        If nothing is trained, or a stripped model is larger than 15 MB.
    """
    trained = {dataset: file for dataset in DATASET_NAMES if (file := finished(work_dir, dataset)) is not None}
    if not trained:
        msg = f"{work_dir} holds no trained model; run `totalspineseg-tools train-bundled {work_dir}` first"
        raise ModelError(msg)
    checkpoints = {dataset: read_checkpoint(file) for dataset, file in trained.items()}
    stages = {
        dataset: f"Dataset{dataset}: {_stage(dataset, checkpoint)}" for dataset, checkpoint in checkpoints.items()
    }
    if 102 in checkpoints:
        weights = step1_of_step2(checkpoints[102]["network_weights"])
        checkpoints[101] = {**checkpoints[102], "network_weights": weights}
    published = [
        _publish_one(dataset, checkpoint, destination, _Recipe(work_dir, stages, tuple(earlier), figures or {}))
        for dataset, checkpoint in sorted(checkpoints.items())
    ]
    write_manifest(destination)
    return published


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What the model cards of one publication share."""

    work_dir: Path
    stages: Mapping[DatasetId, str]
    earlier: tuple[str, ...]
    figures: Mapping[str, Any]


def _stage(dataset: DatasetId, checkpoint: Mapping[str, Any]) -> str:
    state = checkpoint["synthetic"]
    # The scout's classes are no regions, so that its loss has no such term.
    weight = state.get("nested_weight") if dataset in _STEPS else None
    nested = f", weight of regions within others {weight}" if weight else ""
    batch = state.get("batch_size", 1)
    return (
        f"{state['step']} steps{f' of {batch} images' if batch > 1 else ''} in {state['seconds'] / 60:.0f} minutes"
        f"{f' on {machine}' if (machine := state.get('machine')) else ''}, {state['skipped']} left out as not finite, "
        f"peak learning rate {state['learning_rate']}, seed {state['seed']}{nested}"
        f"{', computing in bfloat16' if state.get('bfloat16') else ''}"
    )


def _shared(weights: StateDict) -> StateDict:
    """Let tensors of equal content be one: nnU-Net lists most under several names, averaging makes copies of them."""
    known: dict[tuple[torch.Size, bytes], torch.Tensor] = {}
    result: StateDict = {}
    for name, value in weights.items():
        content = hashlib.sha256(value.contiguous().numpy().tobytes()).digest()
        result[name] = known.setdefault((value.shape, content), value)
    return result


def _size_of(weights: StateDict) -> dict[str, Any]:
    """Return the width of a network's stages and the convolutions of each, as ``describe`` takes them."""
    first = {
        int(match["stage"]): len(value) for name, value in weights.items() if (match := _FIRST_OF_STAGE.fullmatch(name))
    }
    convolutions = sum(1 for name in weights if _OF_FIRST_STAGE.fullmatch(name))
    return {"features": tuple(first[stage] for stage in sorted(first)), "convolutions": convolutions}


def _publish_one(dataset: DatasetId, checkpoint: dict[str, Any], destination: Path, recipe: _Recipe) -> Published:
    name = DATASET_NAMES[dataset]
    index = pool_folder(recipe.work_dir, dataset) / "pool.json"
    pool = sorted(Path(entry["path"]).stem for entry in json.loads(index.read_text()))
    weights = _shared(checkpoint["network_weights"])
    description, plans = describe(dataset, len(pool), **_size_of(weights))
    with tempfile.TemporaryDirectory(prefix=f"{name}.") as folder:
        source = Path(folder) / model_folder_name(dataset)
        (source / "fold_all").mkdir(parents=True)
        (source / "dataset.json").write_text(json.dumps(description, indent=2) + "\n")
        (source / "plans.json").write_text(json.dumps(plans, indent=2) + "\n")
        slim = {"network_weights": weights, "trainer_name": checkpoint["trainer_name"]}
        slim["init_args"] = {"configuration": CONFIGURATION, "fold": "all"}
        slim["inference_allowed_mirroring_axes"] = checkpoint["inference_allowed_mirroring_axes"]
        torch.save(slim, source / "fold_all" / "checkpoint_final.pth")
        card = _card(dataset, weights, description, plans=plans, pool=pool, recipe=recipe)
        return put_in_place(source, destination, name, card)


def _stages_of(dataset: DatasetId, recipe: _Recipe) -> list[str]:
    """Return the trainings behind a model, in order."""
    if dataset == 103:
        return [recipe.stages[103]]
    return [*recipe.earlier, *(stage for key, stage in sorted(recipe.stages.items()) if key != 103)]


def _card(
    dataset: DatasetId,
    weights: StateDict,
    description: Mapping[str, Any],
    *,
    plans: Mapping[str, Any],
    pool: Sequence[str],
    recipe: _Recipe,
) -> str:
    configuration = plans["configurations"][CONFIGURATION]
    real = [name.removeprefix("real_") for name in pool if name.startswith("real_")]
    parameters = sum({value.data_ptr(): value.numel() for value in weights.values()}.values()) / 1e6
    return _CARD.format(
        name=DATASET_NAMES[dataset],
        task=_TASKS[dataset],
        network=_NETWORKS[network_class(plans)],
        parameters=parameters,
        features=", ".join(map(str, configuration["architecture"]["arch_kwargs"]["features_per_stage"])),
        plans=plans["plans_name"],
        spacing=" x ".join(f"{step:g}" for step in configuration["spacing"]),
        patch=" x ".join(map(str, configuration["patch_size"])),
        classes=", ".join(f"`{label}`" for label in description["labels"] if label != "background"),
        maps=f"{len(pool) - len(real)} parametric spines" + "".join(f", `{name}`" for name in real),
        stages="\n".join(f"- {stage}" for stage in _stages_of(dataset, recipe)),
        axes=_AXES[dataset],
        note=_ALONE if dataset == 103 else _ONE_NETWORK,
        loss=_LOSSES[dataset],
        version=__version__,
        torch=torch.__version__.split("+")[0],
        real=_ATTRIBUTION if real else "",
        figures="\n".join(f"- {key}: {value}" for key, value in recipe.figures.items())
        or "`python benchmarks/evaluate_synthetic.py` prints the figures of the bundled models.",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the module; returns the exit code."""
    parser = argparse.ArgumentParser(description="Put trained synthetic models in the place of the bundled ones.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--figures", type=Path, help="JSON object of figures for the model cards")
    parser.add_argument("--earlier", nargs="*", default=[], metavar="LINE", help="trainings that these started from")
    parser.add_argument("--refinement", action="store_true", help="the refining network instead of the others")
    options = parser.parse_args(argv)
    figures = json.loads(options.figures.read_text()) if options.figures else None
    try:
        if options.refinement:
            sys.stdout.write(f"{publish_refinement(options.work_dir, options.destination, _ATTRIBUTION)}\n")
            return 0
        for item in publish(options.work_dir, options.destination, figures=figures, earlier=options.earlier):
            sys.stdout.write(f"{item.folder}: {item.size / 2**20:.1f} MB\n")
    except SpineAppError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
