"""Put a trained refining network in its place among the bundled models, stripped, with a model card."""

from __future__ import annotations

from pathlib import Path

import torch

from totalspineseg_bids import __version__
from totalspineseg_bids.errors import ModelError
from totalspineseg_bids.inference.checkpoint import read_checkpoint
from totalspineseg_bids.inference.folders import read_json
from totalspineseg_bids.models.verify import write_manifest
from totalspineseg_bids.training.synthetic.bundle import put_in_place
from totalspineseg_bids.training.synthetic.refinement_training import DATASET_NAME, INFERENCE_PATCH, model_folder
from totalspineseg_bids.training.synthetic.small_plans import CONFIGURATION

_CARD = """# Model card: {name}

**For trying out and for tests.** These weights never saw a real image in training. Do not use them for research
results; install a public release instead (`totalspineseg-tools models install`).

| | |
|---|---|
| Task | {task} |
| Network | {network}, {parameters:.2f} M parameters |
| Input | {inputs} |
| Voxels | 1 mm, patches of {patch} voxels (superior-inferior, posterior-anterior, left-right) |
| Classes | `vertebrae` (with the sacrum), `disc`, `canal`, `cord`; `vertebrae_O`, `vertebrae_E` (landmarks too) |
| Training images | {cases} {images} |
| Optimiser | AdamW, peak learning rate {learning_rate}, polynomial decay; a running average of the weights is kept |
| Loss | Dice (smoothed) + binary cross-entropy + that of odd against even in bone, in patches around bone and discs |
| Made with | totalspineseg_bids {version}, torch {torch} |

## Training

- {steps} steps of {batch_size} patches in {minutes:.0f} minutes{reduced}, seed {seed}
- loss at the end {loss:.3f}{start}

It is trained for the step 2 beside it: after a training of step 2 it is to be trained anew.

## Data and licences

Parametric spines are made by `totalspineseg_bids.synthesis` from code alone. {real}

## What it reaches

`python benchmarks/evaluate_synthetic.py` prints the figures of the bundled models.

## Limits

- What step 2 has not found it does not find: it moves borders by a few millimetres.
- Contrast and anatomy are those of a generator.

## How to repeat

`make refinement` (with `LABEL_MAPS=<folder>` for the maps of real anatomy, and `FROM_SHIPPED=1` to start from what is
in place).
"""

_TASK = (
    "moves the borders of the vertebrae, discs, canal and cord that the bundled step 2 found, and tells odd from even "
    "vertebrae again; names nothing"
)
_NETWORK = (
    "stages of {features} features with {blocks} residual convolutions on the way down and one on the way up, "
    "2 x 2 x 2 voxels taken as channels of one (this package's `LocalNetwork`)"
)
_INPUTS = (
    "the image; the logits of step 2, those of tissues with a third of step 1's; the image measured by the mean and "
    "spread of bone, disc, canal and what is around them within some 8 mm (`segmentation/refinement.py`)"
)
_IMAGES = (
    "synthetic images of all fields of view and contrasts, in a random domain of their own, with what the bundled "
    "steps 1 and 2 make of them"
)


def publish_refinement(work_dir: Path, destination: Path, attribution: str) -> Path:
    """Strip the trained refining network of a work folder into a folder of bundled models.

    Parameters
    ----------
    work_dir
        That of `refinement_training.train_refinement`.
    destination
        Folder of bundled models; a refining network that is there is replaced.
    attribution
        Of the maps of real anatomy, where it saw some.

    Returns
    -------
    Path
        Its folder.

    Raises
    ------
    ModelError
        If none was trained, or it is larger than 15 MB.
    """
    source = model_folder(work_dir)
    file = source / "fold_all" / "checkpoint_final.pth"
    if not file.is_file():
        msg = f"{work_dir} holds no refining network; run `totalspineseg-tools train-refinement {work_dir}` first"
        raise ModelError(msg)
    checkpoint = read_checkpoint(file)
    state = checkpoint["refinement"]
    arguments = read_json(source / "plans.json")["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    stages = {name: ", ".join(map(str, arguments[name])) for name in ("features", "blocks")}
    card = _CARD.format(
        name=DATASET_NAME,
        task=_TASK,
        network=_NETWORK.format(**stages),
        inputs=_INPUTS,
        images=_IMAGES,
        parameters=sum(value.numel() for value in checkpoint["network_weights"].values()) / 1e6,
        patch=" x ".join(map(str, INFERENCE_PATCH)),
        cases=state["cases"],
        learning_rate=state["learning_rate"],
        version=__version__,
        torch=torch.__version__.split("+")[0],
        steps=state["step"],
        batch_size=state["batch_size"],
        minutes=state["seconds"] / 60,
        reduced=", computing in bfloat16" if state.get("bfloat16") else "",
        seed=state["seed"],
        loss=state["loss"],
        start=f"\n- it started from a refining network with fewer stages or as many, trained for {state['start']}"
        if state.get("start")
        else "",
        real=attribution if state["real_maps"] else "",
    )
    published = put_in_place(source, destination, DATASET_NAME, card)
    write_manifest(destination)
    return published.folder
