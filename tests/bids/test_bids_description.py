"""Files at the root of the output: the same whatever run writes them, and true about where they come from."""

import json
from pathlib import Path

import pytest

from totalspineseg_bids import __version__
from totalspineseg_bids.anatomy import LABELS
from totalspineseg_bids.bids.description import (
    make_dataset_description,
    make_generated_by,
    make_lookup_table,
    write_citation,
    write_root_files,
)
from totalspineseg_bids.citation import PUBLICATIONS


@pytest.mark.parametrize(
    ("environment", "container"),
    [
        ({}, None),
        ({"TAG": ""}, None),
        ({"TYPE": "docker", "TAG": "spine:1"}, {"Type": "docker", "Tag": "spine:1"}),
        ({"TYPE": "docker", "APPTAINER_CONTAINER": "/images/spine.sif"}, {"Type": "singularity"}),
        ({"SINGULARITY_CONTAINER": "/images/spine.sif"}, {"Type": "singularity"}),
        ({"TYPE": "docker", "URI": "docker://x/spine:1"}, {"Type": "docker", "URI": "docker://x/spine:1"}),
        ({"TAG": "spine:1", "DIGEST": "sha256:0f"}, {"Tag": "spine:1", "URI": "spine:1@sha256:0f"}),
    ],
)
def test_the_container_comes_from_the_environment(environment, container):
    prefix = "TOTALSPINESEG_BIDS_CONTAINER_"
    entry = make_generated_by({name if "_" in name else prefix + name: text for name, text in environment.items()})
    assert entry["Version"] == __version__
    assert entry.get("Container") == container


@pytest.mark.parametrize(
    ("raw", "output", "link"),
    [
        ("/data/raw", "/data/raw/derivatives/spine", "../.."),
        ("/data/raw", "/data/out", "../raw"),
        ("/a/b", "/c/d/e", "../../../a/b"),
        ("/data/Zürich #1/raw", "/data/out", "../Z%C3%BCrich%20%231/raw"),
    ],
)
def test_the_link_to_the_raw_dataset_is_relative(raw, output, link):
    content = json.loads(make_dataset_description(Path(raw), Path(output), "Études"))
    assert content["DatasetLinks"] == {"raw": link}
    assert content["SourceDatasets"] == [{"URL": link}]
    assert content["Name"] == "Spine segmentation of Études"
    assert content["DatasetType"] == "derivative"


@pytest.mark.parametrize("scheme", ["seed", "totalspineseg"])
def test_the_look_up_table_holds_every_label_once(scheme):
    header, *rows = (line.split("\t") for line in make_lookup_table(scheme).splitlines())  # type: ignore[arg-type]
    assert header == ["index", "name", "abbreviation", "color"]
    assert len({row[0] for row in rows}) == len({row[1] for row in rows}) == len(rows) == len(LABELS)
    assert [int(row[0]) for row in rows] == sorted(int(row[0]) for row in rows)


def test_what_is_right_already_is_not_written_again(tmp_path):
    raw, output = tmp_path / "raw", tmp_path / "out"
    for folder in (raw, output):
        folder.mkdir()
    write_root_files(raw, output, "seed")
    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in output.iterdir()}
    assert set(before) == {
        *(".bidsignore", "README.md", "dataset_description.json", "descriptions.json", "descriptions.tsv"),
        "seg-totalspineseg_dseg.tsv",
    }
    (output / ".bidsignore").write_text("other")
    (output / "README.md").rename(output / "README")  # a README of the user's
    write_root_files(raw, output, "seed")
    after = {path.name: (path.read_bytes(), path.stat().st_ino) for path in output.iterdir()}
    after["README.md"] = after.pop("README")
    assert {name: content for name, (content, _) in after.items()} == {n: content for n, (content, _) in before.items()}
    assert {name for name in after if after[name] != before[name]} == {".bidsignore"}


def test_the_licence_is_that_of_the_source_dataset(tmp_path):
    for entry, expected in ({"License": "CC-BY-4.0"}, "CC-BY-4.0"), ({}, None):
        (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", **entry}))
        write_root_files(tmp_path, tmp_path / "out", "totalsegmri")
        content = json.loads((tmp_path / "out/dataset_description.json").read_text())
        assert content.get("License") == expected
        assert content["GeneratedBy"][0]["CodeURL"].startswith("https://")


def test_the_citation_names_model_and_publications(tmp_path):
    write_citation(tmp_path, "some-model")
    text, bibliography = ((tmp_path / f"CITATION.{extension}").read_text() for extension in ("md", "bib"))
    assert "(model some-model)" in text
    for publication in PUBLICATIONS:
        assert publication.title in text
        assert (
            f"@{publication.kind}{{{publication.key},\n  author = {{{publication.authors[0].replace(' ', ', ')} and"
            in bibliography
        )
        assert bibliography.count("{") == bibliography.count("}")
