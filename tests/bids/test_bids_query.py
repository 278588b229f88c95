"""Selection of images by suffixes, labels and filters."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalspineseg_bids.bids.names import DerivativeNames, SourceImage, is_source_name
from totalspineseg_bids.bids.query import Selection, find_images, make_filter, read_filters
from totalspineseg_bids.errors import MissingInputError, NothingSelectedError, UsageError

FILES = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-01/anat/sub-01_T2w.nii",
    "sub-01/anat/sub-01_UNIT1.nii.gz",
    "sub-01/func/sub-01_task-rest_bold.nii.gz",
    "sub-010/anat/sub-010_T2w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-sag_run-1_T2w.nii.gz",
    "sub-02/ses-a/anat/sub-02_ses-a_acq-sag_run-2_T2w.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_acq-ax_T2w.nii.gz",
    "sub-02/ses-b/anat/sub-02_ses-b_T2w.nii.gz",
    "sub-03/anat/sub-03_part-mag_T2w.nii.gz",
    "sub-03/anat/sub-03_part-phase_T2w.nii.gz",
    "sub-03/anat/sub-03_weird_T2w.nii.gz",
    "derivatives/other/sub-01/anat/sub-01_desc-x_T2w.nii.gz",
    "sourcedata/sub-09/anat/sub-09_T2w.nii.gz",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in FILES:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(dataset: Path, **selection: object) -> list[str]:
    return [s.relative.rsplit("/", 1)[1] for s in find_images(dataset, Selection(**selection))]  # type: ignore[arg-type]


def test_anatomical_images_of_the_raw_dataset_only(dataset):
    assert names(dataset) == [
        "sub-01_T1w.nii.gz",
        "sub-01_T2w.nii",
        "sub-010_T2w.nii.gz",
        "sub-02_ses-a_acq-sag_run-1_T2w.nii.gz",
        "sub-02_ses-a_acq-sag_run-2_T2w.nii.gz",
        "sub-02_ses-b_T2w.nii.gz",
        "sub-02_ses-b_acq-ax_T2w.nii.gz",
        "sub-03_part-mag_T2w.nii.gz",
    ]


def test_labels_select_whole_names(dataset):
    assert names(dataset, participants=("01",)) == ["sub-01_T1w.nii.gz", "sub-01_T2w.nii"]
    assert names(dataset, participants=("010",)) == ["sub-010_T2w.nii.gz"]
    assert "sub-01_T1w.nii.gz" not in names(dataset, excluded=("01",))
    assert names(dataset, sessions=("b",)) == ["sub-02_ses-b_T2w.nii.gz", "sub-02_ses-b_acq-ax_T2w.nii.gz"]
    assert names(dataset, suffixes=("UNIT1",)) == ["sub-01_UNIT1.nii.gz"]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"t2w": {"acquisition": "sag", "run": 2}}, ["sub-02_ses-a_acq-sag_run-2_T2w.nii.gz"]),
        ({"t2w": {"acquisition": None}}, ["sub-02_ses-b_T2w.nii.gz"]),
        (
            {"T2w": {"acquisition": "*"}},
            [
                "sub-02_ses-a_acq-sag_run-1_T2w.nii.gz",
                "sub-02_ses-a_acq-sag_run-2_T2w.nii.gz",
                "sub-02_ses-b_acq-ax_T2w.nii.gz",
            ],
        ),
        ({"anat": {"acquisition": ["ax", "cor"]}}, ["sub-02_ses-b_acq-ax_T2w.nii.gz"]),
        ({"bold": {"task": "rest"}, "t2w": {"session": "b", "acquisition": None}}, ["sub-02_ses-b_T2w.nii.gz"]),
    ],
)
def test_filters_mean_what_they_mean_in_fmriprep(dataset, filters, expected):
    assert names(dataset, participants=("02",), filters=filters) == expected
    # The group level selects by name, without a query.
    chosen = make_filter(Selection(participants=("02",), filters=filters))
    assert [s.path.name for s in find_images(dataset, Selection()) if chosen(s)] == expected


def test_a_filter_may_add_a_query_or_ask_for_parts(dataset):
    assert "sub-01_UNIT1.nii.gz" in names(dataset, filters={"uni": {"suffix": "UNIT1"}})
    assert names(dataset, participants=("03",), filters={"t2w": {"part": "phase"}}) == ["sub-03_part-phase_T2w.nii.gz"]
    assert len(names(dataset, participants=("03",), filters={"phase": {"suffix": "T2w", "part": "phase"}})) == 2


def test_a_filter_that_no_image_of_its_suffix_matches_is_named(dataset, caplog):
    assert "sub-01_T2w.nii" not in names(dataset, filters={"t2w": {"subject": "sub-01"}, "both": {"suffix": ["T1w"]}})
    names(dataset, filters={"t2w": {"subject": "01"}, "pdw": {"session": "a"}})
    assert [r.message for r in caplog.records if "filters" in r.message] == [
        "no image matches the filters of t2w; values are written without the key, such as 01, not sub-01"
    ]


def test_a_filter_for_nothing_known_is_an_error(dataset):
    with pytest.raises(UsageError, match="names none of the suffixes"):
        names(dataset, filters={"t3w": {"acquisition": "sag"}})
    with pytest.raises(UsageError, match="not understood"):
        names(dataset, filters={"t2w": {"acquisitoin": "sag"}})
    with pytest.raises(UsageError, match="no entity acquisitoin"):
        make_filter(Selection(filters={"t2w": {"acquisitoin": None}}))


def test_filter_files_are_checked(tmp_path):
    path = tmp_path / "f.json"
    with pytest.raises(MissingInputError):
        read_filters(path)
    for text in ("{", "[]", '{"t2w": 3}', '{"t2w": {"run": {"a": 1}}}'):
        path.write_text(text)
        with pytest.raises(UsageError):
            read_filters(path)
    path.write_text(json.dumps({"t2w": {"run": [1, None]}}))
    assert read_filters(path) == {"t2w": {"run": [1, None]}}


def test_folders_named_like_images_are_found_so_that_they_can_be_told(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    for name in ("sub-01/anat/sub-01_T2w.nii.gz", "sub-02/ses-a/anat/sub-02_ses-a_T2w.nii", "sub-02/anat/x.nii.gz"):
        (tmp_path / name).mkdir(parents=True)
    assert names(tmp_path) == ["sub-01_T2w.nii.gz", "sub-02_ses-a_T2w.nii"]
    assert names(tmp_path, participants=("02",)) == ["sub-02_ses-a_T2w.nii"]
    with pytest.raises(NothingSelectedError):
        names(tmp_path, filters={"t2w": {"acquisition": "*"}})


def test_an_index_is_made_once_and_then_used(dataset, tmp_path):
    database = tmp_path / "index"
    first = find_images(dataset, Selection(participants=("02",)), database=database)
    assert (database / "layout_index.sqlite").is_file()
    assert find_images(dataset, Selection(participants=("02",)), database=database) == first
    whole = find_images(dataset, Selection(), database=database)
    assert [s.relative for s in whole] == [s.relative for s in find_images(dataset, Selection())]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    with pytest.raises(UsageError, match="is the index of"):
        find_images(tmp_path / "other", Selection(), database=database)


@pytest.mark.parametrize(
    ("relative", "valid"),
    [
        ("sub-01/anat/sub-01_T2w.nii.gz", True),
        ("sub-01/ses-1/anat/sub-01_ses-1_acq-a_T2w.nii", True),
        ("sub-01/anat/sub-02_T2w.nii.gz", False),
        ("sub-01/anat/sub-01_ses-1_T2w.nii.gz", False),
        ("sub-01/ses-1/anat/sub-01_T2w.nii.gz", False),
        ("sub-01/anat/sub-01_acq-a_acq-b_T2w.nii.gz", False),
        ("sub-01/anat/sub-01_acq_T2w.nii.gz", False),
        ("sub-01/sub-01_T2w.nii.gz", False),
        ("sub-01/anat/sub-01_T2w.mgz", False),
        ("../sub-01/anat/sub-01_T2w.nii.gz", False),
    ],
)
def test_source_names(relative, valid):
    assert is_source_name(relative) is valid


def source(relative: str) -> SourceImage:
    return SourceImage(relative, Path("/raw") / relative)


def test_derivatives_keep_the_entities_of_the_source():
    image = source("sub-02/ses-a/anat/sub-02_ses-a_acq-sag_run-1_chunk-2_T2w.nii.gz")
    assert (image.participant, image.session, image.suffix) == ("02", "a", "T2w")
    assert image.uri == f"bids:raw:{image.relative}"
    of = DerivativeNames.of(image)
    stem = "sub-02/ses-a/anat/sub-02_ses-a_acq-sag_run-1_chunk-2"
    assert of.labels(".nii.gz") == f"{stem}_seg-totalspineseg_desc-T2w_dseg.nii.gz"
    assert of.labels(".tsv", "1mm") == f"{stem}_seg-totalspineseg_res-1mm_desc-T2w_dseg.tsv"
    assert of.points(".nii.gz") == f"{stem}_seg-levels_desc-T2w_dseg.nii.gz"
    assert of.probability("SC", ".nii.gz") == f"{stem}_label-SC_desc-T2w_probseg.nii.gz"
    assert of.probability("canal", ".json", "1mm") == f"{stem}_res-1mm_label-canal_desc-T2w_probseg.json"
    assert of.figures == "sub-02/figures"


LABELS = st.text("abcXYZ019", min_size=1, max_size=4)


@given(
    a=st.tuples(LABELS, st.none() | LABELS, st.none() | LABELS, st.sampled_from(["T1w", "T2w"])),
    b=st.tuples(LABELS, st.none() | LABELS, st.none() | LABELS, st.sampled_from(["T1w", "T2w"])),
)
def test_different_images_have_different_derivatives(a, b):
    def make(parts: tuple) -> SourceImage:
        sub, ses, acq, suffix = parts
        folder = f"sub-{sub}" + (f"/ses-{ses}" if ses else "")
        entities = f"sub-{sub}" + (f"_ses-{ses}" if ses else "") + (f"_acq-{acq}" if acq else "")
        return source(f"{folder}/anat/{entities}_{suffix}.nii.gz")

    one, two = make(a), make(b)
    assert is_source_name(one.relative)
    same = DerivativeNames.of(one).labels(".json") == DerivativeNames.of(two).labels(".json")
    assert same == (one.relative == two.relative)
