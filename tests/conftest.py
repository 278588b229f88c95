"""Settings of all tests."""

import importlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Each process of pytest-xdist keeps to its share of the CPU cores. Every library (torch, OpenMP, OpenVINO) and every
# subprocess then starts as many threads as it has cores, without settings of its own.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cores = sorted(os.sched_getaffinity(0))[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) :: count]
    if cores:
        os.sched_setaffinity(0, cores)

# The same examples in every run, without a time limit, so that a failure is due to a change. HYPOTHESIS_PROFILE=explore
# draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data-dir", type=Path, help="folder of external data; tests that need it are skipped without it")


@pytest.fixture
def data_dir(request):
    """Folder of external data, which is no part of the repository."""
    folder: Path | None = request.config.getoption("--data-dir")
    if folder is None:
        pytest.skip("needs --data-dir")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _networks_are_not_kept_in_the_home_folder():
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOTALSPINESEG_BIDS_NETWORK_CACHE", folder)
        yield


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Return a function that writes shell scripts into a folder at the front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return write


@pytest.fixture
def benchmark(monkeypatch):
    """Import a benchmark by its name."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module


def wait_for(found: Callable[[], Any], what: str) -> Any:
    """Return what comes within a minute."""
    for _ in range(600):
        if result := found():
            return result
        time.sleep(0.1)
    return pytest.fail(f"did not come: {what}")


class Browser:
    """A browser window and what it has noticed since it was last asked."""

    def __init__(self, window, downloads) -> None:
        self.window, self.downloads = window, downloads

    def open(self, page, width: int = 1366, height: int = 900) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.window.get_log("performance")
        self.window.get_log("browser")
        self.window.get(page.as_uri())

    def run(self, script: str, *arguments):
        return self.window.execute_script(script, *arguments)

    def find(self, selector: str):
        return self.window.find_element("css selector", selector)

    def all(self, selector: str):
        return self.window.find_elements("css selector", selector)

    def until(self, condition: str):
        """Wait until a script is true; the figures on a busy machine take their time."""
        return wait_for(lambda: self.run(f"return {condition}"), condition)

    def downloaded(self, name: str):
        """Wait for a download and return its path."""
        path = self.downloads / name
        return wait_for(lambda: path.is_file() and path, name)

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.window.get_log("browser")]

    def requests(self) -> set[str]:
        """Schemes of everything that was asked for."""
        messages = [json.loads(entry["message"])["message"] for entry in self.window.get_log("performance")]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return {url.split(":", 1)[0] for url in urls}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    program = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with chromedriver")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    downloads = tmp_path_factory.mktemp("downloads")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    flags = "headless=new no-sandbox disable-gpu no-first-run disable-background-networking disable-component-update"
    flags += " force-prefers-reduced-motion use-angle=swiftshader enable-unsafe-swiftshader"
    for flag in flags.split():
        options.add_argument("--" + flag)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        window = webdriver.Chrome(options=options, service=Service(driver))
    except WebDriverException as error:  # what keeps a browser from starting here is not what is tested
        pytest.skip(f"Chromium does not start here: {error}")
    window.set_page_load_timeout(300)
    window.set_script_timeout(300)
    yield Browser(window, downloads)
    window.quit()
