import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import MissingInputError, OutputError, UsageError
from totalspineseg_bids.imaging.io import write_labels
from totalspineseg_bids.synthesis.dataset import EVALUATION_DOMAIN, TRAINING_DOMAIN, write_dataset

_VALIDATOR = Path(sys.executable).parent / "bids-validator-deno"
CHOICE = {"fields_of_view": ["cervical", "lumbar"], "contrasts": ["T2w", "STIR"]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    out = tmp_path_factory.mktemp("synthetic") / "bids"
    images = write_dataset(out, 2, 7, **CHOICE)
    return out, images


def _truth(out: Path, image: Path) -> Path:
    stem, suffix = image.name.removesuffix(".nii.gz").rsplit("_", 1)
    folder = out / "derivatives" / "labels" / image.parent.relative_to(out)
    return folder / f"{stem}_seg-spine_desc-{suffix}_dseg.nii.gz"


def _errors(folder: Path) -> list[str]:
    done = subprocess.run([_VALIDATOR, folder, "--json"], capture_output=True, text=True, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    return [f"{issue['code']} {issue.get('location')}" for issue in issues if issue.get("severity") == "error"]


def test_valid_bids(dataset):
    out, _ = dataset
    assert _errors(out) == []
    assert _errors(out / "derivatives" / "labels") == []


def test_truth_is_on_the_grid_of_its_image_and_shows_the_levels_of_its_field(dataset):
    out, images = dataset
    assert {path.name.split("acq-")[1][:6] for path in images} >= {"cervic", "lumbar"}
    for path in images:
        image, truth = nib.load(path), nib.load(_truth(out, path))
        assert image.shape == truth.shape
        assert np.array_equal(image.affine, truth.affine)
        assert truth.get_data_dtype() == np.uint8
        values, labels = np.asarray(image.dataobj, np.float32), np.asarray(truth.dataobj)
        # T2w and STIR: fluid is brighter than cord, which is only so where truth and image agree.
        assert np.median(values[labels == anatomy.CANAL_ID]) > 1.2 * np.median(values[labels == anatomy.CORD_ID])
        seen = set(np.unique(labels))
        assert seen <= {0, *(label.id for label in anatomy.LABELS)}
        inside, outside = (["C2", "C7"], "L1") if "acq-cervical" in path.name else (["L1", "L5", "S"], "C7")
        assert seen >= {anatomy.vertebra(level).id for level in inside}
        assert anatomy.vertebra(outside).id not in seen


def test_same_seed_same_bytes(dataset, tmp_path):
    out, images = dataset
    # The first subject does not depend on how many follow.
    again = write_dataset(tmp_path, 1, 7, **CHOICE)
    first = [path for path in images if "sub-001" in path.name]
    assert [path.name for path in again] == [path.name for path in first]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
        assert _truth(out, one).read_bytes() == _truth(tmp_path, two).read_bytes()


def test_label_maps_are_posed(spine, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    z = spine.data.shape[2]
    neck = spine.data[30:-30, 20:210, z - 250 :]
    affine = spine.affine.copy()
    write_labels(maps / "neck_1mm.nii.gz", np.ascontiguousarray(neck[::-1]), affine @ np.diag([-1.0, 1.0, 1.0, 1.0]))
    (maps / "labels.tsv").write_text("index\tname\n")
    images = write_dataset(tmp_path / "out", 1, 3, contrasts=["T1w"], label_maps=maps)
    assert all("acq-cervical" in path.name for path in images)
    seen = np.unique(np.asarray(nib.load(_truth(tmp_path / "out", images[0])).dataobj))
    assert anatomy.vertebra("C4").id in seen
    rows = (tmp_path / "out" / "participants.tsv").read_text().splitlines()
    assert rows == ["participant_id\tanatomy\tthoracic\tlumbar", "sub-001\tneck_1mm\tn/a\tn/a"]


@pytest.mark.parametrize(
    ("numbers", "options", "error", "message"),
    [
        ((0, 1), {}, UsageError, "at least 1"),
        ((1, -1), {}, UsageError, "negative"),
        ((1, 1), {"fields_of_view": ["knee"]}, UsageError, "unknown field of view: knee"),
        ((1, 1), {"contrasts": ["CT"]}, UsageError, "unknown contrast: CT"),
        ((1, 1), {"label_maps": Path(__file__).parent}, MissingInputError, "holds no label map"),
        ((1, 1), {"label_maps": Path("absent")}, MissingInputError, "holds no label map"),
    ],
)
def test_bad_arguments(numbers, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        write_dataset(tmp_path, *numbers, **options)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_dataset(tmp_path / "file" / "bids", 1, 1)


def test_training_seeds_are_never_dataset_seeds():
    training, dataset = (
        {tuple(np.random.SeedSequence(stream(s, n)).generate_state(4)) for s in (0, 2024) for n in range(50)}
        for stream in (lambda s, n: [TRAINING_DOMAIN + s, n], lambda s, n: [EVALUATION_DOMAIN, s, n])
    )
    assert not training & dataset
    assert TRAINING_DOMAIN + 10**9 < EVALUATION_DOMAIN


def test_stops_at_the_number_of_images_asked_for(tmp_path):
    images = write_dataset(tmp_path, 5, 7, fields_of_view=["lumbar"], contrasts=["T2w"], most_images=1)
    assert len(images) == 1
    assert len((tmp_path / "participants.tsv").read_text().splitlines()) == 2


def test_fewer_subjects_into_a_fuller_folder_leave_it_valid(dataset, tmp_path):
    out = shutil.copytree(dataset[0], tmp_path / "bids")
    before = (out / "participants.tsv").read_text()
    write_dataset(out, 1, 7, **CHOICE)
    assert (out / "participants.tsv").read_text() == before
    assert _errors(out) == []
    # A subject whose folder is gone is none of the dataset any more.
    shutil.rmtree(out / "sub-002")
    write_dataset(out, 1, 7, **CHOICE)
    assert "sub-002" not in (out / "participants.tsv").read_text()
