"""Damaged and hostile files give an error that names the file, or a result; nothing else happens.

``FUZZ_EXAMPLES`` is the number of inputs a test (``make fuzz``); by default a short run.
"""

import io
import json
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from totalspineseg_bids.app.group_inputs import read_norms, read_ratings
from totalspineseg_bids.bids.derivatives import read_derivatives
from totalspineseg_bids.bids.query import read_filters
from totalspineseg_bids.config import RunConfig, read_run_record, read_toml
from totalspineseg_bids.errors import MissingInputError, SpineAppError
from totalspineseg_bids.imaging.io import load_image, read_labels
from totalspineseg_bids.inference.checkpoint import read_checkpoint
from totalspineseg_bids.models import archive, roles

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    print_blob=True,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CELL = st.sampled_from(["", "n/a", "1", "-1e999", "nan", "pass", "sub-01", "L4", "é", "\x00", '"', "1,5"]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\t"), max_size=6
)

#: Names of zip entries, some of which point outside of the folder.
ENTRY = st.sampled_from(
    ["../evil", "/evil", "a/../../evil", "C:\\evil", "..\\evil", "Dataset101_x/../../evil/dataset.json", "x\0/evil"]
) | st.text(min_size=1, max_size=12)
SIDECAR = st.fixed_dictionaries(
    {"Digests": JSON, "Sources": st.just(["bids:raw:sub-01/anat/sub-01_T2w.nii.gz"]) | JSON},
    optional=dict.fromkeys(("Status", "Reason", "Flags", "InputNotes", "LevelsInView", "Model", "Figures"), JSON),
)
TABLES: list[tuple[Callable[[Path], Any], list[str]]] = [
    (lambda path: read_ratings(path, ["sub-01_T2w"]), ["image", "rating", "note"]),
    (read_norms, ["measure", "level", "mean", "sd", "sex"]),
]
RECORD = b"""bids_dir = "raw"
output_dir = "out"
analysis_level = "group"
suffix = ["T2w"]
n_cpus = 4

[record]
version = "0.1.0"
software = "numpy 2.4.6, torch 2.13.0"
"""


def damaged(content: bytes, header: int | None = None) -> st.SearchStrategy[bytes]:
    """Return copies of a file with changed bytes, a lost end, or bytes that do not belong to it."""
    place = st.integers(0, (header or len(content)) - 1)
    edits = st.lists(st.tuples(place, st.binary(min_size=1, max_size=8)), max_size=6)
    return st.builds(_damage, st.just(content), edits, st.integers(0, len(content)) | st.none(), st.binary(max_size=8))


def _damage(content: bytes, edits: list[tuple[int, bytes]], end: int | None, tail: bytes) -> bytes:
    changed = bytearray(content)
    for start, piece in edits:
        changed[start : start + len(piece)] = piece
    return bytes(changed[:end]) + tail


def nifti(dtype: type) -> bytes:
    image = nib.Nifti1Image(np.arange(6 * 5 * 4).reshape(6, 5, 4).astype(dtype), np.diag([2.0, 1, 1, 1]))
    return image.to_bytes()


def checkpoint() -> bytes:
    stream = io.BytesIO()
    torch.save({"network_weights": {"a.weight": torch.ones(2, 3)}, "init_args": {"configuration": "x"}}, stream)
    return stream.getvalue()


def model_zip(extra: dict[str, bytes] | None = None) -> bytes:
    stream = io.BytesIO()
    folder = "Dataset101_Spine/Trainer__Plans__3d_fullres"
    files = {
        f"{folder}/dataset.json": b'{"labels": {"background": 0, "disc": 1}, "channel_names": {"0": "MRI"}}',
        f"{folder}/plans.json": b'{"configurations": {"3d_fullres": {}}}',
        f"{folder}/fold_0/checkpoint_final.pth": b"weights",
    }
    with zipfile.ZipFile(stream, "w") as target:
        for name, content in {**files, **(extra or {})}.items():
            target.writestr(name, content)
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def read(reader: Callable[[Path], Any], path: Path) -> Any:
    """Return the reader's result; ``None`` for an error that names the file in one line."""
    try:
        return reader(path)
    except SpineAppError as error:
        message = str(error)
    assert path.name in message
    assert "\n" not in message
    return None


def check_image(loaded):
    assert loaded.volume.data.ndim == 3
    assert loaded.volume.data.dtype == np.float32
    assert np.isfinite(loaded.volume.data).all()
    assert np.isfinite(loaded.volume.affine).all()


def check_labels(labels):
    assert labels.data.dtype == np.uint8


def check_weights(checkpoint):
    assert all(torch.is_tensor(value) for value in checkpoint["network_weights"].values())


def check_filters(filters):
    assert isinstance(filters, dict)


def check_settings(settings_of_a_run):
    with suppress(SpineAppError):
        RunConfig.from_mapping(settings_of_a_run)


#: Reader of a kind of file, strategy for damaged files, and check of the result where the reader accepts the damage.
FILES = {
    "image.nii": (load_image, damaged(nifti(np.int16), header=352), check_image),
    "labels.nii": (read_labels, damaged(nifti(np.float32), header=352), check_labels),
    "checkpoint_final.pth": (read_checkpoint, damaged(checkpoint()), check_weights),
    "filter.json": (read_filters, st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode()), check_filters),
    "run.toml": (read_toml, damaged(RECORD) | st.binary(max_size=60), check_settings),
    "record.toml": (read_run_record, damaged(RECORD) | st.binary(max_size=60), lambda record: None),
}


@pytest.mark.parametrize("name", FILES)
@fuzz
@given(data=st.data())
def test_a_damaged_file_is_refused_by_name_or_read(folder, name, data):
    reader, contents, check = FILES[name]
    (folder / name).write_bytes(data.draw(contents))
    found = read(reader, folder / name)
    if found is not None:
        check(found)


@fuzz
@given(content=damaged(model_zip()) | st.builds(lambda name, data: model_zip({name: data}), ENTRY, st.binary()))
def test_zips_of_models_write_inside_the_target_only(folder, content):
    path, target = folder / "in/model.zip", folder / "in/target"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    read(lambda source: archive.copy_models(source, target), path)
    assert not [path for path in folder.rglob("*evil*") if target not in path.parents]
    assert {item.name for item in path.parent.iterdir()} <= {"model.zip", "target"}


@fuzz
@given(content=st.dictionaries(st.sampled_from(["labels", "channel_names", "regions_class_order"]) | st.text(), JSON))
def test_dataset_json_of_models(content):
    with suppress(SpineAppError):
        assert roles.role_of(content) in {None, *roles.Role}


@fuzz
@given(content=st.binary(max_size=40) | st.builds(lambda value: json.dumps(value).encode(), JSON | SIDECAR))
def test_sidecars(folder, content):
    anat = folder / "derivatives/sub-01/anat"
    anat.mkdir(parents=True, exist_ok=True)
    stem = "sub-01_seg-totalspineseg_desc-T2w_dseg"
    (anat / f"{stem}.json").write_bytes(content)
    (anat / f"{stem}.tsv").write_text("index\tname\n18\tvertebrae_L5\n")
    try:
        images = list(read_derivatives(folder / "derivatives"))
    except MissingInputError as error:  # the content looks like a placeholder of git-annex
        images = []
        assert stem in str(error)  # noqa: PT017
    for image in images:
        assert image.source.participant == "01"
        assert all(isinstance(flag, str) for flag in (*image.flags, *image.levels, image.model, image.status))
        assert isinstance(image.bundled, bool)
        assert all(isinstance(path, str) for path in image.figures.values())


@fuzz
@given(rows=st.lists(st.lists(CELL, max_size=5), max_size=4), data=st.data())
def test_tables(folder, rows, data):
    reader, header = data.draw(st.sampled_from(TABLES))
    text = "\n".join("\t".join(row) for row in [header, *rows])
    path = folder / "table.tsv"
    path.write_bytes(
        data.draw(st.sampled_from([text.encode(), text.encode("utf-16"), text.encode("cp1252", "replace")]))
    )
    read(reader, path)
