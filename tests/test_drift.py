"""Measures of stored images change only where the changelog says so."""

import copy
import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
drift = runpy.run_path(str(ROOT / "tools/drift.py"))


@pytest.fixture(scope="module")
def stored():
    return json.loads(drift["STORED"].read_text())


@pytest.mark.slow
def test_measures_are_those_of_the_stored_version(stored):
    assert stored["changelog"] in (ROOT / "CHANGELOG.md").read_text()
    found = drift["measure_all"]()
    assert drift["differences"](stored["images"], found) == []


def test_every_kind_of_difference_is_found(stored):
    images = stored["images"]
    assert drift["differences"](images, images) == []
    changed = copy.deepcopy(images)
    lumbar = changed["lumbar_T1w.nii.gz"]
    lumbar["vertebrae_L3"]["volume-mm3"] *= 1.1
    lumbar["vertebrae_T13"] = lumbar.pop("vertebrae_L2")
    del lumbar["disc_L3_L4"]["height-mm"]
    assert [line.split(": ")[1].split()[:2] for line in drift["differences"](images, changed)] == [
        ["disc_L3_L4", "height-mm"],
        ["vertebrae_L2", "is"],
        ["vertebrae_L3", "volume-mm3"],
        ["vertebrae_T13", "is"],
    ]
