import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.affines import from_matvec

from tests.images import data, save
from totalspineseg_bids import anatomy
from totalspineseg_bids.errors import DatasetError, MissingInputError, NothingSelectedError, OutputError, UsageError
from totalspineseg_bids.training.cases import TrainingCase, find_cases
from totalspineseg_bids.training.class_maps import DATASET_NAMES
from totalspineseg_bids.training.prepare import prepare
from totalspineseg_bids.training.semantic_targets import odd_disc_mask, semantic_map
from totalspineseg_bids.training.split import folds, held_out_persons

from .conftest import box_spine, image_of, turned, without


@pytest.fixture
def own(bids, tmp_path):
    """A copy of the dataset that a test may change."""
    return Path(shutil.copytree(bids, tmp_path / "own"))


def labels_of(root: Path, subject: str, contrast: str = "T2w") -> Path:
    folder = root / "derivatives" / "labels" / subject / "anat"
    return folder / f"{subject}_seg-totalspineseg_desc-{contrast}_dseg.nii.gz"


def image_file(root: Path) -> Path:
    return root / "sub-00" / "anat" / "sub-00_T2w.nii.gz"


def test_all_three_datasets(bids, tmp_path):
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


def test_test_cases_with_every_level(bids, tmp_path):
    summary = prepare([bids], tmp_path, datasets=(102,), test_fraction=0.25)
    images = sorted((tmp_path / "test" / "images").iterdir())
    assert len(images) == summary.test > 0
    for path in images:
        np.testing.assert_array_equal(data(tmp_path / "test" / "labels" / path.name), box_spine())
    prepare([bids], tmp_path, datasets=(102,), test_fraction=0)
    assert not list((tmp_path / "test").rglob("*.nii.gz"))


def test_rerun_keeps_what_is_complete_and_redoes_what_changed(own, tmp_path):
    def again():
        summary = prepare([own], tmp_path / "work", datasets=(101,))
        return summary.written, summary.kept, summary.training + summary.test

    assert again() == (5, 0, 5)
    assert again() == (0, 5, 5)
    save(own / "sub-01" / "anat" / "sub-01_T2w.nii.gz", image_of(box_spine(), 99))
    assert again() == (1, 4, 5)
    shutil.rmtree(own / "sub-02")
    assert again()[2] == 4
    assert not list((tmp_path / "work" / "nnUNet_raw").rglob("*sub-02*"))


def along_other_axes(own):
    """Image and labels stored along other axes."""
    for path in (image_file(own), labels_of(own, "sub-00")):
        save(path, *turned(data(path)))


def in_thick_slices(own: Path) -> None:
    """An image of 2 mm slices, with labels made on a copy of 1 mm."""
    fine = image_of(box_spine(), 0)
    affine = np.diag([2.0, 1, 1, 1])
    affine[0, 3] = 0.5
    save(image_file(own), fine.reshape(12, 2, *fine.shape[1:]).mean(axis=1), affine)


def with_masks_apart(own):
    """Levels in one file; canal (with the cord, as segmented) and cord in others."""
    path, labels = labels_of(own, "sub-00"), box_spine()
    parts = {"canal": (anatomy.CORD_ID, anatomy.CANAL_ID), "SC": (anatomy.CORD_ID,)}
    save(path, without(labels, *parts["canal"]))
    for name, ids in parts.items():
        save(path.with_name(f"sub-00_label-{name}_desc-T2w_mask.nii.gz"), np.isin(labels, ids).astype(np.uint8))


def in_public_ids(own: Path) -> None:
    save(labels_of(own, "sub-00"), anatomy.to_scheme(box_spine(), "totalspineseg"))


def of_echoes(own: Path) -> None:
    image = data(image_file(own))
    save(image_file(own), np.stack([image - 5, image + 5], axis=3))


@pytest.mark.parametrize("change", [along_other_axes, in_thick_slices, with_masks_apart, in_public_ids, of_echoes])
def test_how_the_source_is_stored_does_not_matter(own, tmp_path, change):
    before = data(image_file(own))
    change(own)
    summary = prepare([own], tmp_path / "work", datasets=(103,), label_scheme="auto", test_fraction=0)
    assert not summary.refused
    folder = summary.folders[103]
    np.testing.assert_array_equal(data(folder / "labelsTr" / "own_sub-00_T2w.nii.gz"), semantic_map(box_spine(), 103))
    if change is not in_thick_slices:
        np.testing.assert_allclose(data(folder / "imagesTr" / "own_sub-00_T2w_0000.nii.gz"), before, atol=1e-3)


#: T10 in one scheme, T5 in the other.
THORACIC = np.where(box_spine() > 0, 25, 0).astype(np.uint8)
MOVED = from_matvec(np.eye(3), (0, 0, 300))
REFUSED = {
    "no label image": (None, None, "seed", "no label image"),
    "another shape and place": (box_spine()[:, :, :-1], MOVED, "seed", "outside the image"),
    "another affine": (box_spine(), MOVED, "seed", "another affine"),
    "an id of the other scheme": (
        np.where(box_spine() == 39, 63, box_spine()).astype(np.uint8),
        None,
        "seed",
        "label 63.*totalspineseg",
    ),
    "ids of both schemes": (THORACIC, None, "auto", "fit both"),
    "an unknown id": (np.where(THORACIC > 0, 60, 0).astype(np.uint8), None, "auto", "label 60"),
    "content that was not fetched": ("annex", None, "seed", "not fetched"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_file(own, tmp_path, case):
    labels, affine, scheme, reason = REFUSED[case]
    path = image_file(own) if case == "content that was not fetched" else labels_of(own, "sub-00")
    path.unlink()
    if isinstance(labels, str):
        path.symlink_to("../../.git/annex/objects/aa/bb/SHA256E-s1--0.nii.gz")
    elif labels is not None:
        save(path, labels, affine)
    summary = prepare([own], tmp_path / "work", datasets=(101,), label_scheme=scheme)
    assert [refusal.image.name for refusal in summary.refused] == ["sub-00_T2w.nii.gz"]
    assert re.search(reason, summary.refused[0].reason)
    assert summary.training + summary.test == 4
    table = (tmp_path / "work" / "nnUNet_raw" / DATASET_NAMES[101] / "prepared.tsv").read_text()
    assert table.count("\trefused\t") == 1


#: Endings of the names that labels of sub-a_T2w may have.
LABEL_NAMES = (
    *("T2w_label-spine_dseg", "space-resampled_T2w_label-spine_dseg", "seg-totalspineseg_desc-T2w_dseg"),
    "desc-T2w_dseg",
)


def test_copies_of_other_contrast(bids, tmp_path):
    summary = prepare([bids], tmp_path, datasets=(101, 102), test_fraction=0.25, copies=2)
    for dataset, folder in summary.folders.items():
        factor = 2 if dataset == 102 else 1
        names = {path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir()}
        assert len(names) == factor * 3 * summary.training
        assert not list((folder / "labelsTs").glob("*aug*"))
        description = json.loads((folder / "dataset.json").read_text())
        assert description["numTraining"] == len(names)
        for split in json.loads((folder / "splits_final.json").read_text()):
            assert not any("aug" in name for name in split["val"])
            held_out, trained_on = (
                {re.split("_aug|_odd|_even", name)[0] for name in split[part]} for part in ("val", "train")
            )
            assert not held_out & trained_on
            assert set(split["train"]) < names
    images = summary.folders[101] / "imagesTr"
    original = sorted(path for path in images.iterdir() if "aug" not in path.name)[0]
    first, second = (data(images / original.name.replace("_0000", f"_aug{n}_0000")) for n in (1, 2))
    assert not np.allclose(first, data(original))
    assert not np.allclose(first, second)
    again = prepare([bids], tmp_path, datasets=(101, 102), test_fraction=0.25, copies=2)
    assert again.written == 0
    fewer = prepare([bids], tmp_path, datasets=(101, 102), test_fraction=0.25)
    assert fewer.written == fewer.training
    assert not list((tmp_path / "nnUNet_raw").rglob("*aug*"))


def test_numbers_by_structure(own, tmp_path):
    save(labels_of(own, "sub-00"), without(box_spine(), anatomy.vertebra("C5").id))
    for _ in range(2):  # counts of kept cases are those of made ones
        summary = prepare([own], tmp_path / "work", datasets=(101,), test_fraction=0)
        assert summary.levels["vertebrae_C4"] == (5, 0)
        assert summary.levels["vertebrae_C5"] == (4, 0)
    assert "vertebrae_C5\t4\t0" in (tmp_path / "work" / "prepared" / "levels.tsv").read_text()


def test_first_folder_of_labels_that_has_an_image(own, tmp_path):
    better = without(box_spine(), anatomy.vertebra("C5").id)
    name = "sub-00_T2w_space-resampled_label-spine_dseg.nii.gz"
    save(own / "derivatives" / "labels_iso" / "sub-00" / "anat" / name, better)
    cases, refused = find_cases([own], ["derivatives/labels_iso", "derivatives/labels"])
    assert not refused
    assert [case.labels.levels[0].parent.parent.parent.name for case in cases] == ["labels_iso", *["labels"] * 4]
    with pytest.raises(DatasetError, match="derivatives/x or derivatives/y"):
        find_cases([own], ["derivatives/x", "derivatives/y"])


def test_errors(own, tmp_path):
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


def empty_files(root: Path, images: Iterable[str], labels: Iterable[str]) -> None:
    for folder, names in (("sub-a/anat", images), ("derivatives/labels/sub-a/anat", labels)):
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / f"sub-a_{name}.nii.gz").touch()


@pytest.mark.parametrize("label", LABEL_NAMES)
def test_label_names_that_are_found(label, tmp_path):
    empty_files(tmp_path, ("T2w", "T1w", "acq-x_T2w"), (label, "seg-levels_desc-T2w_dseg"))
    cases, refused = find_cases([tmp_path])
    found = [(case.image.name, case.labels.levels[0].name) for case in cases]
    assert found == [("sub-a_T2w.nii.gz", f"sub-a_{label}.nii.gz")]
    assert len(refused) == 2


def test_what_public_datasets_keep_beside_the_labels_is_passed_over(tmp_path):
    """Names as in spine-generic's ``derivatives/labels`` of one subject."""
    labels = (
        *("T1w_PAM50_seg", "T1w_label-SC_seg", "T1w_label-canal_seg", "T1w_label-discs_dlabel", "T1w_label-spine_dseg"),
        *("T1w_labels-disc-manual", "T1w_seg-manual", "T1w_label-brain_dseg", "T1w_label-lesion_seg"),
        *("T2w_label-rootlets_dseg", "T2w_label-spine_dseg", "T2w_label-SC_seg", "space-other_T2w_label-SC_seg"),
        *("space-other_T2w_label-spine_dseg", "T2star_label-spine_dseg", "flip-1_mt-on_MTS_label-spine_dseg"),
    )
    empty_files(tmp_path, ("T1w", "T2w", "T2star", "flip-1_mt-on_MTS"), labels)
    cases, refused = find_cases([tmp_path])
    assert not refused
    found = {case.contrast: [path.name[6:].removesuffix(".nii.gz") for path in case.labels.paths] for case in cases}
    assert found == {
        "T1w": ["T1w_label-spine_dseg", "T1w_label-SC_seg", "T1w_label-canal_seg"],
        "T2w": ["T2w_label-spine_dseg", "T2w_label-SC_seg"],
        "T2star": ["T2star_label-spine_dseg"],
        "flip-1_mt-on_MTS": ["flip-1_mt-on_MTS_label-spine_dseg"],
    }


def test_two_masks_for_one_image_are_refused(tmp_path):
    empty_files(tmp_path, ("T2w",), ("T2w_label-spine_dseg", "T2w_label-SC_seg", "T2w_label-cord_mask"))
    _, refused = find_cases([tmp_path])
    assert "several label images fit: sub-a_T2w_label-SC_seg.nii.gz, sub-a_T2w_label-cord_mask" in refused[0].reason


def case_of(dataset, person, contrast, session=0):
    case_id = f"{dataset}-{person}-{session}-{contrast}"
    return TrainingCase(case_id, dataset, str(person), contrast, Path(case_id), None)


def test_traveller_stays_on_one_side(own, tmp_path):
    for seed in range(4):
        work = tmp_path / str(seed)
        other = Path(shutil.copytree(own, tmp_path / f"d{seed}" / "traveller"))
        summary = prepare([own, other], work, datasets=(101,), test_fraction=0.4, seed=seed, one_person=["traveller"])
        sides = {part for dataset, _, part in summary.strata if dataset == "traveller"}
        assert len(sides) == 1


def cases_of(counts):
    return [
        case_of(dataset, number, contrast, session)
        for (dataset, contrast), count in counts.items()
        for number in range(count)
        for session in range(1 + number % 2)
    ]


def test_split_is_stratified_by_person_and_stable():
    cases = cases_of({("a", "T1w"): 40, ("b", "T2w"): 20, ("c", "T2w"): 7})
    test = held_out_persons(cases, 0.1, seed=1)
    assert test == held_out_persons(list(reversed(cases)), 0.1, seed=1)
    assert test != held_out_persons(cases, 0.1, seed=2)
    assert [sum(person[0] == name for person in test) for name in "abc"] == [4, 2, 1]
    more = held_out_persons(cases_of({("a", "T1w"): 50, ("b", "T2w"): 20, ("c", "T2w"): 7}), 0.1, seed=1)
    assert len(test & more) >= 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.sampled_from(["T1w", "T2w", "T2star", "MTS"]), min_size=1), min_size=2, max_size=60),
    st.floats(0.05, 0.5),
    st.integers(0, 99),
)
def test_no_contrast_lacks_a_person(persons, fraction, seed):
    cases = [case_of(f"d{n % 2}", n, contrast) for n, contrasts in enumerate(persons) for contrast in contrasts]
    test = held_out_persons(cases, fraction, seed)
    assert 1 <= len(test) < len(persons)
    strata = {(case.dataset, case.contrast) for case in cases}
    # A person more than the share for each dataset and contrast at the very most.
    assert len(test) <= max(1, round(fraction * len(persons))) + len(strata)
    for stratum in strata:
        own = {case.person for case in cases if (case.dataset, case.contrast) == stratum}
        if len(test) < len(persons) - 1:
            assert len(own & test) > fraction * len(own) - 0.5 - 1e-9


def test_split_of_few_persons():
    for persons, fraction, held_out in ((2, 0.1, 1), (1, 0.5, 0), (9, 0, 0)):
        assert len(held_out_persons(cases_of({("a", "T1w"): persons}), fraction)) == held_out
    with pytest.raises(UsageError, match="share of the test set"):
        held_out_persons([], 1.0)


def test_folds_do_not_tear_persons_apart():
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
