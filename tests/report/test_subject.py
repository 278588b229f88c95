from __future__ import annotations

import re

import pytest

from totalspineseg_bids.report.context import ImageReport
from totalspineseg_bids.report.figures import write_figures
from totalspineseg_bids.report.subject import write_subject_report

PROVENANCE = {"Software": "totalspineseg_bids", "Model": "r20251124"}


def external(page: str) -> list[str]:
    """Addresses a browser would fetch by itself: everything but links to follow."""
    without_links = re.sub(r"<a\s[^>]*>", "", page)
    return re.findall(r"(?:https?:)?//[\w.-]+\.\w+", re.sub(r"data:[^\"')\s]*", "", without_links))


@pytest.fixture(scope="module")
def image(spine, rows, tmp_path_factory):
    volume, labels, affine, *_ = spine
    folder = tmp_path_factory.mktemp("derivatives")
    files = write_figures(folder / "sub-01" / "figures", "sub-01_T2w", volume, labels, affine)
    return folder, ImageReport(
        title="sub-01_T2w.nii.gz",
        entities={"subject": "01", "suffix": "T2w"},
        flags=["missing-disc:L3-L4"],
        rows=rows,
        figures={kind: f"sub-01/figures/{name}" for kind, name in files.items()},
        provenance=PROVENANCE,
    )


def write(folder, images, participant="sub-01", **options) -> str:
    path = folder / "sub-01.html"
    write_subject_report(path, participant, images, **options)
    return path.read_text(encoding="utf-8")


def test_one_file_with_everything(image):
    folder, report = image
    page = write(folder, [report], group_page="group.html")
    assert page.count("data:image/png;base64,") == 12
    assert external(page) == []
    for row in report.rows:
        text = {"SC": "Spinal cord", "canal": "Spinal canal"}.get(row["abbreviation"], row["abbreviation"])
        assert f"</span>{text}</th>" in page
    for expected in ("missing-disc:L3-L4", "r20251124", "Warszawer", "Isensee", 'href="group.html"', "Canal area"):
        assert expected in page
    assert "Bundled model" not in page
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["sub-01.html"]


def test_angles_are_shown_with_the_measures(image):
    folder, report = image
    angles = {"lumbar-lordosis-deg": "41.3", "coronal-cobb-deg": "12.4", "coronal-cobb-levels": "T5-L1"}
    page = write(folder, [ImageReport(report.title, provenance=PROVENANCE | angles)])
    assert "Lumbar lordosis L1-L5 <b>41°</b>" in page
    assert "<b>12° (T5-L1)</b>" in page
    assert "lumbar-lordosis-deg" not in page


def test_figures_can_stay_beside_the_page(image):
    folder, report = image
    page = write(folder, [report], inline_figures=False)
    assert 'src="sub-01/figures/sub-01_T2w_sagittal.png"' in page
    assert "base64" not in page


def test_bundled_model_is_said_on_top(image):
    folder, report = image
    for provenance in ({"Model": "bundled"}, {"bundled": "true"}, {"model name": "bundled (synthetic)"}):
        page = write(folder, [ImageReport(report.title, provenance=provenance)])
        assert "Bundled model: trained on synthetic images, for trying out" in page
        assert page.index("Bundled model:") < page.index("<main")


@pytest.mark.parametrize("status", ["abstained", "no-spine", "failed", "something new"])
def test_other_statuses_say_why(tmp_path, status):
    page = write(tmp_path, [ImageReport("a_T1w.nii.gz", status=status, reason="the file ends early")])
    assert "the file ends early" in page
    assert status in page
    assert "<table" not in page


def test_what_comes_from_the_dataset_stays_text(tmp_path):
    evil = '<script>alert("x")</script>'
    report = ImageReport(
        evil,
        {"session": evil},
        "failed",
        evil,
        [evil],
        [{"name": evil, "abbreviation": evil, "color": 'red" onload="x', "reason": evil, "volume-mm3": evil}],
        {"sagittal": '"><img src=x>'},
        {evil: evil},
    )
    page = write(tmp_path, [report], participant=evil)
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "onload=" not in page


def test_no_image_and_missing_figures(tmp_path):
    assert "no image of this participant" in write(tmp_path, [])
    page = write(tmp_path, [ImageReport("x", figures={"sagittal": "gone.png"})])
    assert "gone.png" not in page


def test_in_a_browser(image, browse):
    folder, report = image
    write(folder, [report])
    document, console = browse(folder / "sub-01.html")
    assert console == []
    # The controls are hidden until the script runs.
    assert re.search(r'<div class="controls">', document)
