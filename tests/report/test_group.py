import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from totalspineseg_bids.report.group import inline_thumbnails, write_group_report
from totalspineseg_bids.report.outliers import MIN_COUNT, find_outliers

from .test_subject import external


def image_row(number, **changes):
    name = f"sub-{number:04d}"
    row = dict.fromkeys(("session", "reason", "flags"), "n/a")
    row |= {"participant": name, "image": f"{name}_T2w.nii.gz", "status": "labelled", "levels": "L3,L4,L3-L4,L5"}
    row |= {"model": "r20251124", "report": f"{name}.html", "thumbnail": f"{name}/figures/{name}_thumbnail.png"}
    return {**row, **changes}


def volume_rows(rows, number, scale=1.0):
    keys = {key: image_row(number)[key] for key in ("participant", "session", "image")}
    return [{**row, **keys, "volume-mm3": f"{float(row['volume-mm3']) * scale:.1f}"} for row in rows]


def write(folder, images, volumes, **options) -> str:
    path = folder / "group.html"
    write_group_report(path, pd.DataFrame(images), pd.DataFrame(volumes), **{"dataset_name": "Spines", **options})
    return path.read_text(encoding="utf-8")


def data_of(page: str):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.fixture(scope="module")
def group(rows):
    rng = np.random.default_rng(1)
    images = [image_row(n) for n in range(20)]
    volumes = [row for n in range(20) for row in volume_rows(rows, n, 2.0 if n == 7 else float(rng.normal(1, 0.03)))]
    images.append(image_row(20, status="failed", reason="ends early", levels="n/a", report="n/a", thumbnail="n/a"))
    images.append(image_row(21, status="abstained", reason="no landmark", levels="", flags="T13, L6"))
    return images, volumes


def test_ratings_scores_and_angles_reach_the_page(group, tmp_path):
    images, volumes = [dict(row) for row in group[0]], group[1]
    images[0] |= {"rating": "bad", "rating-note": "<b>moved", "lumbar-lordosis": "41.26"}
    images[1] |= {"lumbar-lordosis": "39", "coronal-cobb": "n/a"}
    scored = [{**volumes[0], "z:volume-mm3": "-2.5"}, *volumes[1:]]
    data = data_of(write(tmp_path, images, scored))
    assert data["ratings"] == {images[0]["image"]: {"rating": "bad", "note": "<b>moved"}}
    assert data["scores"]["volume-mm3"][volumes[0]["level"]].split(",")[:2] == ["-2.50", ""]
    assert data["alignment"] == ["Lumbar lordosis L1-L5"]
    assert data["values"]["angle"]["Lumbar lordosis L1-L5"].split(",")[:3] == ["41.3", "39.0", ""]


def test_nothing_at_all_and_a_bundled_model(tmp_path):
    page = write(tmp_path, [], [])
    assert "There are no images to report yet" in page
    assert data_of(page)["images"]["image"] == []
    assert "Bundled model: trained on synthetic images" in write(tmp_path, [image_row(1, model="bundled")], [])


def test_every_image_is_listed_with_its_status(group, tmp_path):
    page = write(tmp_path, *group)
    assert external(page) == []
    assert page.count('<tr role="row" data-i=') == 22
    for row in group[0]:
        assert row["image"] in page
    for expected in ("ends early", "no landmark", "⚑ T13", "⚑ L6", 'href="sub-0003.html"', "sub-0003_thumbnail.png"):
        assert expected in page
    assert page.count('loading="lazy"') == 21
    assert 'href="sub-0020.html"' not in page
    assert "Bundled model" not in page
    assert [p.name for p in tmp_path.iterdir()] == ["group.html"]


def test_values_seen_levels_and_outliers(group, tmp_path):
    page = write(tmp_path, *group)
    data = data_of(page)
    assert data["vertebrae"] == ["L3", "L4", "L5"]
    assert data["discs"] == ["L3-L4", "L4-L5"]
    assert len(data["seen"]) == 22
    assert data["seen"][0] == "99999"
    assert data["seen"][20] == "....."
    column = data["values"]["volume-mm3"]["L4"].split(",")
    assert len(column) == 22
    assert column[20] == ""
    assert "robust SD above the median" in page
    outliers = page[page.index('id="outliers"') : page.index('id="statistics"')]
    assert "sub-0007" in outliers
    assert "sub-0003" not in outliers


def test_cut_levels_are_counted_and_left_out(group, tmp_path):
    images, volumes = group
    cut = [{**row, "partial": "true"} if row["level"] == "L5" else row for row in volumes]
    page = write(tmp_path, images, cut)
    data = data_of(page)
    assert "L5" not in data["values"]["volume-mm3"]
    assert data["seen"][0][2] == "a"
    # The body may be whole where the arch is cut.
    assert "L5" in data["values"]["height-mm"]
    gone = [{**row, "partial": "true", "height-mm": "n/a"} if row["level"] == "L5" else row for row in volumes]
    assert data_of(write(tmp_path, images, gone))["seen"][0][2] == "p"
    assert "20 volumes of levels cut by the field of view" in page


def test_what_could_not_be_measured_is_counted_by_reason(group, tmp_path):
    images, volumes = group
    coarse = [{**row, "measure-note": "voxels too coarse for height; no canal"} for row in volumes[:3]]
    page = write(tmp_path, images, [*coarse, *volumes[3:]])
    for reason in ("voxels too coarse for height", "no canal"):
        assert f"3 levels without some measure: {reason}</li>" in page


def test_a_self_contained_page_carries_its_thumbnails(group, tmp_path):
    images, volumes = group
    for row in images[:20]:
        picture = tmp_path / row["thumbnail"]
        picture.parent.mkdir(parents=True)
        Image.fromarray(np.arange(200 * 90, dtype=np.uint8).reshape(200, 90)).save(picture)
    page = write(tmp_path, images, volumes, self_contained=True)
    assert page.count('src="data:image/webp;base64,') == 20
    assert "_thumbnail.png" not in page
    assert external(page) == []


def test_many_thumbnails_are_made_small(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (220, 110, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    few = inline_thumbnails(tmp_path, ["a.png", "", "gone.png", "damaged.png"])
    assert few[1:] == ["", "", ""]
    many = inline_thumbnails(tmp_path, ["a.png"] + ["gone.png"] * 1999)
    assert len(many[0]) < len(few[0])
    # Noise is the worst case there is.
    assert 2000 * len(many[0]) < 20_000_000


def test_participants_to_compare_by(group, tmp_path):
    people = [{"participant_id": f"sub-{n:04d}", "age": str(20 + n), "site": "one"} for n in range(22)]
    people.append({"participant_id": "sub-elsewhere", "age": "99", "site": "one"})
    data = data_of(write(tmp_path, *group, participants=pd.DataFrame(people)))
    assert data["participants"]["columns"] == ["age"]
    assert data["participants"]["rows"]["sub-0003"] == ["23"]
    assert "sub-elsewhere" not in data["participants"]["rows"]


def test_missing_cells_and_foreign_rows(tmp_path):
    images = [{"participant": "sub-1", "image": "a"}]
    volumes = [{"participant": "sub-1", "image": "a", "level": "L1"}, {"participant": "x"}]
    page = write(tmp_path, images, volumes)
    assert "unknown" in page
    assert data_of(page)["values"] == {"angle": {}}


def test_what_comes_from_the_dataset_stays_text(tmp_path):
    evil = "<script>alert(1)</script>"
    row = image_row(1, participant=evil, image=evil, status=evil, reason=evil, flags=evil, model=evil)
    row |= {"report": "javascript:alert(1)", "thumbnail": "https://example.org/x.png"}
    volumes = [{"participant": evil, "session": "", "image": evil, "level": "L1", "volume-mm3": "1"}]
    people = [{"participant_id": evil, evil: evil}, {"participant_id": "b", evil: "c"}]
    page = write(tmp_path, [row], volumes, dataset_name=evil + "</script>", participants=pd.DataFrame(people))
    assert page.count("<script>") == 1
    assert page.count("</script>") == 2
    assert "javascript:" not in page
    assert "example.org" not in page
    assert data_of(page)["dataset"] == evil + "</script>"


def test_two_thousand_images_stay_small(rows, tmp_path):
    images = [image_row(n) for n in range(2000)]
    volumes = [row for n in range(2000) for row in volume_rows(rows, n)]
    page = write(tmp_path, images, volumes)
    assert page.count('<tr role="row" data-i=') == 2000
    assert len(page) < 5_000_000


@pytest.mark.parametrize(
    ("measure", "numbers", "found"),
    [
        ("height-mm", [20.0 + i % 2 for i in range(MIN_COUNT - 2)] + [60.0], []),
        # All alike but for what one voxel makes: nothing to report.
        ("wedge-deg", [0.0] * 20 + [2.0], []),
        ("height-mm", [20.0 + 0.3 * (i % 5) for i in range(20)] + [30.0, 12.0], [20, 21]),
    ],
)
def test_outliers_need_enough_values_and_more_than_rounding(measure, numbers, found):
    values = pd.DataFrame({"value": numbers}).assign(
        image=range(len(numbers)), measure=measure, level="L1", contrast=""
    )
    outliers = find_outliers(values)
    assert list(outliers["image"]) == found
    assert [deviation > 0 for deviation in outliers["deviation"]] == [n > 20 for n in outliers["value"]]


def test_image_quality_far_from_that_of_the_others_is_marked(tmp_path):
    images = [image_row(n, suffix="T2w", **{"snr": f"{30 + n % 3}.0", "cord-csf-contrast": "0.500"}) for n in range(12)]
    images[4]["snr"] = "6.0"
    images[5]["snr"] = "n/a"
    # Another contrast is another group.
    images += [image_row(n, suffix="T1w", **{"cord-csf-contrast": "-0.300"}) for n in range(12, 14)]
    page = write(tmp_path, images, [])
    assert page.count('class="outlier"') == 1
    assert ">SNR 6.0</span>" in page
    assert "robust SD below the median of 31.0" in page
    assert page.count("SNR 3") == 10
    assert "<td>image</td><td>Signal-to-noise ratio</td>" in page
