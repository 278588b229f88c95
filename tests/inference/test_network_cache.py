import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.inference import engines
from totalspineseg_bids.inference.compilation import compile_ahead
from totalspineseg_bids.inference.engines import make_engine
from totalspineseg_bids.inference.model import NnUNetModel, load_model
from totalspineseg_bids.inference.network_cache import CACHE_VARIABLE, cache_folder

from .samples import OPENVINO, STEP2, image


def outputs(model: NnUNetModel) -> list[np.ndarray]:
    engine = make_engine(model, OPENVINO)
    return [engine(torch.from_numpy(image(2, shape) / 100)).numpy().copy() for shape in ((16, 16, 16), (20, 16, 24))]


def unbuildable(_model: NnUNetModel) -> list[torch.nn.Module]:
    pytest.fail("the network was built again")


def test_a_converted_network_is_used_again_with_the_same_output(model, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "networks"))
    first = outputs(model)
    assert len([entry for entry in (tmp_path / "networks").iterdir() if entry.is_dir()]) == 1
    monkeypatch.setattr(NnUNetModel, "networks", unbuildable)
    for expected, found in zip(first, outputs(model), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", ["off", "damaged", "not writable", "other weights"])
def test_without_a_usable_entry_the_network_is_converted(case, model, tmp_path, monkeypatch):
    folder = tmp_path / "networks"
    monkeypatch.setenv(CACHE_VARIABLE, "off" if case == "off" else str(folder))
    expected = None
    if case == "damaged":
        expected = outputs(model)
        for file in folder.rglob("*.xml"):
            file.write_text("no network")
    elif case == "not writable":
        folder.write_text("a file where the folder should be")
    elif case == "other weights":
        outputs(load_model(write_untrained_model(tmp_path / "other", STEP2, seed=1)))
    found = outputs(model)
    for one, other in zip(found, expected or found, strict=True):
        np.testing.assert_array_equal(one, other)
    if case == "damaged":
        monkeypatch.setattr(NnUNetModel, "networks", unbuildable)
        outputs(model)


@pytest.mark.parametrize(("variables", "expected"), [
    ({CACHE_VARIABLE: "off"}, None),
    ({CACHE_VARIABLE: "/a/b"}, Path("/a/b")),
    ({"XDG_CACHE_HOME": "/c"}, Path("/c/totalspineseg_bids/networks")),
    ({"HOME": "/h"}, Path("/h/.cache/totalspineseg_bids/networks")),
])  # fmt: skip
def test_the_folder_follows_the_environment(variables, expected, monkeypatch):
    for name in (CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected


def uncompilable(*_arguments: object) -> list[object]:
    pytest.fail("the network was compiled again")


@pytest.mark.parametrize("case", ["same", "other patches", "other threads", "damaged", "of another version"])
def test_networks_are_compiled_ahead_as_the_last_process_did(
    case: str, model: NnUNetModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    last = torch.from_numpy(image(2, (20, 16, 24)) / 100)
    expected = make_engine(model, OPENVINO)(last).numpy().copy()
    if case == "damaged":
        for file in tmp_path.rglob("*.xml"):
            file.write_text("no network")
    elif case == "of another version":
        (tmp_path / "compiled.json").write_text(json.dumps({model.digest: {"key": "other"}}))
    compile_ahead([model.digest, "another model"])
    engine = make_engine(model, replace(OPENVINO, threads=2) if case == "other threads" else OPENVINO)
    if case == "same":
        monkeypatch.setattr(engines, "compile_networks", uncompilable)
    if case == "other patches":
        engine(last[:, :16, :, :16])
    # Sums of other threads are rounded in another order.
    np.testing.assert_allclose(engine(last), expected, rtol=0, atol=1e-3 if case == "other threads" else 0)
