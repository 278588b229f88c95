"""The pages as a person uses them, in headless Chromium: clicks, keys, widths, and what leaves the machine."""

import io
import itertools
import shutil
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from totalspineseg_bids.anatomy import VERTEBRA_LEVELS
from totalspineseg_bids.app.group_inputs import read_ratings
from totalspineseg_bids.app.reports import write_viewer
from totalspineseg_bids.report.group import write_group_report
from totalspineseg_bids.report.subject import write_subject_report
from totalspineseg_bids.report.volume import viewer_assets

from .conftest import derivatives, draw_figures, write_profile

By = pytest.importorskip("selenium.webdriver.common.by").By
Keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

PAGES = ("group.html", "sub-00.html")
EVIL = "<script>window.broken=1</script>"
WIDTHS = {"phone": 390, "laptop": 1366, "wide": 2200}


@pytest.fixture(scope="module")
def site(spine, rows, tmp_path_factory):
    """A subject page and a group page of 24 images in two sessions, with everything a page can have."""
    folder = tmp_path_factory.mktemp("site")
    measures = {"Posture": {"lumbar-lordosis-deg": "41.3"}, "ImageQuality": {"snr": "12.5"}}
    content = {"Flags": ["T13"], "Figures": draw_figures(folder, spine), "Model": {"Name": "m"}, **measures}
    first = derivatives("sub-00_T2w", rows, **content)
    areas = {"level": "L3", "cord-area-mm2": "60"}
    places = [{"distance-mm": f"{mm}", "position": f"{mm / 40}", "canal-area-mm2": f"{200 + mm}"} for mm in range(40)]
    profile = [place | areas for place in places]
    write_profile(folder, first, profile)
    content = dict.fromkeys(("Status", "Reason"), EVIL) | {"Flags": [EVIL], "Settings": {EVIL: EVIL}}
    odd = derivatives("sub-00_PDw", [{"name": EVIL, "reason": EVIL}], **content)
    write_profile(folder, odd, [{"distance-mm": f"{mm}", "level": EVIL, "canal-area-mm2": "200"} for mm in range(40)])
    reports = [first, derivatives("sub-00_T1w", Status="abstained", Reason="no landmark in view"), odd]
    for name in [f"sub-{n:02d}" for n in range(12)]:
        write_subject_report(folder / f"{name}.html", name, reports if name == "sub-00" else [])
    images, volumes, rng = [], [], np.random.default_rng(3)
    for number, session in itertools.product(range(12), ("ses-1", "ses-2")):
        name = f"sub-{number:02d}"
        keys = {"participant": name, "session": session, "image": f"{name}_{session}_T2w"}
        thumbnail = f"{name}/figures/{session}.png"
        (folder / thumbnail).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 80), 30 * number % 255).save(folder / thumbnail)
        state = {"status": "labelled", "levels": "L3,L4,L5,L3-L4,L4-L5", "report": f"{name}.html"}
        state |= {"lumbar-lordosis": "40", "snr": f"{30 + number % 3}.0" if number != 3 else "4.0"}
        images.append({**keys, **state, "thumbnail": thumbnail, "flags": "T13" if number == 5 else ""})
        for row in rows:
            scaled = {
                k: f"{float(v) * rng.normal(1, 0.05):.2f}"
                for k, v in row.items()
                if k in ("height-mm", "volume-mm3") and v != "n/a"
            }
            volumes.append({**row, **keys, **scaled, "z:height-mm": "1.5" if "height-mm" in scaled else ""})
    images.append({"participant": EVIL, "image": EVIL, "status": "failed", "reason": EVIL, "levels": ""})
    images[0].update({"rating": "doubtful", "rating-note": "look again"})
    people = [
        {"participant_id": f"sub-{n:02d}", "age": str(30 + 3 * n), "group": ("patient", EVIL)[n % 2]} for n in range(12)
    ]
    areas = np.full((2, len(images), len(VERTEBRA_LEVELS), 10), np.nan)
    area, seen = 200 + rng.normal(0, 9, (24, 2, 10)), slice(*map(VERTEBRA_LEVELS.index, ("L3", "L5")))
    areas[:, :24, seen] = np.stack([area, area / 3])
    band = np.full((3, 2, *areas.shape[2:]), np.nan)
    band[:, :, seen] = np.percentile(areas[:, :24, seen], (5, 50, 95), axis=1)
    write_group_report(
        folder / "group.html",
        pd.DataFrame(images),
        pd.DataFrame(volumes),
        dataset_name=EVIL,
        participants=pd.DataFrame(people),
        areas=areas,
        band=band,
        reference=(f"group={EVIL}", {row["image"] for row in images if row["image"] < "sub-06"}),
    )
    return folder


def shown(browser) -> int:
    return browser.run("return document.querySelectorAll('#image-list tbody tr:not([hidden])').length")


def choose(browser, selector: str, value: str) -> None:
    browser.run(
        "const s = document.querySelector(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change', { bubbles: true }));",
        selector,
        value,
    )


def scroll_to(browser, canvas: str) -> None:
    """Bring a plot into view, which is when it is drawn."""
    browser.until("!document.getElementById('changes').hidden")
    browser.run("document.getElementById(arguments[0]).scrollIntoView({ block: 'center' })", canvas)
    browser.until(f"document.getElementById('{canvas}').style.width")
    time.sleep(0.3)


def point_of(browser, canvas: str) -> None:
    """Click the first point of a plot that leads somewhere, found with the mouse as a person would."""
    found = browser.run(
        """
        const canvas = document.getElementById(arguments[0]), box = canvas.getBoundingClientRect();
        for (let y = 8; y < box.height - 20; y += 5) for (let x = 60; x < box.width; x += 5) {
          const at = { clientX: box.left + x, clientY: box.top + y, bubbles: true };
          canvas.dispatchEvent(new MouseEvent("mousemove", at));
          if (canvas.classList.contains("pointing")) {
            const tip = document.getElementById("tip").innerText;
            canvas.dispatchEvent(new MouseEvent("click", at));
            return tip;
          }
        }
        return "";
        """,
        canvas,
    )
    assert found, f"no point in {canvas}"


def test_nothing_leaves_the_machine_and_no_error_is_logged(browser, site):
    for page in PAGES:
        browser.open(site / page)
        browser.run("scrollTo(0, document.body.scrollHeight)")
        assert browser.requests() <= {"file", "data", "blob"}
        assert browser.console() == []
        assert browser.run("return window.broken") is None


def test_search_filter_and_sort(browser, site):
    browser.open(site / "group.html")
    assert shown(browser) == 25
    browser.find("#search").send_keys("sub-05 ses-2")
    assert shown(browser) == 1
    browser.run("document.getElementById('search').value = ''")
    browser.find("#flagged").click()
    assert shown(browser) == 2
    browser.find("#flagged").click()
    for selector, value in (("#status", "failed"), ("#rated", "doubtful")):
        choose(browser, selector, value)
        assert shown(browser) == 1
        choose(browser, selector, "")
    # Not innerText: that of a row which was only just moved into view is empty until the next frame.
    first = "return document.querySelector('#image-list tbody tr td:nth-child(2)').textContent"
    button = browser.find("th[data-key='participant'] button")
    button.click()
    rising = browser.run(first)
    button.click()
    assert browser.run(first) != rising
    assert browser.find("th[data-key='participant']").get_attribute("aria-sort") == "descending"


def test_filters_reach_map_and_plots(browser, site):
    browser.open(site / "group.html")
    scroll_to(browser, "heat")
    heights = "document.getElementById('heat').clientHeight"
    whole = browser.run(f"return {heights}")
    browser.find("#search").send_keys("sub-05")
    scroll_to(browser, "heat")  # charts out of view are drawn when they come into view
    browser.until(f"{heights} < {whole}")


def test_ratings_by_key_and_by_list_come_back_through_the_file(browser, site):
    browser.open(site / "group.html")
    browser.run("localStorage.clear()")
    browser.open(site / "group.html")
    browser.until("document.querySelector('tr[data-i=\"4\"] .rating')")
    # What --qc-file brought is there.
    assert browser.find("tr[data-i='0'] .rating").get_attribute("value") == "doubtful"
    assert browser.find("tr[data-i='0'] .remark").get_attribute("value") == "look again"
    row = browser.find("tr[data-i='1']")
    browser.run("arguments[0].focus()", row)
    row.send_keys("3")
    assert browser.run("return document.activeElement.dataset.i") == "2"
    browser.window.switch_to.active_element.send_keys("1")
    choose(browser, "tr[data-i='4'] .rating", "bad")
    remark = browser.find("tr[data-i='4'] .remark")
    remark.send_keys("sub-luxation 123")
    remark.send_keys(Keys.TAB)
    assert browser.find("#rated-count").text == "4 of 25 rated"
    browser.find("#download").click()
    path = browser.downloaded("ratings.tsv")
    names = browser.run("return JSON.parse(document.getElementById('data').textContent).images.image")
    assert read_ratings(path, names) == {
        "sub-00_ses-1_T2w": ("doubtful", "look again"),
        "sub-00_ses-2_T2w": ("bad", ""),
        "sub-01_ses-1_T2w": ("good", ""),
        "sub-02_ses-1_T2w": ("bad", "sub-luxation 123"),
    }
    # They stay in the browser.
    browser.open(site / "group.html")
    browser.until("document.querySelector('tr[data-i=\"4\"] .rating')")
    assert browser.find("tr[data-i='4'] .rating").get_attribute("value") == "bad"
    browser.run("localStorage.clear()")


def test_links_and_points_lead_to_subject_pages(browser, site):
    browser.open(site / "group.html")
    browser.find("tr[data-i='0'] a[href='sub-00.html']").click()
    assert browser.window.current_url.endswith("/sub-00.html")
    browser.find("a[href='group.html']").click()
    assert browser.window.current_url.endswith("/group.html")
    for canvas in ("strip", "change", "heat"):
        browser.open(site / "group.html")
        scroll_to(browser, canvas)
        point_of(browser, canvas)
        browser.until("location.href.includes('/sub-')")


def test_comparison_change_and_scores(browser, site):
    browser.open(site / "group.html")
    choose(browser, "#measure", "height-mm")
    choose(browser, "#by", "group")
    head = browser.find("#compare-table").get_attribute("textContent")
    assert "patient: median (images)" in head
    assert "(12)" in head
    choose(browser, "#by", "age")
    assert browser.run("return document.getElementById('level').closest('label').hidden") is False
    assert "Correlation r" in browser.find("#compare-table").get_attribute("textContent")
    choose(browser, "#by", "")
    browser.run("document.getElementById('scores').click()")
    assert "standard deviations" in browser.find("#about").text
    assert browser.find("#changes").is_displayed()
    choose(browser, "#change-measure", "height-mm")
    assert len(browser.all("#change-table tbody tr")) == 20
    browser.find("[data-kind='discs']").click()
    browser.find("[data-heat='discs']").click()
    browser.find("[data-change='alignment']").click()
    assert browser.console() == []


def test_curves_of_an_image_lie_on_the_band_of_the_reference_group(browser, site):
    browser.open(site / "group.html")
    scroll_to(browser, "curves-plot")
    browser.until("document.getElementById('curve').options.length > 1")
    assert f"the images with group={EVIL}" in browser.find("#curves-about").text
    assert browser.find("#curve-page").is_displayed() is False
    choose(browser, "#curve", "7")
    assert browser.find("#curve-page").get_attribute("href").endswith("sub-03.html")
    tip = browser.run(
        """
        const canvas = document.getElementById("curves-plot"), box = canvas.getBoundingClientRect();
        const at = { clientX: box.left + 0.9 * box.width, clientY: box.top + 50, bubbles: true };
        canvas.dispatchEvent(new MouseEvent("mousemove", at));
        return document.getElementById("tip").innerText;
        """
    )
    assert tip.startswith("L4")
    assert "mm²" in tip
    assert "group" in tip
    browser.find("#search").send_keys("sub-05")
    scroll_to(browser, "curves-plot")
    browser.until("document.getElementById('curve').options.length == 3")
    scroll_to(browser, "strip")
    assert f"group={EVIL}" in browser.find("#strip-legend").text
    assert len(browser.all("#image-list .outlier")) == 2
    assert browser.console() == []


def test_a_page_starts_with_a_measure_that_has_values_and_has_no_place_for_absent_levels(browser, rows, tmp_path):
    image = {"participant": "sub-01", "image": "sub-01_T2w", "status": "labelled", "levels": "L3"}
    slab = [row | image | {"partial": "true"} for row in rows]
    areas = np.full((2, 1, len(VERTEBRA_LEVELS), 10), np.nan)
    areas[:, :, [VERTEBRA_LEVELS.index(level) for level in ("T12", "L2")]] = 200
    band = np.broadcast_to(areas[:, 0], (3, *areas[:, 0].shape))
    options = {"dataset_name": "Slabs", "areas": areas, "band": band}
    write_group_report(tmp_path / "a.html", pd.DataFrame([image]), pd.DataFrame(slab), **options)
    browser.open(tmp_path / "a.html")
    assert browser.run("return document.getElementById('measure').value") == "height-mm"
    data = "return JSON.parse(document.getElementById('data').textContent)"
    assert browser.run(f"{data}.profiles.levels") == ["T12", "L1", "L2"]
    assert browser.console() == []


def test_the_viewer_scrolls_jumps_and_reads_labels(browser, site):
    browser.open(site / "sub-00.html")
    browser.find("[data-open-viewer]").click()
    browser.until("document.querySelector('.volume').dataset.at")
    read = "return document.querySelector('.readout').innerText"
    jump = browser.find("[aria-label='Go to a structure']")
    options = {option.text: option.get_attribute("value") for option in jump.find_elements(By.TAG_NAME, "option")}
    assert {"L3", "L4", "L5", "L3-L4", "Spinal cord", "Spinal canal"} <= set(options)
    for level in ("L5", "L3-L4", "L3"):
        choose(browser, "[aria-label='Go to a structure']", options[level])
        assert browser.run(read).startswith(f"{level} (confidence 0.97)")
    captions = "return [...document.querySelectorAll('.volume figcaption')].map((c) => c.innerText)"
    before = browser.run(captions)
    canvas = browser.all(".volume canvas")[0]
    browser.run("arguments[0].dispatchEvent(new WheelEvent('wheel', { deltaY: 60, cancelable: true }))", canvas)
    after = browser.run(captions)
    assert after[0] != before[0]
    assert after[1:] == before[1:]
    canvas.send_keys(Keys.ARROW_DOWN)
    assert browser.run(captions)[2] != after[2]
    browser.run(
        "const b = arguments[0].getBoundingClientRect(); arguments[0].dispatchEvent(new PointerEvent('pointerdown',"
        "{ clientX: b.left + 2, clientY: b.top + 2, pointerId: 1, buttons: 1 }))",
        canvas,
    )
    assert browser.run(read).startswith("no label")
    for mode in ("fill", "contour", "off"):
        choose(browser, "[aria-label='How labels are drawn']", mode)
    assert browser.console() == []
    assert browser.requests() <= {"file", "data", "blob"}


@pytest.mark.parametrize("self_contained", [False, True])
def test_full_resolution_and_3d(browser, spine, rows, tmp_path, self_contained):
    assets = viewer_assets()
    if not assets:
        pytest.skip("the viewer is not installed")
    report = derivatives(rows=rows, Figures=draw_figures(tmp_path, spine))
    page = tmp_path / "sub-00.html"
    if not self_contained:
        write_viewer(tmp_path)
    write_subject_report(page, "sub-00", [report], self_contained=self_contained)
    if self_contained:
        shutil.rmtree(tmp_path / "sub-01")
    else:
        assert page.stat().st_size < 3e6
    browser.open(page)
    if not browser.run("return Boolean(document.createElement('canvas').getContext('webgl2'))"):
        pytest.skip("the browser has no WebGL 2")
    before = browser.requests()
    browser.find("[data-open-full]").click()
    browser.until("document.getElementById('full-1').dataset.state === 'ready'")
    browser.run("document.querySelector('table.levels tr[id] td').click()")
    name = browser.run("return document.querySelector('table.levels tr[id] th').textContent.trim()")
    assert browser.find("#full-1").get_attribute("data-at") == name
    assert browser.find("#full-1 .readout").text.startswith(name)
    pictures = set()
    for view in ("slices", "3d", "sagittal"):
        choose(browser, "#full-1 select[aria-label=View]", view)
        time.sleep(0.5)
        pictures.add(browser.find("#full-1 canvas").screenshot_as_png)
    assert len(pictures) == 3
    colours = np.asarray(Image.open(io.BytesIO(max(pictures, key=len))).convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 50
    # Software rendering reports that reading a picture back stalls it.
    assert [message for message in browser.console() if "GL Driver Message" not in message] == []
    assert before | browser.requests() <= {"file", "data", "blob"}


def test_without_its_script_the_full_viewer_says_so(browser, spine, rows, tmp_path):
    figures = draw_figures(tmp_path, spine)
    if "volume" not in figures:
        pytest.skip("the viewer is not installed")
    write_viewer(tmp_path)
    write_subject_report(tmp_path / "a.html", "sub-00", [derivatives(rows=rows, Figures=figures)])
    (tmp_path / "figures/niivue.umd.js").unlink()
    browser.open(tmp_path / "a.html")
    browser.find("[data-open-full]").click()
    browser.until("document.querySelector('[data-open-full]').textContent.includes('does not work here')")
    assert not browser.find("#full-1").is_displayed()
    browser.find("[data-open-viewer]").click()
    browser.until("!document.getElementById('volume-1').hidden")


def test_layers_palette_and_zoom(browser, site):
    browser.open(site / "sub-00.html")
    pixels = """
        const image = document.querySelector("img.fill"), canvas = document.createElement("canvas");
        canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
        const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0);
        const d = pen.getImageData(0, 0, canvas.width, canvas.height).data, found = new Set();
        for (let i = 0; i < d.length; i += 4) if (d[i + 3]) found.add(d[i] + "," + d[i + 1] + "," + d[i + 2]);
        return [...found].length;
    """
    plain = browser.run(pixels)
    browser.find("[data-layer='fill']").click()
    assert browser.run("return getComputedStyle(document.querySelector('img.fill')).visibility") == "hidden"
    browser.find("[data-layer='fill']").click()
    browser.find("#palette").click()
    browser.until("document.querySelector('img.fill').dataset.safe")
    # Three vertebrae, two discs, canal and cord keep at least five colours.
    assert 5 <= browser.run(pixels) <= plain + 2
    browser.find(".picture").click()
    assert browser.find("dialog.zoom").is_displayed()
    browser.window.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.find("dialog.zoom").is_displayed()
    assert browser.console() == []


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_wider_than_the_screen(browser, site, page, width):
    browser.open(site / page, width)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.console() == []


@pytest.mark.parametrize("page", PAGES)
def test_everything_has_a_name_for_a_screen_reader(browser, site, page):
    browser.open(site / page)
    assert browser.run("return document.documentElement.lang") == "en"
    assert len(browser.all("h1")) == 1
    nameless = browser.run(
        """
        const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.innerText?.trim()
          || e.closest("label")?.textContent.trim() || e.querySelector("img[alt]:not([alt=''])");
        const controls = "button, a[href], input, select, canvas, [role=region], [tabindex='0']";
        return [...document.querySelectorAll(controls)].filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 120))
          .concat([...document.querySelectorAll("img:not([alt])")].map((e) => e.outerHTML.slice(0, 120)));
        """
    )
    assert nameless == []


CONTRAST = """
    const share = (x) => (x / 255 <= 0.03928 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4);
    const light = (c) => 0.2126 * share(c[0]) + 0.7152 * share(c[1]) + 0.0722 * share(c[2]);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const over = (colours) => {
      for (const c of ["#fff", ...colours]) { pen.fillStyle = c; pen.fillRect(0, 0, 1, 1); }
      return pen.getImageData(0, 0, 1, 1).data;
    };
    const poor = new Set(), texts = "p, td, th, a, span, li, dt, dd, h1, h2, h3, label, button, b, option, summary";
    for (const e of document.querySelectorAll(texts)) {
      const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
      if (!own || !e.checkVisibility() || e.closest(".sr, .tip, .skip")) continue;
      const grounds = [];
      for (let p = e; p; p = p.parentElement) grounds.unshift(getComputedStyle(p).backgroundColor);
      const a = light(over(grounds)), b = light(over([...grounds, getComputedStyle(e).color]));
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (ratio < 4.5) poor.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}: ${e.textContent.slice(0, 30)}`);
    }
    return [...poor];
"""


@contextmanager
def emulated(browser, what, state, former):
    """Let the browser emulate something for a while."""
    browser.window.execute_cdp_cmd(f"Emulation.set{what}", state)
    try:
        yield
    finally:
        browser.window.execute_cdp_cmd(f"Emulation.set{what}", former)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_text_stands_out_in_light_and_dark(browser, site, page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    with emulated(browser, "EmulatedMedia", {"features": features}, {"features": []}):
        browser.open(site / page)
        ground = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(int(v) for v in ground[4:-1].split(",")) < 200) == (scheme == "dark")
        assert browser.run(CONTRAST) == []


def test_print_leaves_controls_out(browser, site):
    with emulated(browser, "EmulatedMedia", {"media": "print"}, {"media": ""}):
        browser.open(site / "group.html")
        assert not any(e.is_displayed() for e in browser.all("nav.bar, .controls"))
        assert browser.find("#image-list").is_displayed()


def test_a_page_without_scripts_still_shows_pictures_and_tables(browser, site):
    with emulated(browser, "ScriptExecutionDisabled", {"value": True}, {"value": False}):
        browser.open(site / "sub-00.html")
        assert browser.find(".views img").is_displayed()
        assert browser.find("table.levels").is_displayed()
        assert not browser.find("[data-open-viewer]").is_displayed()
