"""Build and load the group report of 2,000 images: ``python benchmarks/bench_group_report.py --help``.

The derivatives are faked from a few measured ones: every number of a copy is scaled by a factor of its participant and
a little noise, some images have no levels, no spine, or failed. Each participant has two sessions, an age, a sex and a
group, and there are reference values. Printed are the CPU time and the memory of the ``group`` level, the size of the
page, and, where Chromium and selenium are there, CPU time of the main thread until the page is drawn. CPU time, not
wall time: it does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from truth_derivatives import publish_truth

from totalspineseg_bids.bids.derivatives import ImageDerivatives, read_derivatives
from totalspineseg_bids.bids.names import SourceImage
from totalspineseg_bids.bids.tables import format_table, read_table
from totalspineseg_bids.imaging.atomic import write_text
from totalspineseg_bids.measurement.levels import MEASURES
from totalspineseg_bids.synthesis.dataset import write_dataset

#: What the group level may take: seconds of CPU, GiB; and the page: MB, seconds.
LIMITS = {"build": 60.0, "memory": 2.0, "page": 25.0, "load": 3.0}
_NUMBERS = MEASURES


@dataclass(frozen=True, slots=True)
class Template:
    """A measured image to be copied."""

    sidecar: dict[str, Any]
    """Content of its main sidecar."""
    rows: tuple[dict[str, str], ...]
    """Rows of its table."""
    thumbnail: bytes
    """Its picture."""
    profile: list[dict[str, str]]
    """Areas along the column."""


def templates(output: Path) -> list[Template]:
    """Read the labelled images of an output folder."""
    found = []
    for result in read_derivatives(output):
        picture = result.figures.get("thumbnail")
        if result.status == "labelled" and picture:
            profile = output / result.names.profile(".tsv")
            areas = read_table(profile) if profile.is_file() else []
            found.append(Template(result.sidecar, result.rows, (output / picture).read_bytes(), areas))
    return found


def fake(out: Path, raw: Path, sources: list[Template], images: int, seed: int) -> None:
    """Write the derivatives of ``images`` images and a participants.tsv in the raw folder."""
    rng = np.random.default_rng(seed)
    people = []
    (out / "logs").mkdir(parents=True)
    for number in range(-(-images // 2)):
        name, scale = f"sub-{number:04d}", float(rng.normal(1.0, 0.06))
        sex, age = "MF"[int(rng.integers(2))], int(rng.integers(18, 86))
        people.append({"participant_id": name, "sex": sex, "age": age, "group": ("control", "patient")[number % 2]})
        template = sources[int(rng.integers(len(sources)))]
        for session in ("ses-1", "ses-2")[: images - 2 * number]:
            _fake_image(out, f"{name}/{session}/anat/{name}_{session}_T2w.nii.gz", template, scale, rng)
    write_text(raw / "participants.tsv", format_table(list(people[0]), people))
    description = {"Name": "Faked images", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    write_text(raw / "dataset_description.json", json.dumps(description))


def _fake_image(out: Path, relative: str, template: Template, scale: float, rng: np.random.Generator) -> None:
    source = SourceImage(relative, Path(relative))
    fate = float(rng.random())
    if fate < 0.01:
        crash = {"Source": relative, "Status": "failed", "Reason": f"{relative}: the file ends early", "ExitCode": 65}
        write_text(out / "logs" / f"crash-{source.name}.json", json.dumps(crash))
        return
    names = ImageDerivatives(source, {}, ()).names
    rows = [_scaled(row, scale, rng) for row in template.rows]
    quality = {k: f"{float(v) * rng.normal(1.0, 0.1):.3f}" for k, v in template.sidecar["ImageQuality"].items()}
    sidecar = {**template.sidecar, "Sources": [source.uri], "ImageQuality": quality}
    if fate < 0.03:
        rows, sidecar = [], {**sidecar, "Status": "no-spine", "Reason": "neither canal nor disc in view"}
    elif fate < 0.08:
        rows = [{**row, "level": "n/a", "confidence": "n/a"} for row in rows]
        sidecar = {**sidecar, "Status": "abstained", "Reason": "a shift by one level cannot be ruled out"}
    if sidecar["Status"] != "labelled":
        sidecar = {**sidecar, "LevelsInView": [], "Posture": {}, "ImageQuality": {}}
    picture = f"{names.figures}/{names.figure_stem}_thumbnail.png"
    sidecar["Figures"] = {"thumbnail": picture}
    for folder in (names.folder, names.figures):
        (out / folder).mkdir(parents=True, exist_ok=True)
    (out / picture).write_bytes(template.thumbnail)
    write_text(out / f"{source.stem.split('_')[0]}.html", "<!DOCTYPE html><title>page</title>")
    write_text(out / names.labels(".tsv"), format_table(list(rows[0]) if rows else ["index", "name"], rows))
    write_text(out / names.labels(".json"), json.dumps(sidecar))
    if sidecar["Status"] == "labelled" and template.profile:
        areas = [_scaled(row, scale, rng) for row in template.profile]
        write_text(out / names.profile(".tsv"), format_table(list(areas[0]), areas))


def _scaled(row: dict[str, str], scale: float, rng: np.random.Generator) -> dict[str, str]:
    changed = dict(row)
    for name in _NUMBERS:
        try:
            value = float(row.get(name, ""))
        except ValueError:
            continue
        factor = scale ** (3 if name.startswith("volume") else 1) * float(rng.normal(1.0, 0.02))
        changed[name] = f"{value * factor:.2f}"
    return changed


def norms(path: Path, out: Path) -> None:
    """Write reference values for whole levels, made from the first images."""
    cells: dict[tuple[str, str], list[float]] = {}
    for number, result in zip(range(200), read_derivatives(out), strict=False):
        del number
        for row in result.rows:
            for name in ("height-mm", "volume-mm3", "canal-area-mm2"):
                if row.get("level", "n/a") != "n/a" and row.get(name, "n/a") != "n/a":
                    cells.setdefault((name, row["level"]), []).append(float(row[name]))
    rows = [
        {"measure": m, "level": level, "mean": f"{np.mean(v):.3f}", "sd": f"{np.std(v) + 0.1:.3f}"}
        for (m, level), v in cells.items()
    ]
    write_text(path, format_table(["measure", "level", "mean", "sd"], rows))


def build(raw: Path, out: Path, *extra: str) -> tuple[float, float, float]:
    """Run the group level in a process of its own.

    Returns
    -------
    tuple
        Seconds of CPU, GiB of memory at most, and seconds.
    """
    command = [sys.executable, "-m", "totalspineseg_bids", str(raw), str(out), "group", "-q", *extra]
    begin = time.monotonic()
    process = subprocess.Popen(command)
    # Of this process alone, not of a browser that ran before it.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, time.monotonic() - begin


def load(page: Path) -> dict[str, float] | None:
    """Load a page in headless Chromium.

    Returns
    -------
    dict or None
        Seconds of CPU of the main thread by kind of work; ``None`` where there is no browser.
    """
    browser, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if browser is None or driver is None:
        return None
    try:
        from selenium import webdriver  # noqa: PLC0415 - not needed to run the rest
        from selenium.webdriver.chrome.service import Service  # noqa: PLC0415
    except ImportError:
        return None
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        window.set_page_load_timeout(600)
        window.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        window.get(page.as_uri())
        # Filters are drawn a moment later; a second frame after that, all is there.
        window.execute_async_script(
            "setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(arguments[0])), 500)"
        )
        entries = window.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    finally:
        window.quit()
    return {e["name"]: e["value"] for e in entries if e["name"].endswith("Duration") or e["name"] == "Nodes"}


def report(name: str, page: Path, seconds: float, memory: float, wall: float) -> Iterator[tuple[str, float, float]]:
    """Print one build and yield what has a limit: name, value, limit."""
    size = page.stat().st_size / 1e6
    print(f"{name}: build {seconds:.1f} s CPU, {wall:.1f} s, {memory:.2f} GiB, page {size:.1f} MB")
    yield f"{name} build", seconds, LIMITS["build"]
    yield f"{name} memory", memory, LIMITS["memory"]
    yield f"{name} page", size, LIMITS["page"]
    loaded = load(page)
    if loaded is None:
        print("  no Chromium with selenium here: the page was not loaded")
        return
    print("  load: " + ", ".join(f"{key} {value:.2f}" for key, value in loaded.items()))
    yield f"{name} load", loaded["TaskDuration"], LIMITS["load"]


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; the exit code is 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description="Build and load the group report of many faked images.")
    parser.add_argument("--images", type=int, default=2000, help="default: %(default)s")
    parser.add_argument(
        "--derivatives", type=Path, help="measured ones to copy (default: truth of 3 synthetic subjects)"
    )
    parser.add_argument("--keep", type=Path, help="folder for all of it (default: a temporary one)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        measured = options.derivatives
        if measured is None:
            measured = folder / "truth"
            write_dataset(folder / "synthetic", 3, options.seed)
            publish_truth(folder / "synthetic", measured)
        out, raw = folder / "out", folder / "raw"
        if not out.is_dir():
            raw.mkdir(parents=True, exist_ok=True)
            fake(out, raw, templates(measured), options.images, options.seed)
            norms(folder / "norms.tsv", out)
        checks: list[tuple[str, float, float]] = []
        extra = ("--norms", str(folder / "norms.tsv"))
        checks += report("linked", out / "group.html", *build(raw, out, *extra))
        print(f"  group_measures.tsv: {len(read_table(out / 'group_measures.tsv'))} values")
        checks += report("self-contained", out / "group.html", *build(raw, out, *extra, "--self-contained"))
    failed = [f"{name} {value:.2f} > {limit}" for name, value, limit in checks if value > limit]
    print("over the limit: " + "; ".join(failed) if failed else "all within the limits")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
