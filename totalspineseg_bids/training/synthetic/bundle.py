"""Publish trained models among the bundled ones: stripped to what inference needs, each with a model card.

``python -m totalspineseg_bids.training.synthetic.bundle WORK_DIR DESTINATION [--figures summary.json]``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from totalspineseg_bids import __version__
from totalspineseg_bids.errors import ModelError, SpineAppError
from totalspineseg_bids.inference.checkpoint import StateDict, read_checkpoint
from totalspineseg_bids.inference.folders import fold_checkpoints, read_json
from totalspineseg_bids.models.export import strip_checkpoint
from totalspineseg_bids.models.verify import write_manifest
from totalspineseg_bids.report.environment import make_environment
from totalspineseg_bids.training.class_maps import DATASET_NAMES, DatasetId, dataset_json
from totalspineseg_bids.training.synthetic import refinement_training
from totalspineseg_bids.training.synthetic.label_map_pool import read_pool
from totalspineseg_bids.training.synthetic.options import describe, finished, model_folder_name, pool_folder
from totalspineseg_bids.training.synthetic.small_plans import CONFIGURATION, SUBVOXEL, network_class, write_model_folder
from totalspineseg_bids.training.synthetic.warm_start import is_image_kernel

#: Weights that ship must not be larger than this, bytes.
SIZE_LIMIT_MB = 15.0
_STEPS: tuple[DatasetId, ...] = (101, 102)
_STEP2_CHANNELS = 2


def put_in_place(source: Path, destination: Path, name: str, card: str) -> Path:
    """Strip a model and replace the published one atomically.

    Parameters
    ----------
    source : Path
        nnU-Net's model folder (``<trainer>__<plans>__<configuration>``).
    destination : Path
        Folder of bundled models.
    name : str
        Of the dataset's folder there; what is there of this name is replaced.
    card : str
        Text of the model card.

    Raises
    ------
    ModelError
        If the stripped model is larger than 15 MB.
    """
    destination.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination, prefix=f".{name}.") as folder:
        ready = Path(folder) / "ready"
        for checkpoint in fold_checkpoints(source):
            stripped = ready / source.name / checkpoint.parent.name / "checkpoint_final.pth"
            stripped.parent.mkdir(parents=True)
            strip_checkpoint(checkpoint, stripped)
        for file in ("dataset.json", "plans.json"):
            shutil.copyfile(source / file, ready / source.name / file)
        if (size := _megabytes(ready)) > SIZE_LIMIT_MB:
            msg = f"{name} is {size:.1f} MB stripped, over the limit of 15 MB; train a smaller network"
            raise ModelError(msg)
        (ready / "MODEL_CARD.md").write_text(card, encoding="utf-8")
        shutil.rmtree(destination / name, ignore_errors=True)
        ready.replace(destination / name)
    return destination / name


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def _render_card(template: str, **values: Any) -> str:  # noqa: ANN401
    cards = make_environment("totalspineseg_bids.training.synthetic", "cards", autoescape=False)  # Markdown
    card = cards.get_template(f"{template}.md.j2")
    return card.render(version=__version__, torch=torch.__version__.split("+")[0], **values) + "\n"


def step1_of_step2(weights: StateDict) -> StateDict:
    """Extract the network of step 1 from one trained for step 2 with and without its odd discs.

    Without odd discs the second input channel is zero, so leaving out its weights changes nothing; the regions of
    step 1 are among those of step 2, so their outputs are picked.

    Parameters
    ----------
    weights : StateDict
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
        elif is_image_kernel(name):
            cut[name] = value[:, : value.shape[1] // _STEP2_CHANNELS]
        else:
            cut[name] = value
    return cut


def publish(
    work_dir: Path, destination: Path, *, figures: Mapping[str, Any] | None = None, earlier: Sequence[str] = ()
) -> list[Path]:
    """Strip the trained models of a work folder into a folder of bundled models.

    Where step 2 is trained, step 1 is cut out of it (`step1_of_step2`); else it is the network trained for step 1.

    Parameters
    ----------
    work_dir : Path
        That of ``synthetic_training.train_bundled``.
    destination : Path
        Folder that gets one ``Dataset10X_…`` folder a model; what is there of the same name is replaced.
    figures : mapping of str to Any, optional
        Figures for the model cards, name -> value.
    earlier : sequence of str, optional
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
    checkpoints = {
        dataset: {**read_checkpoint(file), "architecture": _architecture(file.parent.parent)}
        for dataset, file in trained.items()
    }
    stages = {
        dataset: f"Dataset{dataset}: {_stage(dataset, checkpoint)}" for dataset, checkpoint in checkpoints.items()
    }
    if 102 in checkpoints:
        weights = step1_of_step2(checkpoints[102]["network_weights"])
        checkpoints[101] = {**checkpoints[102], "network_weights": weights}
    published = []
    for dataset, checkpoint in sorted(checkpoints.items()):
        steps = [stage for key, stage in sorted(stages.items()) if key != 103]
        own = [stages[103]] if dataset == 103 else [*earlier, *steps]
        pool = pool_folder(work_dir, dataset)
        published.append(_publish_one(dataset, checkpoint, pool, destination, stages=own, figures=figures or {}))
    write_manifest(destination)
    return published


def _stage(dataset: DatasetId, checkpoint: Mapping[str, Any]) -> str:
    state = checkpoint["synthetic"]
    # The classes of the level prior are not regions, so its loss has no such term.
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
    """Merge tensors of equal content: nnU-Net lists most under several names, which averaging copies."""
    known: dict[tuple[torch.Size, bytes], torch.Tensor] = {}
    result: StateDict = {}
    for name, value in weights.items():
        content = hashlib.sha256(value.contiguous().numpy().tobytes()).digest()
        result[name] = known.setdefault((value.shape, content), value)
    return result


def _architecture(folder: Path) -> dict[str, Any]:
    """Return the arguments of the network class in the plans of a model folder."""
    plans = read_json(folder / "plans.json")
    return dict(plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"])


def _publish_one(
    dataset: DatasetId,
    checkpoint: dict[str, Any],
    pool_of: Path,
    destination: Path,
    **card_values: Any,  # noqa: ANN401
) -> Path:
    name = DATASET_NAMES[dataset]
    pool = sorted(Path(entry.path).stem for entry in read_pool(pool_of))
    weights = _shared(checkpoint["network_weights"])
    features, convolutions = (checkpoint["architecture"][key] for key in ("features_per_stage", "n_conv_per_stage"))
    description, plans = describe(dataset, len(pool), features=tuple(features), convolutions=convolutions[0])
    kept = {key: checkpoint[key] for key in ("trainer_name", "inference_allowed_mirroring_axes")}
    with tempfile.TemporaryDirectory(prefix=f"{name}.") as folder:
        source = Path(folder) / model_folder_name(dataset)
        write_model_folder(source, description, plans, network_weights=weights, **kept)
        configuration = plans["configurations"][CONFIGURATION]
        real_maps = [entry.removeprefix("real_") for entry in pool if entry.startswith("real_")]
        card = _render_card(
            "segmentation",
            dataset=dataset,
            name=name,
            pixel_shuffle=network_class(plans) == SUBVOXEL,
            parameters=sum({value.data_ptr(): value.numel() for value in weights.values()}.values()) / 1e6,
            features=configuration["architecture"]["arch_kwargs"]["features_per_stage"],
            plans=plans["plans_name"],
            spacing=[f"{step:g}" for step in configuration["spacing"]],
            patch=configuration["patch_size"],
            classes=[label for label in description["labels"] if label != "background"],
            parametric_spines=len(pool) - len(real_maps),
            real_maps=real_maps,
            **card_values,
        )
        return put_in_place(source, destination, name, card)


def publish_refinement(work_dir: Path, destination: Path) -> Path:
    """Strip the trained refinement network of a work folder into a folder of bundled models.

    Parameters
    ----------
    work_dir : Path
        That of `refinement_training.train_refinement`.
    destination : Path
        Folder of bundled models; a refinement network that is there is replaced.

    Raises
    ------
    ModelError
        If none was trained, or it is larger than 15 MB.
    """
    source = refinement_training.model_folder(work_dir)
    file = source / "fold_all" / "checkpoint_final.pth"
    if not file.is_file():
        msg = f"{work_dir} holds no refinement network; run `totalspineseg-tools train-refinement {work_dir}` first"
        raise ModelError(msg)
    checkpoint = read_checkpoint(file)
    state = checkpoint["refinement"]
    arguments = _architecture(source)
    card = _render_card(
        "refinement",
        name=refinement_training.DATASET_NAME,
        features=arguments["features"],
        blocks=arguments["blocks"],
        parameters=sum(value.numel() for value in checkpoint["network_weights"].values()) / 1e6,
        patch=refinement_training.INFERENCE_PATCH,
        state={"bfloat16": False, "start": None, **state},
        real_maps=state["real_maps"],
    )
    published = put_in_place(source, destination, refinement_training.DATASET_NAME, card)
    write_manifest(destination)
    return published


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the module; returns the exit code."""
    parser = argparse.ArgumentParser(description="Publish trained models among the bundled ones.")
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("destination", type=Path)
    parser.add_argument("--figures", type=Path, help="JSON object of figures for the model cards")
    parser.add_argument("--earlier", nargs="*", default=[], metavar="LINE", help="trainings that these started from")
    parser.add_argument("--refinement", action="store_true", help="publish the refinement network only")
    options = parser.parse_args(argv)
    figures = json.loads(options.figures.read_text()) if options.figures else None
    try:
        published = (
            [publish_refinement(options.work_dir, options.destination)]
            if options.refinement
            else publish(options.work_dir, options.destination, figures=figures, earlier=options.earlier)
        )
        for folder in published:
            sys.stdout.write(f"{folder}: {_megabytes(folder):.1f} MB\n")
    except SpineAppError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
