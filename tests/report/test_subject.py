import dataclasses
import inspect
import re
from pathlib import Path

import pytest

from totalspineseg_bids import __version__
from totalspineseg_bids.imaging import checks, io
from totalspineseg_bids.report.subject import describe_finding, write_subject_report

from .conftest import derivatives, draw_figures, write_profile


def external(page: str) -> list[str]:
    """Addresses a browser would fetch by itself: everything but links to follow."""
    without_links = re.sub(r"<a\s[^>]*>", "", page)
    return re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"data:[^\"')\s]*", "", without_links))


@pytest.fixture(scope="module")
def image(spine, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("derivatives")
    content = {
        "Flags": ["missing-disc:L3-L4", "sheared-affine"],
        "Figures": draw_figures(folder, spine),
        "Model": {"Name": "r20251124", "Bundled": False},
    }
    return folder, derivatives(rows=rows, **content)


def changed(report, **sidecar):
    return dataclasses.replace(report, sidecar=report.sidecar | sidecar)


def write(folder, images, participant="sub-01", **options) -> str:
    path = folder / "sub-01.html"
    write_subject_report(path, participant, images, **options)
    return path.read_text(encoding="utf-8")


def test_one_file_with_everything(image):
    folder, report = image
    page = write(folder, [report])
    # Four views of three layers, and the labels of the viewer.
    assert page.count("data:image/png;base64,") == 13
    assert page.count("data:image/jpeg;base64,") == 1
    assert external(page) == []
    for row in report.rows:
        text = {"SC": "Spinal cord", "canal": "Spinal canal"}.get(row["abbreviation"], row["abbreviation"])
        assert f"</span>{text}</th>" in page
    flags, references = ("missing-disc:L3-L4", "sheared-affine: the axes in the header"), ("Warszawer", "Isensee")
    for expected in (*flags, *references, "r20251124", 'href="group.html"', "Canal area"):
        assert expected in page
    assert f"totalspineseg_bids {__version__} (model r20251124)" in page[page.index('id="methods"') :]
    assert "Bundled model" not in page
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["sub-01.html"]


def test_angles_are_shown_with_the_measures_and_a_bundled_model_on_top(image):
    folder, report = image
    # Earlier versions wrote numbers as text.
    angles = {"lumbar-lordosis-deg": "41.3", "coronal-cobb-deg": 12.4, "coronal-cobb-levels": "T5-L1"}
    bundled = {"Name": "bundled", "Bundled": True}
    settings = {"label_scheme": "seed", "single_step": False, "joint_with": ["a.nii.gz", "b.nii.gz"]}
    page = write(folder, [changed(report, Posture=angles, Model=bundled, Settings=settings)])
    for expected in ("<dd>totalsegmri</dd>", "<dd>no</dd>", "<dd>a.nii.gz, b.nii.gz</dd>"):
        assert expected in page
    assert "Bundled model: trained on synthetic images, for trying out" in page
    assert page.index("Bundled model:") < page.index("<main")
    assert "Lumbar lordosis L1-L5 <b>41°</b>" in page
    assert "<b>12° (T5-L1)</b>" in page
    assert "lumbar-lordosis-deg" not in page


@pytest.mark.parametrize("status", ["abstained", "no-spine", "failed", "something new"])
def test_other_statuses_say_why(tmp_path, status):
    page = write(tmp_path, [derivatives(Status=status, Reason="the file ends early")])
    assert "the file ends early" in page
    assert status in page
    assert "<table" not in page


def test_what_comes_from_the_dataset_stays_text(tmp_path):
    evil = '<script>alert("x")</script>'
    cells = {"name": evil, "abbreviation": evil, "color": 'red" onload="x', "reason": evil, "volume-mm3": evil}
    content = dict.fromkeys(("Status", "Reason"), evil) | {"Flags": [evil], "Settings": {evil: evil}}
    report = derivatives(rows=[cells], Figures={"sagittal": '"><img src=x>'}, **content)
    areas = [{"distance-mm": str(n), "level": evil, "canal-area-mm2": "1"} for n in range(9)]
    write_profile(tmp_path, report, areas)
    page = write(tmp_path, [report], participant=evil)
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "onload=" not in page


def test_confidence_of_each_level_comes_first(image):
    folder, report = image
    rows = [
        {**row, "confidence": "0.31", "partial": "true", "height-mm": "n/a"} if row["level"] == "L4" else row
        for row in report.rows
    ]
    page = write(folder, [dataclasses.replace(report, rows=rows)])
    assert page.index('class="certainty"') < page.index('class="views"') < page.index("<h3>Levels</h3>")
    assert 'title="L4, confidence 0.31, cut by the field of view' in page
    for anchor in re.findall(r'<li class="[^"]*"><a href="#(image-1-row-\d+)"', page):
        assert f'<tr id="{anchor}"' in page


def test_damaged_viewer_files_cost_the_viewer_only(image, tmp_path):
    folder, report = image
    for name in report.figures.values():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / report.figures["viewer-labels"]).write_bytes(b"no picture")
    page = write(tmp_path, [report])
    assert "data-layout" not in page
    assert 'class="views"' in page


def test_no_image_and_missing_figures(tmp_path):
    assert "no image of this participant" in write(tmp_path, [])
    page = write(tmp_path, [derivatives(Figures={"sagittal": "gone.png"})])
    assert "gone.png" not in page


def test_areas_along_the_column_are_drawn_with_the_band_of_the_group(tmp_path):
    report = derivatives()
    assert "Canal and cord along the column" not in write(tmp_path, [report])
    # Two levels of 20 mm with a gap of the cord between them.
    write_profile(
        tmp_path,
        report,
        [
            {"distance-mm": f"{mm}", "level": ("C3", "C4")[mm // 20], "position": f"{mm % 20 / 20:.3f}"}
            | {"canal-area-mm2": "200.0", "cord-area-mm2": "n/a" if 15 <= mm < 25 else "80.0"}
            for mm in range(40)
        ],
    )
    alone = write(tmp_path, [report])
    assert (alone.count('class="line"'), alone.count('class="band"')) == (3, 0)
    assert "<title>C3; Canal area 200 mm²; Cord area 80 mm²</title>" in alone
    band = [
        {"level": "C3", "position": f"{n / 10 + 0.05:.2f}", "measure": "canal-area", "images": "9", "p5": "180.0"}
        | {"median": "210.0", "p95": "240.0"}
        for n in range(10)
    ]
    page = write(tmp_path, [report], band=band)
    assert page.count('class="band"') == page.count('class="median"') == 1
    assert "up to 9 images" in page
    few = write(tmp_path, [report], band=[{**row, "images": "2"} for row in band])
    assert few == alone
    damaged = [{"level": "C3", "measure": "canal-area", "images": "many"}, {"p5": "1"}]
    assert write(tmp_path, [report], band=damaged) == alone


def test_every_flag_and_note_is_explained():
    method = (Path(__file__).parents[2] / "docs/method.md").read_text(encoding="utf-8")
    flags = re.findall(r"`(\w[\w:-]*)`", method.split("these flags:")[1].split("\n\n")[0])
    notes = re.findall(r'notes\.append\(f?"([\w-]+)', inspect.getsource(io) + inspect.getsource(checks))
    assert len(flags) > 15
    assert len(notes) > 5
    assert not [name for name in (*flags, *notes) if not describe_finding(name)]
