"""The group level: tidy tables made from the derivatives alone."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from tiny_spine import make_dataset, tiny_image  # type: ignore[import-not-found]

from totalspineseg_bids.app.group_profiles import make_band_table, read_profiles, summarise_profiles
from totalspineseg_bids.bids.tables import read_table
from totalspineseg_bids.errors import MissingInputError
from totalspineseg_bids.measurement.levels import PROFILE_COLUMNS


@pytest.fixture
def done(tmp_path, process):
    raw = make_dataset(
        tmp_path / "raw",
        {
            "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz": tiny_image(seed=1),
            "sub-02/anat/sub-02_T2w.nii.gz": tiny_image(undecided=True),
            "sub-03/anat/sub-03_T2w.nii.gz": tiny_image(spine=False),
            "sub-04/anat/sub-04_T2w.nii.gz": tiny_image(seed=4),
        },
    )
    (raw / "sub-04/anat/sub-04_T2w.nii.gz").write_bytes(b"")
    assert process() == 65
    return raw


def test_results_made_in_different_ways_are_named(tmp_path, call, capsys):
    names = [f"sub-0{number}/anat/sub-0{number}_T2w.nii.gz" for number in (1, 2)]
    make_dataset(tmp_path / "raw", {name: tiny_image() for name in names})
    assert call("participant", "--export", "slicer", "itksnap") == call("group") == 0
    assert "several" not in capsys.readouterr().err
    assert call("participant", "--participant-label", "01", "--label-scheme", "totalspineseg") == call("group") == 0
    assert (
        "results of several label schemes (totalsegmri: 1 images, totalspineseg: 1 images)" in capsys.readouterr().err
    )
    # The tables for other programs follow the look-up table also where nothing is exported.
    for table in (tmp_path / "out").glob("seg-totalspineseg_dseg.*"):
        assert re.search(r"^\s*42\s.*L2", table.read_text(), re.MULTILINE), table.name


def test_tables_are_tidy_and_described(tmp_path, done, process):
    out = tmp_path / "out"
    shutil.rmtree(done)  # the raw data are not needed
    assert process("group") == 0
    images = read_table(out / "group_images.tsv")
    assert [(row["participant"], row["session"], row["status"]) for row in images] == [
        ("sub-01", "ses-a", "labelled"),
        ("sub-02", "n/a", "abstained"),
        ("sub-03", "n/a", "no-spine"),
        ("sub-04", "n/a", "failed"),
    ]
    assert images[0]["levels"] == "L2, L2-L3, L3, L3-L4, L4"
    assert images[0]["flags"] == "test-flag"
    assert images[1]["reason"] == "no landmark in view"
    assert "the file is empty" in images[3]["reason"]
    volumes = read_table(out / "group_volumes.tsv")
    keys = ["participant", "session", "image", "suffix", "structure", "level"]
    assert list(volumes[0])[:6] == keys
    assert {"volume", "height", "canal-area"} <= set(volumes[0])
    first = [row for row in volumes if row["participant"] == "sub-01"]
    assert {row["level"] for row in first} == {"L2", "L3", "L4", "L2-L3", "L3-L4", "n/a"}
    assert {row["structure"] for row in first} == {"vertebra", "disc", "spinal_cord", "spinal_canal"}
    assert next(row["volume"] for row in first if row["level"] == "L2-L3") == "300.0"
    assert all(row["level"] == "n/a" for row in volumes if row["participant"] == "sub-02")
    measures, wide = read_table(out / "group_measures.tsv"), read_table(out / "group_measures_wide.tsv")
    named = [row for row in measures if row["level"] == "L2-L3" and row["participant"] == "sub-01"]
    assert {row["measure"]: (row["value"], row["units"]) for row in named}["volume"] == ("300.0", "mm^3")
    assert all(row["value"] != "n/a" or row["note"] != "n/a" for row in measures)
    assert [row["image"] for row in wide] == [row["image"] for row in images]
    assert wide[0]["L2-L3_volume"] == "300.0"
    assert wide[1]["L2-L3_volume"] == "n/a"
    tables = {"group_images": images, "group_volumes": volumes, "group_measures": measures, "group_measures_wide": wide}
    for name, rows in tables.items():
        described = json.loads((out / f"{name}.json").read_text())
        assert list(described) == list(rows[0])
        assert all(entry["Description"] for entry in described.values())


def test_ratings_are_read_back(tmp_path, done, process, capsys):
    ratings = tmp_path / "ratings.tsv"
    head = "participant\tsession\timage\trating\tnote\n"
    lines = [
        "sub-01\tses-a\tsub-01_ses-a_T2w\tbad\tmoved",
        "sub-02\tn/a\tsub-02_T2w\tn/a\tnice",
        "x\tn/a\tgone\tgood\tn/a",
    ]
    ratings.write_text(head + "\n".join(lines) + "\n")
    assert process("group", qc_file=ratings) == 0
    images = read_table(tmp_path / "out" / "group_images.tsv")
    assert [(row["rating"], row["rating-note"]) for row in images[:3]] == [
        ("bad", "moved"),
        ("n/a", "nice"),
        ("n/a", "n/a"),
    ]
    assert "there is no image gone" in capsys.readouterr().err
    assert '"note":"moved"' in (tmp_path / "out" / "group.html").read_text()

    ratings.write_text(head + lines[0].replace("bad", "awful") + "\n")
    assert process("group", qc_file=ratings) == 64
    assert "ratings.tsv: line 2: rating 'awful'" in capsys.readouterr().err
    ratings.write_text("image\tmark\nx\tgood\n")
    assert process("group", qc_file=ratings) == 64
    ratings.write_bytes(b"\xff\xfe\x00")
    assert process("group", qc_file=ratings) == 66


@pytest.mark.parametrize("name", ["qc_file", "norms"])
def test_a_file_that_is_not_there_is_said_before_the_run(tmp_path, process, name):
    with pytest.raises(MissingInputError, match=r"gone\.tsv: no such file"):
        process("group", **{name: tmp_path / "gone.tsv"})


def test_norms_give_scores(tmp_path, done, process, capsys):
    (tmp_path / "raw" / "participants.tsv").write_text("participant_id\tsex\tage\nsub-01\tF\t40\n")
    norms = tmp_path / "norms.tsv"
    norms.write_text("measure\tlevel\tmean\tsd\tsex\nvolume\tL2-L3\t250\t20\tF\nvolume\tL3-L4\t250\t20\tM\n")
    assert process("group", norms=norms) == 0
    rows = read_table(tmp_path / "out" / "group_measures.tsv")
    scores = {row["level"]: row["z"] for row in rows if row["measure"] == "volume" and row["participant"] == "sub-01"}
    assert scores["L2-L3"] == "2.50"
    assert scores["L3-L4"] == "n/a"
    norms.write_text("measure\tlevel\tmean\nvolume\tL2-L3\t250\n")
    assert process("group", norms=norms) == 64
    assert "norms.tsv: no column sd" in capsys.readouterr().err
    norms.write_text("")
    assert process("group", norms=norms) == 64


def test_a_reference_group_is_drawn_and_one_that_is_not_there_is_refused(tmp_path, done, process, capsys):
    table = "participant_id\tsession_id\tgroup\nsub-01\tses-a\tcontrol\nsub-02\tn/a\tpatient\nsub-09\tn/a\tgone\n"
    (tmp_path / "raw" / "participants.tsv").write_text(table)
    assert process("group", reference="group=control") == 0
    page = (tmp_path / "out" / "group.html").read_text()
    assert '"reference":{"name":"group=control","images":[1,0,0,0]}' in page
    for wrong, message in {
        "sex=F": "participants.tsv has no column 'sex'; it has session_id, group",
        "group=none": "no participant has group 'none'; the values are control, gone, patient",
        "group=gone": "there is no image of a participant with group=gone",
    }.items():
        assert process("group", reference=wrong) == 64
        assert message in capsys.readouterr().err


def test_areas_along_the_column_are_summarised_over_the_images_of_a_group(tmp_path):
    sources = [f"sub-0{n}/anat/sub-0{n}_T2w.nii.gz" for n in range(1, 5)]
    for number, source in enumerate(sources[:3]):
        path = tmp_path / source.replace("_T2w.nii.gz", "_desc-T2w_profile.tsv")
        path.parent.mkdir(parents=True)
        rows = [f"{mm}\tC4\t{mm / 20:.3f}\t{200 + 10 * number}\t{'n/a' if mm < 10 else 80}" for mm in range(20)]
        path.write_text("\n".join(["\t".join(PROFILE_COLUMNS), *rows, "20\tn/a\tn/a\t999\t999"]) + "\n")
    areas = read_profiles(tmp_path, pd.DataFrame({"source": sources}))
    table = make_band_table(areas, summarise_profiles(areas))
    canal, cord = (table[table["measure"] == name] for name in ("canal-area", "cord-area"))
    assert list(canal["position"]) == [f"{(part + 0.5) / 10:.2f}" for part in range(10)]
    assert set(canal["level"]) == {"C4"}
    assert (canal[["images", "p5", "median", "p95"]] == ["3", "201.0", "210.0", "219.0"]).all(axis=None)
    assert list(cord["median"]) == ["80.0"] * 5
    used = np.array([True, False, False, True])
    assert set(make_band_table(areas, summarise_profiles(areas, used), used)["images"]) == {"1"}


def test_foreign_folders_do_no_harm(tmp_path, done, process):
    out = tmp_path / "out"
    foreign = out / "sub-foreign" / "anat"
    foreign.mkdir(parents=True)
    (foreign / "sub-foreign_seg-totalspineseg_desc-T2w_dseg.json").write_text('{"Sources": ["elsewhere"]}')
    (foreign / "sub-foreign_desc-x_dseg.json").write_text("{}")
    assert process("group", self_contained=True) == 0
    assert len(read_table(out / "group_images.tsv")) == 4


def test_damaged_results_are_left_out_not_fatal(tmp_path, done, process, capsys):
    out = tmp_path / "out"
    (out / "sub-02/anat/sub-02_seg-totalspineseg_desc-T2w_dseg.json").write_text("{")
    (out / "sub-03/anat/sub-03_seg-totalspineseg_desc-T2w_dseg.tsv").unlink()
    table = out / "sub-01/ses-a/anat/sub-01_ses-a_seg-totalspineseg_desc-T2w_dseg.tsv"
    table.write_text(table.read_text().replace("\t", ","))
    assert process("group") == 0
    assert [row["participant"] for row in read_table(out / "group_images.tsv")] == ["sub-04"]
    assert capsys.readouterr().err.count("left out") == 3
