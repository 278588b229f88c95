"""Corrections of readers: applied without the networks, kept by reruns, undone without a trace."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_spine import contents, make_dataset, tiny_image  # type: ignore[import-not-found]

from tests.columns import label_of
from totalspineseg_bids.bids.tables import format_table, read_table

IMAGE = "sub-01/anat/sub-01_T2w.nii.gz"
LABELS = "sub-01/anat/sub-01_seg-totalspineseg_desc-T2w_dseg"
POINTS = "sub-01/anat/sub-01_seg-levels_desc-T2w_dseg"
COLUMNS = ("image", "label", "correction", "scope", "map", "note")
BEFORE = {"vertebrae_L2", "vertebrae_L3", "vertebrae_L4", "disc_L2_L3", "disc_L3_L4", "spinal_cord", "spinal_canal"}


def table(path: Path, *rows: tuple[str, ...]) -> Path:
    path.write_text(format_table(COLUMNS, [dict(zip(COLUMNS, row, strict=False)) for row in rows]))
    return path


def names(out: Path) -> set[str]:
    return {row["name"] for row in read_table(out / f"{LABELS}.tsv")}


def values(path: Path) -> set[int]:
    return set(np.unique(nib.load(path).dataobj).tolist()) - {0}


def sidecar(out: Path) -> dict:
    return json.loads((out / f"{LABELS}.json").read_text())


@pytest.fixture
def done(tmp_path, process, segmenter):
    """A completed run of one image, its contents, and its output folder."""
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    assert process() == 0
    assert segmenter.calls == 1
    return tmp_path / "out", contents(tmp_path / "out")


#: Lines of the table, new levels, and values of the disc points.
KINDS = {
    "a column one level down": ([("column", "down")], "L3 L4 L5 L3-L4 L4-L5", {23, 24}),
    "a column one level up": ([("column", "up")], "L1 L2 L3 L1-L2 L2-L3", {21, 22}),
    "a disc, and the column follows": ([("L2-L3", "T12-L1", "column")], "T12 L1 L2 T12-L1 L1-L2", {20, 21}),
    "a vertebra, and those below follow": ([("L3", "L4", "below")], "L2 L4 L5 L2-L3 L4-L5", {22, 24}),
    "a vertebra alone": ([("vertebrae_L4", "L5")], "L2 L3 L5 L2-L3 L3-L4", {22, 23}),
    "a disc that is not there": ([("disc_L2_L3", "absent")], "L2 L3 L4 L3-L4", {23}),
    "a sacralised vertebra, after the column moved": (
        [("column", "down"), ("L5", "sacralised")],
        "L3 L4 S L3-L4 L5-S",
        {23, 25},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_correction_is_applied_without_the_networks_and_undone_without_a_trace(kind, process, done, segmenter):
    rows, expected, points = KINDS[kind]
    out, before = done
    file = table(out.parent / "corrections.tsv", *(("sub-01_T2w", *row) for row in rows))
    assert process(corrections=file) == 0
    assert segmenter.calls == 1
    assert names(out) == {label_of(level).name for level in expected.split()} | {"spinal_cord", "spinal_canal"}
    found = read_table(out / f"{LABELS}.tsv")
    assert values(out / f"{LABELS}.nii.gz") == {int(row["index"]) for row in found}
    assert values(out / f"{POINTS}.nii.gz") == points
    record = sidecar(out)
    assert record["Corrections"]["Files"] == ["corrections.tsv"]
    assert [(r["Label"], r["Correction"]) for r in record["Corrections"]["Rows"]] == [row[:2] for row in rows]
    assert record["LabelsDigest"] == json.loads(before[f"{LABELS}.json"])["LabelsDigest"]
    assert "corrected" in record["Flags"]
    corrected = contents(out)
    for again in ({"corrections": file}, {}):  # complete, also without the option: the sidecar keeps the corrections
        assert process(**again) == 0
        assert contents(out) == corrected
    (out / f"{LABELS}.nii.gz").unlink()
    assert process() == 0
    assert contents(out) == corrected
    table(file)
    assert process(corrections=file) == 0
    assert contents(out) == before
    assert segmenter.calls == 1


def test_what_a_correction_does_not_touch_keeps_its_bytes(done, tmp_path, process):
    out, before = done
    file = table(tmp_path / "corrections.tsv", ("sub-01_T2w", "column", "down"))
    assert process(corrections=file) == 0
    after = contents(out)
    probabilities = [name for name in before if "probseg" in name]
    assert probabilities
    assert all(after[name] == before[name] for name in [*probabilities, "sub-01/anat/sub-01_desc-T2w_uncorrected.npz"])
    rows = {row["name"]: row for row in read_table(out / f"{LABELS}.tsv")}
    former_table = out.parent / "former.tsv"
    former_table.write_bytes(before[f"{LABELS}.tsv"])
    former = {row["name"]: row for row in read_table(former_table)}
    for new, old in (("vertebrae_L3", "vertebrae_L2"), ("disc_L4_L5", "disc_L3_L4")):
        assert rows[new]["volume-mm3"] == former[old]["volume-mm3"]
        assert rows[new]["height-mm"] == former[old]["height-mm"]
        assert float(rows[new]["confidence"]) == 1
        assert rows[new]["reason"].startswith("corrected, was ")


def test_an_image_without_levels_is_named_from_one_disc(tmp_path, process, segmenter):
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image(undecided=True)})
    out = tmp_path / "out"
    assert process() == 0
    assert sidecar(out)["Status"] == "abstained"
    file = table(tmp_path / "corrections.tsv", ("sub-01_T2w", "D1?", "L2-L3", "column"))
    assert process(corrections=file) == 0
    assert names(out) == BEFORE
    assert sidecar(out)["Status"] == "labelled"
    assert values(out / f"{POINTS}.nii.gz") == {22, 23}
    assert segmenter.calls == 1


def test_a_disc_without_a_value_in_the_point_image_is_noted(done, process):
    out, _ = done
    file = table(out.parent / "corrections.tsv", ("sub-01_T2w", "L2-L3", "T12-T13", "column"))
    assert process(corrections=file) == 0
    assert {"vertebrae_T12", "vertebrae_T13", "vertebrae_L1"} <= names(out)
    assert values(out / f"{POINTS}.nii.gz") == {20}
    assert json.loads((out / f"{POINTS}.json").read_text())["LevelsWithoutValue"] == ["T12-T13"]
    assert "T13" in sidecar(out)["Flags"]


#: Line of the table and part of the message.
REFUSED = {
    "an unknown structure": (("sub-01_T2w", "T5", "T6"), "there is no T5 in the label map"),
    "two of one name": (("sub-01_T2w", "L2", "L3"), "two structures would be vertebrae_L3"),
    "another kind of structure": (("sub-01_T2w", "L2", "L1-L2"), "there is no vertebra L1-L2"),
    "an unknown level": (("sub-01_T2w", "L2", "L9"), "there is no vertebra L9"),
    "past the end": (("sub-01_T2w", "L3", "S", "column"), "above C1 or below the sacrum"),
    "another map": (("sub-01_T2w", "L2", "L1", "column", "0123456789ab"), "made for the label map 0123456789ab"),
    "another image": (("sub-09_T2w", "L2", "L1"), "there is no image sub-09_T2w"),
    "not the lowest": (("sub-01_T2w", "L3", "sacralised"), "not the lowest vertebra"),
    "an unknown scope": (("sub-01_T2w", "L2", "L1", "all"), "scope 'all' is not one of"),
    "no name": (("sub-01_T2w", "L2"), "correction is missing"),
}


@pytest.mark.parametrize(("name", "says"), [("empty.tsv", "is empty"), ("folder", "neither tables nor label maps")])
def test_files_without_any_content_undo_nothing(name, says, done, process, capsys):
    out, _ = done
    assert process(corrections=table(out.parent / "a.tsv", ("sub-01_T2w", "L2-L3", "L1-L2", "column"))) == 0
    before, path = contents(out), out.parent / name
    path.write_text("") if path.suffix else path.mkdir()
    assert process(corrections=path) == 64
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert contents(out) == before


@pytest.mark.parametrize("kind", REFUSED)
def test_a_correction_that_does_not_fit_is_refused_by_name_and_changes_nothing(kind, done, process, capsys):
    row, message = REFUSED[kind]
    out, before = done
    file = table(out.parent / "corrections.tsv", row)
    assert process(corrections=file) in {64, 65}
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert f"{file}: line 2" in error
    of_image, after = {name for name in before if name.startswith("sub-01/")}, contents(out)
    assert all(after[name] == before[name] for name in of_image)


def test_a_correction_of_another_map_is_refused_when_the_image_changes(done, tmp_path, process, segmenter):
    _, before = done
    digest = json.loads(before[f"{LABELS}.json"])["LabelsDigest"]
    file = table(tmp_path / "corrections.tsv", ("sub-01_T2w", "column", "down", "one", digest[:16]))
    assert process(corrections=file) == 0
    other = tiny_image()
    other[4:14, 12:22, 38] = 100
    image = nib.load(tmp_path / "raw" / IMAGE)
    nib.save(nib.Nifti1Image(other, image.affine), tmp_path / "raw" / IMAGE)
    assert process() == 65
    assert segmenter.calls == 2


@pytest.mark.parametrize("resolution", ["native", "1mm"])
def test_an_edited_map_replaces_the_labels(resolution, process, tmp_path, segmenter):
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image()})
    out = tmp_path / "out"
    settings = {"output_resolution": "both"}
    assert process(**settings) == 0
    before = contents(out)
    name = LABELS.replace("_desc", "_res-1mm_desc") if resolution == "1mm" else LABELS
    image = nib.load(out / f"{name}.nii.gz")
    edited = np.asarray(image.dataobj).copy()
    edited[edited == 19] = 18  # L4 is L5
    edited[edited == 205] = 0  # no disc
    edited[4:14, 12:22, 39] = 21  # L2 one voxel higher
    folder = tmp_path / "edits"
    path = folder / f"{name}.nii.gz"
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(edited, image.affine), path)
    table(folder / "corrections.tsv", ("sub-01_T2w", "L3-L4", "L4-L5"))
    with_folder = {"corrections": folder, **settings}
    assert process(**with_folder) == 0
    rows = {row["name"]: row for row in read_table(out / f"{LABELS}.tsv")}
    assert set(rows) == {*BEFORE - {"vertebrae_L4", "disc_L2_L3", "disc_L3_L4"}, "vertebrae_L5", "disc_L4_L5"}
    assert float(rows["vertebrae_L2"]["volume-mm3"]) == 11 * 100
    assert float(rows["vertebrae_L5"]["volume-mm3"]) == 10 * 100
    assert sidecar(out)["Manual"] is True
    corrected = contents(out)
    for again in (with_folder, settings):
        assert process(**again) == 0
        assert contents(out) == corrected
    path.unlink()
    table(folder / "corrections.tsv")
    assert process(**with_folder) == 0
    assert contents(out) == before
    assert segmenter.calls == 1


EDITS = {
    "another grid": (lambda data: data[1:], "of another grid"),
    "an unknown value": (lambda data: np.where(data == 19, 249, data), "the value 249 is no label"),
    "nothing": (lambda data: data * 0, "holds no label"),
}


@pytest.mark.parametrize("kind", EDITS)
def test_an_edited_map_that_does_not_fit_is_refused_by_name(kind, done, process, capsys):
    change, message = EDITS[kind]
    out, _ = done
    image = nib.load(out / f"{LABELS}.nii.gz")
    path = out.parent / "edits" / f"{Path(LABELS).name}.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)).astype(np.uint8), image.affine), path)
    assert process(corrections=path.parent) == 65
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error
    assert str(path) in error


def test_without_the_stored_result_the_networks_run_again(done, tmp_path, process, segmenter):
    out, before = done
    (out / "sub-01/anat/sub-01_desc-T2w_uncorrected.npz").unlink()
    assert process() == 0
    assert segmenter.calls == 2
    assert contents(out) == before


def test_the_group_counts_and_marks_corrected_images(tmp_path, process):
    make_dataset(tmp_path / "raw", {IMAGE: tiny_image(), IMAGE.replace("01", "02"): tiny_image(seed=1)})
    file = table(tmp_path / "corrections.tsv", ("sub-01_T2w", "column", "down"), ("sub-01_T2w", "L5", "absent"))
    assert process(corrections=file) == 0
    assert process("group") == 0
    rows = read_table(tmp_path / "out/group_images.tsv")
    assert [row["corrections"] for row in rows] == ["2", "n/a"]
    assert "corrected" in rows[0]["flags"]
    assert "<b>1</b><span>corrected</span>" in (tmp_path / "out/group.html").read_text()


def test_a_correction_made_in_the_page_is_applied_and_undone(done, process, segmenter, browser):
    out, before = done
    page = out / "sub-01.html"
    browser.open(page)
    browser.find(".correct summary").click()
    choose(browser, label="disc_L2_L3", name="T12-L1", scope="column")
    browser.find(".correct [data-part=note]").send_keys("last rib")
    browser.find(".correct [data-part=add]").click()
    choose(browser, label="vertebrae_L3", name="absent")
    browser.find(".correct [data-part=add]").click()
    assert [item.text for item in browser.all(".correct li")] == [
        "disc_L2_L3 is T12-L1, all levels follow (last rib) Remove",
        "vertebrae_L3 is absent Remove",
    ]
    browser.all(".correct li button")[1].click()
    browser.find(".correct [data-part=download]").click()
    file = browser.downloaded("sub-01_corrections.tsv")
    digest = json.loads(before[f"{LABELS}.json"])["LabelsDigest"]
    row = {"image": "sub-01_T2w", "label": "disc_L2_L3", "correction": "T12-L1", "scope": "column"}
    assert read_table(file) == [{**row, "map": digest[:16], "note": "last rib"}]
    assert process(corrections=file) == 0
    assert segmenter.calls == 1
    assert {"vertebrae_T12", "disc_T12_L1", "disc_L1_L2"} <= names(out)
    browser.open(page)
    assert "disc_L2_L3 is T12-L1, all levels follow (last rib)" in browser.find(".note.corrected").text
    assert "T12" in browser.find("table.levels").text
    browser.find(".correct summary").click()
    assert len(browser.all(".correct li")) == 1  # the applied correction stays in the next file
    browser.find(".correct li button").click()
    file.unlink()
    browser.find(".correct [data-part=download]").click()
    file = browser.downloaded("sub-01_corrections.tsv")
    assert process(corrections=file) == 0
    assert contents(out) == before
    assert browser.console() == []
    assert browser.requests() <= {"file", "data", "blob"}
    browser.run("localStorage.clear()")
    assert segmenter.calls == 1


def choose(browser, **parts: str) -> None:
    for part, value in parts.items():
        script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        browser.run(script, browser.find(f".correct [data-part={part}]"), value)
