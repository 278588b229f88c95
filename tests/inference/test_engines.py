import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError, UsageError
from totalspineseg_bids.inference import engines
from totalspineseg_bids.inference.engines import make_engine, resolve_device, torch_threads
from totalspineseg_bids.inference.model import NnUNetModel, load_model
from totalspineseg_bids.inference.options import InferenceOptions, Precision
from totalspineseg_bids.inference.predictor import Predictor

from .samples import STEP2, image


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> NnUNetModel:
    return load_model(write_untrained_model(tmp_path_factory.mktemp("model"), STEP2, folds=2))


@pytest.mark.parametrize("outputs", [3, 20])
def test_auto_takes_openvino_on_cpu_and_it_agrees_with_torch(outputs: int, tmp_path: Path) -> None:
    """With many outputs OpenVINO gives channels last."""
    pytest.importorskip("openvino")
    dataset = STEP2 | {"labels": {"background": 0} | {f"class_{n}": n for n in range(1, outputs)}}
    dataset.pop("regions_class_order", None)
    model = load_model(write_untrained_model(tmp_path, dataset, folds=2))
    patch = torch.from_numpy(image(2, (16, 16, 16)) / 100)
    expected = make_engine(model, InferenceOptions(device="cpu", engine="torch"))(patch)
    engine = make_engine(model, InferenceOptions(device="cpu", threads=1, precision="fp32"))
    assert engine.name == "openvino"
    np.testing.assert_allclose(engine(patch), expected, atol=1e-3)
    np.testing.assert_allclose(engine(patch), expected, atol=1e-3)


def test_openvino_leaves_the_choice_of_cores_to_the_system(model: NnUNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = []
    compile_model = openvino.Core.compile_model

    def recorded(*args: object) -> object:
        compiled.append(compile_model(*args))
        return compiled[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", recorded)
    make_engine(model, InferenceOptions(device="cpu", threads=1))(torch.from_numpy(image(2, (16, 16, 16)) / 100))
    assert compiled
    assert not any(network.get_property("ENABLE_CPU_PINNING") for network in compiled)


def test_openvino_takes_patches_of_any_shape(model: NnUNetModel) -> None:
    pytest.importorskip("openvino")
    plain, converted = (
        make_engine(model, InferenceOptions(device="cpu", engine=name)) for name in ("torch", "openvino")
    )
    for shape in ((16, 16, 16), (20, 16, 24), (16, 12, 16), (20, 16, 24)):
        patch = torch.from_numpy(image(2, shape) / 100)
        np.testing.assert_allclose(converted(patch), plain(patch), atol=1e-3)
        converted.release()
        np.testing.assert_allclose(converted(patch), plain(patch), atol=1e-3)


@pytest.mark.parametrize(("native", "told", "asked", "bits"), [
    (True, True, "auto", "bf16"),
    (True, False, "auto", "fp32"),
    (False, True, "auto", "fp32"),
    (True, True, "fp32", "fp32"),
])  # fmt: skip
def test_openvino_takes_bfloat16_where_model_and_processor_do(  # noqa: PLR0917 - cases and fixtures
    native: bool,
    told: bool,
    asked: Precision,
    bits: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    openvino = pytest.importorskip("openvino")
    plans = write_untrained_model(tmp_path, STEP2) / "plans.json"
    content = json.loads(plans.read_text())
    content["configurations"]["3d_fullres"]["use_bfloat16"] = told
    plans.write_text(json.dumps(content))
    capabilities = ["FP32", "BF16"] if native else ["FP32"]
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: capabilities)
    with caplog.at_level(logging.INFO, logger=engines.__name__):
        engine = make_engine(load_model(tmp_path), InferenceOptions(device="cpu", engine="openvino", precision=asked))
    assert caplog.messages[-1].endswith(f"runs on OpenVINO in {bits}")
    patch = torch.from_numpy(image(2, (16, 16, 16)) / 100)
    expected = make_engine(load_model(tmp_path), InferenceOptions(device="cpu", engine="torch"))(patch)
    assert ((engine(patch) - expected).abs() < (1e-3 if bits == "fp32" else 0.5)).float().mean() > 0.95


@pytest.mark.parametrize(("least", "chosen"), [(0.5, "bf16"), (1.01, "fp32")])
def test_a_model_that_does_not_state_its_precision_is_tried(
    least: float, chosen: str, model: NnUNetModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = pytest.importorskip("openvino")
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    monkeypatch.setattr(engines, "_LEAST_AGREEMENT", least)
    monkeypatch.setattr(engines, "_TRIED_FROM_VOXELS", 16**3)
    data = image(2, (16, 18, 20))
    tried = Predictor(model, InferenceOptions(device="cpu", engine="openvino"))
    stated = Predictor(model, InferenceOptions(device="cpu", engine="openvino", precision=chosen))
    expected = stated.predict(data, (1.0, 1.0, 1.0)).labels
    assert stated.precision_report is None
    np.testing.assert_array_equal(tried.predict(data, (1.0, 1.0, 1.0)).labels, expected)
    report = tried.precision_report
    assert report is not None
    assert report.startswith(f"{chosen}: ")
    # Later images neither change the decision nor pay for it.
    tried.predict(data[..., :12], (1.0, 1.0, 1.0))
    assert tried.precision_report == report


def test_reduced_precision_stays_close(model: NnUNetModel) -> None:
    data = image(2, (16, 18, 20))
    full, reduced = (
        Predictor(model, InferenceOptions(device="cpu", engine="torch", precision=precision))
        .predict(data, (1.0, 1.0, 1.0))
        .labels
        for precision in ("fp32", "bf16")
    )
    assert (full != reduced).mean() < 0.05


def test_torch_in_reduced_precision_computes_as_autocast(model: NnUNetModel) -> None:
    patch = torch.from_numpy(image(2, (16, 16, 16)) / 100)
    for folds in (1, 2):
        some = replace(model, stored_weights=model.stored_weights[:folds])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            logits = [network(patch[None])[0] for network in some.networks()]
        engine = make_engine(some, InferenceOptions(device="cpu", engine="torch", precision="bf16"))
        # A single network keeps its 16 bits, which take half as much memory and time to copy.
        expected = logits[0] if folds == 1 else sum(found.float() for found in logits) / folds
        torch.testing.assert_close(engine(patch), expected, rtol=0, atol=0)


def test_auto_falls_back_to_torch_and_says_so(
    model: NnUNetModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "openvino")
    monkeypatch.setattr(engines.importlib, "import_module", _no_module)
    with caplog.at_level(logging.WARNING):
        assert make_engine(model, InferenceOptions(device="cpu")).name == "torch"
    assert "OpenVINO does not work here" in caplog.text
    with pytest.raises(UsageError, match="engine openvino"):
        make_engine(model, InferenceOptions(device="cpu", engine="openvino"))


def _no_module(name: str) -> None:
    msg = f"no module named {name}"
    raise ImportError(msg)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", ""])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(UsageError, match="not known"):
        resolve_device(device)


def test_devices_that_are_not_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="not there"):
        resolve_device("cuda:99")


def test_combinations_that_do_not_go_together(model: NnUNetModel) -> None:
    with pytest.raises(UsageError, match="runs on the CPU"):
        make_engine(model, InferenceOptions(device="cuda", engine="openvino"))
    with pytest.raises(UsageError, match="must be one of"):
        make_engine(model, InferenceOptions(engine="tensorflow"))
    with pytest.raises(UsageError, match="at least 1"):
        Predictor(model, InferenceOptions(threads=0))
    with pytest.raises(UsageError, match="step"):
        Predictor(model, step=0.0)


def test_threads_are_set_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_openvino_reports_nothing(tmp_path: Path) -> None:
    """In a fresh process, with a home folder in which usage reporting would leave its traces."""
    pytest.importorskip("openvino")
    program = (
        "import sys\n"
        "from totalspineseg_bids.inference.engines import import_openvino\n"
        "openvino = import_openvino()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__ == 'openvino.tools.ovc.telemetry_stub', telemetry_utils.tm\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=600)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_after_a_segmentation_reaches_its_handler() -> None:
    """In a fresh process; a signal crashed it when the engines of several networks were freed one after the other."""
    pytest.importorskip("openvino")
    program = (
        "import signal, numpy as np\n"
        "from totalspineseg_bids.imaging.volume import Volume\n"
        "from totalspineseg_bids.segmentation.api import segment\n"
        "noise = np.random.default_rng(0).random((24, 24, 24), np.float32)\n"
        "segment(Volume(noise, np.eye(4)), engine='openvino', step1_only=True)\n"
        "caught = []\n"
        "signal.signal(signal.SIGUSR1, lambda number, frame: caught.append(number))\n"
        "signal.raise_signal(signal.SIGUSR1)\n"
        "assert caught\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=600)


def test_predictor_refuses_what_does_not_fit(model: NnUNetModel) -> None:
    predictor = Predictor(model, InferenceOptions(device="cpu", engine="torch"))
    with pytest.raises(ModelError, match="takes 2 channel"):
        predictor.predict(image(1), (1.0, 1.0, 1.0))
    with pytest.raises(ModelError, match="no output csf"):
        predictor.predict(image(2), (1.0, 1.0, 1.0), keep=["csf"])


def test_output_that_is_not_finite_is_an_error(model: NnUNetModel) -> None:
    data = image(2, (16, 16, 16))
    data[0, 8, 8, 8] = np.nan
    with pytest.raises(ModelError, match="not numbers"):
        Predictor(model, InferenceOptions(device="cpu", engine="torch")).predict(data, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("error", "failures", "devices"),
    [
        (None, 0, ["cuda"]),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 1, ["cuda"]),
        (RuntimeError("MPS backend out of memory"), 2, ["cuda", "cpu"]),
    ],
    ids=["enough memory", "too little for the sums", "too little for a patch"],
)
def test_a_gpu_without_memory_keeps_sums_on_the_cpu_then_leaves_all_to_it(  # noqa: PLR0917 - cases and fixtures
    model: NnUNetModel,
    error: RuntimeError | None,
    failures: int,
    devices: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plain = make_engine(model, InferenceOptions(device="cpu", engine="torch"))
    seen: list[str] = []
    left = [error] * failures

    class Gpu:
        name, device = "torch", torch.device("cpu")

        def __call__(self, patch: torch.Tensor) -> torch.Tensor:
            if left and (problem := left.pop()) is not None:
                raise problem
            return plain(patch)

        def decide(self, patches: Callable[[], Sequence[torch.Tensor]]) -> None:
            pass

    def make(_: NnUNetModel, options: InferenceOptions) -> Gpu:
        seen.append(options.device)
        return Gpu()

    monkeypatch.setattr("totalspineseg_bids.inference.predictor.make_engine", make)
    monkeypatch.setattr("totalspineseg_bids.inference.predictor.resolve_device", torch.device)
    data = image(2, (20, 20, 20))
    found = Predictor(model, InferenceOptions(device="cuda")).predict(data, (1, 1, 1)).labels
    expected = Predictor(model, InferenceOptions(device="cpu")).predict(data, (1, 1, 1)).labels
    np.testing.assert_array_equal(found, expected)
    assert seen == [*devices, "cpu"]
    assert caplog.text.count("memory of the GPU") == failures


def test_a_cpu_without_memory_fails(model: NnUNetModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        msg = "DefaultCPUAllocator: out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr("totalspineseg_bids.inference.predictor.make_engine", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        Predictor(model, InferenceOptions(device="cpu")).predict(image(2, (20, 20, 20)), (1, 1, 1))
