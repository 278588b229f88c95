"""Export of a trained model as a zip in nnU-Net's format.

The archive holds what inference needs (``dataset.json``, ``plans.json``, a checkpoint a fold) and what a reader wants
to know: the split, the list of training and test images, the curves, and the figures of validation and test. The same
model gives the same bytes.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from totalspineseg_bids.bids.tables import format_table, read_table
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.imaging.atomic import atomic_writer
from totalspineseg_bids.models.export import strip_checkpoint
from totalspineseg_bids.training.class_maps import DATASET_NAMES, DatasetId
from totalspineseg_bids.training.train import Fold, model_folder

#: Time stamp of every member, the earliest that a zip can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=_EPOCH)
    info.external_attr = 0o644 << 16
    archive.writestr(info, content, zipfile.ZIP_DEFLATED)


def _without_files(dataset_file: Path) -> bytes:
    """Return the ``dataset.json`` without its list of local paths."""
    content = json.loads(dataset_file.read_text())
    content.pop("dataset", None)
    return (json.dumps(content, indent=1) + "\n").encode()


def _list_of_images(prepared: Path) -> bytes:
    """Return the table of cases without the paths of this machine."""
    rows = [row for row in read_table(prepared) if row["part"] != "refused"]
    return format_table(("case", "dataset", "subject", "contrast", "part", "fold"), rows).encode()


def _without_paths(summary: bytes) -> bytes:
    """Return nnU-Net's summary of a validation with file names instead of paths."""
    content = json.loads(summary)
    for row in content.get("metric_per_case", []):
        for key in ("reference_file", "prediction_file"):
            if key in row:
                row[key] = Path(row[key]).name
    return (json.dumps(content, indent=1) + "\n").encode()


def _descriptions(folder: Path, raw: Path, checkpoints: dict[Fold, Path]) -> dict[str, bytes]:
    """Return all files but the checkpoints, by path in the model folder."""
    contents = {"dataset.json": _without_files(folder / "dataset.json")}
    contents["plans.json"] = (folder / "plans.json").read_bytes()
    if (raw / "splits_final.json").exists():
        contents["splits_final.json"] = (raw / "splits_final.json").read_bytes()
    if (raw / "prepared.tsv").exists():
        contents["dataset.tsv"] = _list_of_images(raw / "prepared.tsv")
    for number, path in checkpoints.items():
        curves = path.with_name("progress.png")
        if curves.exists():
            contents[f"fold_{number}/progress.png"] = curves.read_bytes()
        for part in ("validation", "test"):
            summary = path.parent / part / "summary.json"
            if summary.exists():
                contents[f"fold_{number}/{part}/summary.json"] = _without_paths(summary.read_bytes())
    return contents


def export_model(
    work_dir: Path,
    dataset: DatasetId,
    output: Path,
    *,
    plans: str = "default",
    trainer: str = "nnUNetTrainer",
    fold: Sequence[Fold] = (0,),
    checkpoint: str = "checkpoint_final.pth",
    strip: bool = True,
) -> Path:
    """Write a trained model to a zip in nnU-Net's export layout.

    Parameters
    ----------
    work_dir : Path
        Folder with ``nnUNet_results``.
    dataset : DatasetId
        101, 102 or 103.
    output : Path
        Zip file, or a folder that gets ``<dataset name>.zip``.
    plans, trainer, fold
        Which model; several folds become an ensemble.
    checkpoint : str, default 'checkpoint_final.pth'
        File to take from each fold, ``checkpoint_final.pth`` or ``checkpoint_best.pth``; it is
        ``checkpoint_final.pth`` in the archive.
    strip : bool, default True
        Leave out the optimiser's state, which training needs and inference does not, and store weights in half
        precision.

    Returns
    -------
    Path
        The zip file.

    Raises
    ------
    MissingInputError
        If the model or a fold of it was not trained.
    """
    folder = model_folder(work_dir, dataset, plans, trainer)
    checkpoints = {number: folder / f"fold_{number}" / checkpoint for number in fold}
    for path in (folder / "dataset.json", folder / "plans.json", *checkpoints.values()):
        if not path.exists():
            msg = f"{path}: not there; train this dataset, plans and fold to the end first"
            raise MissingInputError(msg)
    name = DATASET_NAMES[dataset]
    target = output if output.suffix == ".zip" else output / f"{name}.zip"
    root = f"{name}/{folder.name}"
    with (
        tempfile.TemporaryDirectory() as scratch,
        atomic_writer(target) as stream,
        zipfile.ZipFile(stream, "w") as archive,
    ):
        for place, content in _descriptions(folder, Path(work_dir) / "nnUNet_raw" / name, checkpoints).items():
            _add(archive, f"{root}/{place}", content)
        for number, path in checkpoints.items():
            stripped = Path(scratch) / "checkpoint_final.pth"
            if strip:
                strip_checkpoint(path, stripped)
            _add(archive, f"{root}/fold_{number}/checkpoint_final.pth", (stripped if strip else path).read_bytes())
    return target
