"""Take model folders out of folders and zips, and nothing else.

A zip is data from elsewhere: entries that point outside, links and absurd sizes are refused before anything is
written, and only the few files of a model are copied, never an archive as a whole.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from totalspineseg_bids.errors import ModelError, OutputError
from totalspineseg_bids.inference import folders
from totalspineseg_bids.models.roles import role_of

_MAX_ENTRIES = 20_000
_MAX_BYTES = 16 * 2**30
#: Weights hardly shrink; JSON does, but is small.
_MAX_RATIO = 100
_RATIO_MATTERS_FROM = 64 * 2**20
_EXTRAS = ("dataset_fingerprint.json", "README.md", "LICENSE", "MODEL_CARD.md")
_FILES = ("dataset.json", "plans.json", *_EXTRAS)
_ENCRYPTED = 0x1
#: What reading a damaged zip raises.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError)


def check_zip(path: Path) -> None:
    """Refuse a zip that could write outside of its folder or fill the disk.

    Raises
    ------
    ModelError
        If it is damaged, or an entry is absolute, climbs out, is a link or a device, is encrypted, or is given with
        an absurd size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, *_DAMAGED) as error:
        msg = f"{path} is not a readable zip ({error}); download or copy it again"
        raise ModelError(msg) from error
    if reason := _reason_to_refuse(entries):
        msg = f"{path} is refused: {reason}; get the model from its publisher"
        raise ModelError(msg)


def _reason_to_refuse(entries: list[zipfile.ZipInfo]) -> str | None:
    if len(entries) > _MAX_ENTRIES:
        return f"{len(entries)} entries"
    for entry in entries:
        parts = PurePosixPath(entry.filename).parts
        if entry.filename.startswith("/") or ".." in parts or re.search(r"[\\\0]|^[A-Za-z]:", entry.filename):
            return f"entry {entry.filename!r} points outside"
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            return f"entry {entry.filename!r} is a link or a device"
        if entry.flag_bits & _ENCRYPTED:
            return f"entry {entry.filename!r} is encrypted"
    size = sum(entry.file_size for entry in entries)
    packed = sum(entry.compress_size for entry in entries)
    if size > _MAX_BYTES or (size > _RATIO_MATTERS_FROM and size > _MAX_RATIO * max(packed, 1)):
        return f"it unpacks to {size / 2**30:.1f} GiB"
    return None


def copy_models(source: Path, target: Path) -> list[Path]:
    """Copy every model of a folder or zip into ``target/<DatasetNNN_name>/<Trainer>__<Plans>__<configuration>``.

    Only ``dataset.json``, ``plans.json``, one checkpoint a fold and a few documents are copied. A copy replaces what
    was there only when it is whole.

    Returns
    -------
    list of Path
        The model folders written.

    Raises
    ------
    ModelError
        If there is no model or the zip is refused.
    OutputError
        If the target cannot be written.
    """
    if source.is_file():
        check_zip(source)
    written: list[Path] = []
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".part-") as temporary:
            root = source if source.is_dir() else _unpack(source, Path(temporary) / "zip" / source.name)
            models = [model for model in folders.find_model_folders(root) if folders.is_full_resolution_3d(model)]
            if not models:
                what = "dataset.json, plans.json and fold_X/checkpoint_final.pth"
                msg = f"no nnU-Net 3d_fullres model in {source} ({what})"
                raise ModelError(msg)
            for model in models:
                final = target / _dataset_name(model) / _model_name(model)
                copy = Path(temporary) / final.name
                _copy_model(model, copy)
                final.parent.mkdir(exist_ok=True)
                shutil.rmtree(final, ignore_errors=True)
                copy.replace(final)
                written.append(final)
    except OSError as error:
        msg = f"cannot write models to {target}: {error}"
        raise OutputError(msg) from error
    return written


def _unpack(source: Path, folder: Path) -> Path:
    """Unpack the files that may be of a model, and return the folder."""
    names = {*_FILES, *folders.CHECKPOINT_NAMES}
    folder.mkdir(parents=True)
    try:
        # zipfile checks each member's checksum while it is read to its end.
        with zipfile.ZipFile(source) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if PurePosixPath(name).name in names])
    except _DAMAGED as error:
        msg = f"{source} cannot be read ({error}); download or copy it again"
        raise ModelError(msg) from error
    return folder


def _dataset_name(model: Path) -> str:
    found: list[str] = re.findall(r"Dataset\d{3,4}_[\w.-]+", str(model))
    if found:
        return found[-1]
    role = role_of(folders.read_json(model / "dataset.json"))
    return f"Dataset_{role.value}" if role else "Dataset_other"


def _model_name(model: Path) -> str:
    name = model.name
    return name if len(name.split("__")) == 3 and re.fullmatch(r"[\w.-]+", name) else "Trainer__Plans__3d_fullres"


def _copy_model(model: Path, target: Path) -> None:
    target.mkdir(parents=True)
    files = [model / name for name in _FILES]
    for file in (*files, *folders.fold_checkpoints(model)):
        if file.is_file():
            copy = target / file.relative_to(model)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, copy)


def zips_with_models(path: Path) -> list[Path]:
    """Return the zips directly inside a folder, as downloaded and not unpacked; none for anything but a folder."""
    return sorted(path.glob("Dataset*.zip")) if path.is_dir() else []
