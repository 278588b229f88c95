from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import DatasetError, MissingInputError, NothingSelectedError, OutputError
from totalspineseg_bids.training.cases import TrainingCase, find_cases, parse_name
from totalspineseg_bids.training.layouts import DATASET_NAMES
from totalspineseg_bids.training.prepare import prepare
from totalspineseg_bids.training.semantic import odd_disc_mask, semantic_map
from totalspineseg_bids.training.split import folds, held_out_persons

from .conftest import box_spine, image_of, write


def data(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


@pytest.fixture
def own(bids: Path, tmp_path: Path) -> Path:
    """A copy of the dataset that a test may change."""
    return Path(shutil.copytree(bids, tmp_path / "own"))


def labels_of(root: Path, subject: str, contrast: str = "T2w") -> Path:
    folder = root / "derivatives" / "labels" / subject / "anat"
    return folder / f"{subject}_seg-totalspineseg_desc-{contrast}_dseg.nii.gz"


def test_all_three_datasets(bids: Path, tmp_path: Path) -> None:
    summary = prepare([bids], tmp_path, test_fraction=0.25)
    assert summary.training + summary.test == 5
    assert summary.written == 5
    assert not summary.refused
    labels = box_spine()
    for dataset, folder in summary.folders.items():
        assert folder == tmp_path / "nnUNet_raw" / DATASET_NAMES[dataset]
        description = json.loads((folder / "dataset.json").read_text())
        factor = 2 if dataset == 102 else 1
        assert description["numTraining"] == factor * summary.training == len(list((folder / "labelsTr").iterdir()))
        assert len(list((folder / "labelsTs").iterdir())) == factor * summary.test
        for files in description["dataset"].values():
            for path in (*files["images"], files["label"]):
                assert (folder / path).exists()
            assert len(files["images"]) == factor
        for path in folder.glob("labelsT?/*.nii.gz"):
            swap = path.name.endswith("_even.nii.gz")
            np.testing.assert_array_equal(data(path), semantic_map(labels, dataset, swap_parity=swap))
            if dataset == 102:
                tag = path.parent.name[-2:]
                channel = folder / f"images{tag}" / path.name.replace(".nii.gz", "_0001.nii.gz")
                np.testing.assert_array_equal(data(channel), odd_disc_mask(labels, swap))


def test_rerun_keeps_what_is_complete_and_redoes_what_changed(own: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    prepare([own], work, datasets=(101,))
    again = prepare([own], work, datasets=(101,))
    assert (again.written, again.kept) == (0, 5)
    write(own / "sub-01" / "anat" / "sub-01_T2w.nii.gz", image_of(box_spine(), 99))
    changed = prepare([own], work, datasets=(101,))
    assert (changed.written, changed.kept) == (1, 4)
    shutil.rmtree(own / "sub-02")
    fewer = prepare([own], work, datasets=(101,))
    assert fewer.training + fewer.test == 4
    assert not list((work / "nnUNet_raw").rglob("*sub-02*"))


def test_orientation_and_resolution_of_the_source_do_not_matter(own: Path, tmp_path: Path) -> None:
    labels = box_spine()
    # The same place in space, stored from left to right and with the axes in another order.
    affine = np.array([[0, 0, -1, 23], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], float)
    turned = np.ascontiguousarray(labels[::-1].transpose(1, 2, 0))
    image = own / "sub-00" / "anat" / "sub-00_T2w.nii.gz"
    write(image, np.ascontiguousarray(data(image)[::-1].transpose(1, 2, 0)), affine)
    write(labels_of(own, "sub-00"), turned, affine)
    summary = prepare([own], tmp_path / "work", datasets=(103,), test_fraction=0)
    got = data(summary.folders[103] / "labelsTr" / "own_sub-00_T2w.nii.gz")
    np.testing.assert_array_equal(got, semantic_map(labels, 103))


def test_labels_on_a_grid_of_their_own(own: Path, tmp_path: Path) -> None:
    """Labels are often made on a resampled copy; here the image has 2 mm slices and the labels 1 mm."""
    fine = image_of(box_spine(), 0)
    thick = fine.reshape(12, 2, *fine.shape[1:]).mean(axis=1)
    affine = np.diag([2.0, 1, 1, 1])
    affine[0, 3] = 0.5
    write(own / "sub-00" / "anat" / "sub-00_T2w.nii.gz", thick, affine)
    summary = prepare([own], tmp_path / "work", datasets=(101,), test_fraction=0)
    assert not summary.refused
    got = data(summary.folders[101] / "labelsTr" / "own_sub-00_T2w.nii.gz")
    np.testing.assert_array_equal(got, semantic_map(box_spine(), 101))


def test_refusals_name_the_file(own: Path, tmp_path: Path) -> None:
    labels = box_spine()
    labels_of(own, "sub-00").unlink()
    moved = np.eye(4)
    moved[:3, 3] = (0, 0, 300)
    write(labels_of(own, "sub-01"), labels[:, :, :-1], moved)
    write(labels_of(own, "sub-02"), labels, moved)
    write(labels_of(own, "sub-03", "T1w"), np.where(labels == 39, 63, labels).astype(np.uint8))
    summary = prepare([own], tmp_path / "work", datasets=(101,))
    reasons = {refusal.image.name: refusal.reason for refusal in summary.refused}
    assert set(reasons) == {"sub-00_T2w.nii.gz", "sub-01_T2w.nii.gz", "sub-02_T2w.nii.gz", "sub-03_T1w.nii.gz"}
    assert "no label image" in reasons["sub-00_T2w.nii.gz"]
    assert "outside the image" in reasons["sub-01_T2w.nii.gz"]
    assert "another affine" in reasons["sub-02_T2w.nii.gz"]
    assert "label 63" in reasons["sub-03_T1w.nii.gz"]
    assert "totalspineseg" in reasons["sub-03_T1w.nii.gz"]
    table = (tmp_path / "work" / "nnUNet_raw" / DATASET_NAMES[101] / "prepared.tsv").read_text()
    assert table.count("\trefused\t") == 4


def test_cord_and_canal_masks_are_merged(own: Path, tmp_path: Path) -> None:
    labels = box_spine()
    levels = np.where(labels >= 200, np.where(labels > 201, labels, 0), labels).astype(np.uint8)
    write(labels_of(own, "sub-00"), levels)
    folder = labels_of(own, "sub-00").parent
    # As segmented: the canal mask includes the cord.
    write(folder / "sub-00_label-canal_desc-T2w_mask.nii.gz", np.isin(labels, (200, 201)).astype(np.uint8))
    write(folder / "sub-00_label-SC_desc-T2w_mask.nii.gz", (labels == anatomy.CORD_ID).astype(np.uint8))
    summary = prepare([own], tmp_path / "work", datasets=(101,), test_fraction=0)
    got = data(summary.folders[101] / "labelsTr" / "own_sub-00_T2w.nii.gz")
    np.testing.assert_array_equal(got, semantic_map(labels, 101))


def test_public_label_scheme(own: Path, tmp_path: Path) -> None:
    for path in (own / "derivatives").rglob("*.nii.gz"):
        write(path, anatomy.to_scheme(box_spine(), "totalspineseg"))
    summary = prepare([own], tmp_path / "work", datasets=(103,), label_scheme="totalspineseg", test_fraction=0)
    got = data(summary.folders[103] / "labelsTr" / "own_sub-00_T2w.nii.gz")
    np.testing.assert_array_equal(got, semantic_map(box_spine(), 103))


def test_errors(own: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such folder"):
        prepare([tmp_path / "nowhere"], tmp_path / "work")
    with pytest.raises(DatasetError, match="derivatives/other"):
        prepare([own], tmp_path / "work", labels_folder="derivatives/other")
    foreign = tmp_path / "foreign" / "nnUNet_raw" / DATASET_NAMES[101]
    foreign.mkdir(parents=True)
    (foreign / "dataset.json").write_text("{}")
    with pytest.raises(OutputError, match="not made here"):
        prepare([own], tmp_path / "foreign")
    for path in (own / "derivatives").rglob("*.nii.gz"):
        path.unlink()
    with pytest.raises(NothingSelectedError, match="usable labels"):
        prepare([own], tmp_path / "work")


@pytest.mark.parametrize(
    "label",
    [
        "sub-1_ses-a_T2w_label-spine_dseg.nii.gz",
        "sub-1_ses-a_space-resampled_T2w_label-spine_dseg.nii.gz",
        "sub-1_ses-a_seg-totalspineseg_desc-T2w_dseg.nii.gz",
        "sub-1_ses-a_desc-T2w_dseg.nii",
    ],
)
def test_label_names_that_are_found(label: str, tmp_path: Path) -> None:
    for name in ("sub-1_ses-a_T2w.nii.gz", "sub-1_ses-a_T1w.nii.gz", "sub-1_ses-a_acq-x_T2w.nii.gz"):
        (tmp_path / "sub-1" / "ses-a" / "anat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "sub-1" / "ses-a" / "anat" / name).touch()
    folder = tmp_path / "derivatives" / "labels" / "sub-1" / "ses-a" / "anat"
    folder.mkdir(parents=True)
    (folder / label).touch()
    (folder / "sub-1_ses-a_seg-levels_desc-T2w_dseg.nii.gz").touch()
    cases, refused = find_cases([tmp_path])
    assert [(case.image.name, case.labels.levels[0].name) for case in cases] == [("sub-1_ses-a_T2w.nii.gz", label)]
    assert len(refused) == 2


def test_bids_name() -> None:
    name = parse_name(Path("sub-1_acq-sag_space-x_T2w_label-SC_seg.nii.gz"))
    assert name.source_entities == {("sub", "1"), ("acq", "sag")}
    assert (name.source_suffix, name.suffix, name.get("label")) == ("T2w", "seg", "SC")


def cases_of(counts: dict[tuple[str, str], int]) -> list[TrainingCase]:
    out = []
    for (dataset, contrast), count in counts.items():
        for number in range(count):
            for session in range(1 + number % 2):
                case_id = f"{dataset}-{number}-{session}-{contrast}"
                out.append(TrainingCase(case_id, dataset, str(number), contrast, Path(case_id), None))  # type: ignore[arg-type]
    return out


def test_split_is_stratified_by_person_and_stable() -> None:
    cases = cases_of({("a", "T1w"): 40, ("b", "T2w"): 20, ("c", "T2w"): 7})
    test = held_out_persons(cases, 0.1, seed=1)
    assert test == held_out_persons(list(reversed(cases)), 0.1, seed=1)
    assert test != held_out_persons(cases, 0.1, seed=2)
    assert [sum(person[0] == name for person in test) for name in "abc"] == [4, 2, 1]
    more = held_out_persons(cases_of({("a", "T1w"): 50, ("b", "T2w"): 20, ("c", "T2w"): 7}), 0.1, seed=1)
    assert len(test & more) >= 5


def test_split_of_few_persons() -> None:
    assert len(held_out_persons(cases_of({("a", "T1w"): 2}), 0.1)) == 1
    assert held_out_persons(cases_of({("a", "T1w"): 1}), 0.5) == frozenset()
    assert held_out_persons(cases_of({("a", "T1w"): 9}), 0) == frozenset()
    with pytest.raises(ValueError, match="fraction"):
        held_out_persons([], 1.0)


def test_folds_do_not_tear_persons_apart() -> None:
    cases = cases_of({("a", "T1w"): 11, ("b", "T2w"): 4})
    splits = folds(cases)
    assert len(splits) == 5
    person = {case.case_id: case.person for case in cases}
    held_out: list[str] = []
    for split in splits:
        assert not {person[c] for c in split["train"]} & {person[c] for c in split["val"]}
        assert len(split["train"]) + len(split["val"]) == len(cases)
        held_out += split["val"]
    assert sorted(held_out) == sorted(person)
    assert len(folds(cases_of({("a", "T1w"): 3}))) == 3
