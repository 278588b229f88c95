"""``totalspineseg-tools synthesize``, ``prepare``, ``plan``, ``train``, ``export``, ``train-bundled`` and the like."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from totalspineseg_bids.anatomy import LABEL_SCHEMES
from totalspineseg_bids.cli.tools_common import (
    PROGRAM,
    Subparsers,
    add_subcommand,
    positive,
    say,
    scheme_name,
    whole_number,
)
from totalspineseg_bids.errors import ImageError

if TYPE_CHECKING:
    from totalspineseg_bids.training.class_maps import DatasetId

_DATASETS = (101, 102, 103)
_count = partial(whole_number, least=0)
_PLANS = ("default", "resenc-m", "resenc-l", "small")


def add_subcommands(subparsers: Subparsers) -> None:
    """Add them in the order in which they are used."""
    _add_synthesize(subparsers)
    _add_prepare(subparsers)
    _add_plan(subparsers)
    _add_train(subparsers)
    _add_export(subparsers)
    _add_train_bundled(subparsers)
    _add_train_refinement(subparsers)


def _fold(text: str) -> int | str:
    if text == "all":
        return text
    if text.isdigit():
        return int(text)
    msg = f"'{text}' is not a fold: 0 to 4 or 'all'"
    raise argparse.ArgumentTypeError(msg)


def _add_model_name(parser: argparse.ArgumentParser, *, trainer: bool = True, several: bool = False) -> None:
    parser.add_argument("work_dir", type=Path, metavar="WORK_DIR", help="folder of nnUNet_raw and what follows from it")
    if several:
        parser.add_argument(
            "datasets", type=_dataset, nargs="*", metavar="101|102|103", help="default: all that were prepared"
        )
    else:
        parser.add_argument("dataset", type=int, choices=_DATASETS, help="101 step 1, 102 step 2, 103 single step")
    parser.add_argument("--plans", choices=_PLANS, default="default", help="default: %(default)s")
    if trainer:
        parser.add_argument("--trainer", default="nnUNetTrainer", help="nnU-Net's trainer class (default: %(default)s)")


def _dataset(text: str) -> int:
    if text not in {str(dataset) for dataset in _DATASETS}:
        msg = f"'{text}' is no dataset: 101 step 1, 102 step 2, 103 single step"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _add_synthesize(subparsers: Subparsers) -> None:
    parser = add_subcommand(
        subparsers, "synthesize", _synthesize, "write a BIDS dataset of synthetic spine images with their truth"
    )
    parser.add_argument("output", type=Path, metavar="OUT_BIDS")
    parser.add_argument("--subjects", type=positive, required=True, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same files (default: %(default)s)")
    parser.add_argument(
        "--fov",
        dest="fields_of_view",
        nargs="+",
        metavar="NAME",
        help="whole, cervical, cervicothoracic, thoracolumbar, lumbar",
    )
    parser.add_argument(
        "--contrast", dest="contrasts", nargs="+", metavar="NAME", help="T1w, T2w, STIR, T2starw, random"
    )
    parser.add_argument("--label-maps", type=Path, metavar="DIR", help="pose these label maps, not parametric spines")
    parser.add_argument("--variants", action="store_true", help="some with 11 or 13 thoracic, 4 or 6 lumbar vertebrae")
    parser.add_argument(
        "--artefacts", action="store_true", help="some with ringing, wrap-around, hot pixels and others"
    )


def _synthesize(output: Path, subjects: int, **options: Any) -> None:
    from totalspineseg_bids.synthesis.dataset import write_dataset

    images = write_dataset(output, subjects, **options)
    say(f"{len(images)} images of {subjects} subjects in {output}")


def _add_prepare(subparsers: Subparsers) -> None:
    parser = add_subcommand(
        subparsers,
        "prepare",
        _prepare,
        "turn BIDS datasets with labels into nnU-Net's Dataset101, 102 and 103",
        "Images become RAS at 1 mm. Images whose labels are missing or lie elsewhere are left out, by name. A rerun "
        "goes on from what is complete.",
    )
    parser.add_argument("work_dir", type=Path, metavar="WORK_DIR", help="folder that gets nnUNet_raw")
    parser.add_argument("bids_dirs", type=Path, nargs="+", metavar="BIDS_DIR")
    parser.add_argument("--datasets", type=int, nargs="+", choices=_DATASETS, default=list(_DATASETS), metavar="ID")
    parser.add_argument(
        "--labels",
        dest="labels_folder",
        nargs="+",
        default=["derivatives/labels_iso", "derivatives/labels"],
        metavar="FOLDER",
        help="below each dataset; of several, the first with labels of an image (default: derivatives/labels_iso, "
        "derivatives/labels)",
    )
    parser.add_argument(
        "--label-scheme",
        type=scheme_name,
        choices=("auto", *LABEL_SCHEMES),
        default="auto",
        help="ids of the labels; auto looks at each file (default: %(default)s)",
    )
    parser.add_argument(
        "--test",
        dest="test_fraction",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the persons (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of split and copies (default: %(default)s)")
    parser.add_argument(
        "--copies",
        type=_count,
        default=0,
        metavar="N",
        help="copies of other contrast of each training image",
    )
    parser.add_argument(
        "--one-person",
        nargs="*",
        default=["data-single-subject"],
        metavar="NAME",
        help="dataset folders all of whose subjects are the same person (default: data-single-subject)",
    )
    parser.add_argument("--strict", action="store_true", help="fail if any image is left out")


def _prepare(bids_dirs: list[Path], work_dir: Path, strict: bool, **options: Any) -> None:
    from totalspineseg_bids.training.prepare import prepare

    summary = prepare(bids_dirs, work_dir, **options)
    for (dataset, contrast, part), count in sorted(summary.strata.items()):
        say(f"{dataset}  {contrast}  {part}: {count}")
    for refusal in summary.refused:
        say(f"left out: {refusal.image}: {refusal.reason}")
    say(
        f"{summary.training} images to train on, {summary.test} to test on, {len(summary.refused)} left out; "
        f"{summary.written} written now, {summary.kept} kept"
    )
    if options["copies"]:
        say(f"{options['copies']} copies of other contrast of each training image")
    rarest = sorted(summary.levels, key=lambda name: summary.levels[name][0])[:3]
    listed = ", ".join(f"{name} in {summary.levels[name][0]}" for name in rarest)
    say(f"{len(summary.levels)} structures, the rarest in training: {listed} (all: prepared/levels.tsv)")
    if strict and summary.refused:
        first = summary.refused[0]
        msg = f"{len(summary.refused)} images left out; the first: {first.image}: {first.reason}"
        raise ImageError(msg)


def _add_plan(subparsers: Subparsers) -> None:
    parser = add_subcommand(subparsers, "plan", _plan, "plan and preprocess a prepared dataset with nnU-Net")
    _add_model_name(parser, trainer=False)
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument(
        "--gpu-memory", dest="gpu_memory_gb", type=float, metavar="GB", help="memory to plan for (not with 'small')"
    )
    parser.add_argument("--patch", type=positive, nargs=3, metavar=("Z", "Y", "X"), help="of the small network, voxels")
    parser.add_argument(
        "--features", type=positive, nargs="+", metavar="N", help="channels a stage of the small network"
    )
    parser.add_argument("--batch-size", type=positive, default=2, metavar="N", help="of the small network")
    parser.add_argument("--force", action="store_true", help="plan and preprocess again")


def _plan(**options: Any) -> None:
    from totalspineseg_bids.training.plan import plan_and_preprocess

    say(f"planned and preprocessed: {plan_and_preprocess(**options)}")


def _add_train(subparsers: Subparsers) -> None:
    parser = add_subcommand(
        subparsers,
        "train",
        _train,
        "train a planned dataset with nnU-Net",
        "Plans and preprocesses the dataset first if necessary. A stopped training resumes from its last checkpoint. "
        "Loss and Dice are printed after each epoch and plotted in progress.png of the fold.",
    )
    _add_model_name(parser, several=True)
    parser.add_argument("--fold", type=_fold, default=0, metavar="0-4|all", help="default: %(default)s")
    parser.add_argument("--epochs", type=positive, metavar="N", help="default: 1000, as nnU-Net")
    parser.add_argument("--iterations", type=positive, metavar="N", help="steps an epoch (default: 250)")
    parser.add_argument(
        "--val-iterations",
        dest="validation_iterations",
        type=positive,
        metavar="N",
        help="validation steps an epoch (default: 50)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: %(default)s")
    parser.add_argument("--gpus", type=positive, default=1, metavar="N", help="GPUs to share the work (default: 1)")
    parser.add_argument("--workers", type=int, metavar="N", help="augmentation processes; 0 for none")
    parser.add_argument("--c", "--continue", dest="resume", action="store_true", default=True, help=argparse.SUPPRESS)
    parser.add_argument("--restart", dest="resume", action="store_false", help="start from scratch instead of resuming")
    parser.add_argument(
        "--no-validation", dest="validate", action="store_false", help="do not predict the held-out cases at the end"
    )
    parser.add_argument("--no-test", dest="test", action="store_false", help="do not predict the test cases at the end")


def _prepared(work_dir: Path) -> list[DatasetId]:
    """Return the datasets that a work folder has."""
    from totalspineseg_bids.training.class_maps import DATASET_NAMES, DATASETS
    from totalspineseg_bids.training.plan import raw_folder

    found = [d for d in DATASETS if (work_dir / "nnUNet_raw" / DATASET_NAMES[d] / "dataset.json").exists()]
    if not found:
        raw_folder(work_dir, DATASETS[0])  # says what to do
    return found


def _train(work_dir: Path, datasets: list[DatasetId], **options: Any) -> None:
    from totalspineseg_bids.training.plan import plan_and_preprocess, plans_file
    from totalspineseg_bids.training.predict_test_set import mean_dice
    from totalspineseg_bids.training.train import TrainOptions, train

    # Training redirects standard output, which nnU-Net fills; this stream is taken before.
    terminal = sys.stdout

    def show(line: str) -> None:
        terminal.write(line)
        terminal.flush()

    for dataset in datasets or _prepared(work_dir):
        if not plans_file(work_dir, dataset, options["plans"]).exists():
            say(f"planned and preprocessed: {plan_and_preprocess(work_dir, dataset, options['plans'])}")
        folder = train(TrainOptions(work_dir, dataset, **options), show)
        say(f"trained: {folder}")
        summary = folder / "test" / "summary.json"
        if summary.exists():
            say(f"test set: mean Dice of the regions {mean_dice(summary):.3f} ({summary})")


def _add_export(subparsers: Subparsers) -> None:
    parser = add_subcommand(subparsers, "export", _export, "write a trained model to a zip in nnU-Net's layout")
    _add_model_name(parser)
    parser.add_argument("output", type=Path, metavar="OUT", help="zip file, or folder for it")
    parser.add_argument("--fold", type=_fold, nargs="+", default=[0], metavar="0-4|all", help="several: an ensemble")
    parser.add_argument(
        "--best",
        dest="checkpoint",
        action="store_const",
        const="checkpoint_best.pth",
        default="checkpoint_final.pth",
        help="take checkpoint_best.pth instead of checkpoint_final.pth",
    )
    parser.add_argument("--full", dest="strip", action="store_false", help="keep optimiser state and full precision")


def _export(**options: Any) -> None:
    from totalspineseg_bids.training.export import export_model

    path = export_model(**options)
    say(f"exported: {path} (install it with: {PROGRAM} models install {path})")


def _add_train_bundled(subparsers: Subparsers) -> None:
    parser = add_subcommand(
        subparsers,
        "train-bundled",
        _train_bundled,
        "train a bundled model on synthetic images drawn on the fly",
        "A second call with the same work folder resumes the first.",
    )
    parser.add_argument("work_dir", type=Path, metavar="WORK_DIR")
    parser.add_argument("--dataset", type=int, choices=_DATASETS, required=True)
    parser.add_argument("--minutes", type=float, required=True, metavar="M", help="training time in all")
    parser.add_argument("--label-maps", type=Path, metavar="DIR", help="tissue label maps of real anatomy to use too")
    parser.add_argument("--spines", type=positive, metavar="N", help="parametric spines (default: 300; 600 for 103)")
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads")
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    parser.add_argument("--seed", type=int, metavar="S", help="of spines, patches and weights")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images a step (default: 1; a GPU wants more)")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that draw images (default: 1); 0 draws them on the GPU beside the training",
    )
    parser.add_argument("--learning-rate", type=float, metavar="R", help="peak of the schedule (default: 0.0015)")
    parser.add_argument(
        "--nested-weight",
        type=float,
        metavar="W",
        help="of the loss of regions within others (default: 0.1; 0 is none)",
    )
    parser.add_argument(
        "--features",
        type=positive,
        nargs=6,
        metavar="N",
        help="of each stage of 101 and 102 (default: 32 32 64 128 144 144)",
    )
    parser.add_argument("--convolutions", type=positive, metavar="N", help="in every stage of 101 and 102 (default: 2)")
    parser.add_argument("--start-from", type=Path, metavar="CHECKPOINT", help="take weights where they fit")


def _train_bundled(**options: Any) -> None:
    from totalspineseg_bids.training.synthetic.options import SyntheticTraining
    from totalspineseg_bids.training.synthetic.synthetic_training import train_bundled

    given = {name: value for name, value in options.items() if value is not None}
    say(f"trained: {train_bundled(SyntheticTraining(**given))}")


def _add_train_refinement(subparsers: Subparsers) -> None:
    parser = add_subcommand(
        subparsers,
        "train-refinement",
        _train_refinement,
        "train the network that refines what step 2 found",
        "Synthetic images are drawn, steps 1 and 2 of a model run on them, and the network learns what they missed. A "
        "second call with the same work folder resumes the first.",
    )
    parser.add_argument("work_dir", type=Path, metavar="WORK_DIR")
    parser.add_argument("--model", default="bundled", help="whose step 2 is refined (default: %(default)s)")
    parser.add_argument("--images", type=positive, default=72, metavar="N", help="to learn from (default: %(default)s)")
    parser.add_argument(
        "--steps", type=positive, default=8000, metavar="N", help="of training, two patches each (default: %(default)s)"
    )
    parser.add_argument("--label-maps", type=Path, metavar="DIR", help="tissue label maps of real anatomy to use too")
    parser.add_argument(
        "--start-from",
        type=Path,
        metavar="CHECKPOINT",
        help="refinement network with these stages, channels and outputs, or the first of them",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="CPU threads")
    parser.add_argument("--device", default="auto", help="of steps 1 and 2 (default: %(default)s)")
    parser.add_argument("--seed", type=_count, default=0, metavar="S", help="of images, patches and weights")


def _train_refinement(work_dir: Path, model: str, device: str, threads: int | None, **options: Any) -> None:
    from totalspineseg_bids.inference.options import InferenceOptions
    from totalspineseg_bids.models.registry import resolve
    from totalspineseg_bids.segmentation.networks import SegmentationNetworks
    from totalspineseg_bids.training.synthetic.refinement_training import train_refinement

    networks = SegmentationNetworks(
        resolve(model, need=("step1", "step2")),
        InferenceOptions(device=device, threads=threads, quality="best"),
        unrefined=True,
    )
    say(f"trained: {train_refinement(work_dir, networks, **options)}")
