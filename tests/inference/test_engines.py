import logging
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.inference.untrained import write_untrained_model
from totalspineseg_bids.errors import ModelError, UsageError
from totalspineseg_bids.inference import engines
from totalspineseg_bids.inference.engines import import_openvino, make_engine, resolve_device, torch_threads
from totalspineseg_bids.inference.model import load_model
from totalspineseg_bids.inference.options import InferenceOptions
from totalspineseg_bids.inference.predictor import Predictor

from .samples import ISO, OPENVINO, STEP2, TORCH, image

openvino = import_openvino()


def patch_of(shape=(16, 16, 16)):
    return torch.from_numpy(image(2, shape) / 100)


@pytest.mark.parametrize("outputs", [3, 20])
def test_auto_takes_openvino_on_cpu_and_it_agrees_with_torch_at_any_shape_of_patches(outputs, tmp_path):
    """With many outputs OpenVINO gives channels last."""
    dataset = STEP2 | {"labels": {"background": 0} | {f"class_{n}": n for n in range(1, outputs)}}
    dataset.pop("regions_class_order", None)
    model = load_model(write_untrained_model(tmp_path, dataset, folds=2))
    plain = make_engine(model, TORCH)
    converted = make_engine(model, InferenceOptions(device="cpu", threads=1, precision="fp32"))
    assert converted.name == "openvino"
    shapes = ((16, 16, 16), (20, 16, 24), (16, 12, 16), (20, 16, 24))
    for shape in shapes if outputs == 3 else shapes[:1]:
        expected = plain(patch_of(shape))
        np.testing.assert_allclose(converted(patch_of(shape)), expected, atol=1e-3)
        np.testing.assert_allclose(converted(patch_of(shape)), expected, atol=1e-3)
        converted.release()


def test_openvino_takes_any_even_size_of_a_network_on_blocks(tmp_path):
    model = load_model(write_untrained_model(tmp_path, STEP2, architecture="blocks"))
    plain = make_engine(model, TORCH)
    converted = make_engine(model, InferenceOptions(device="cpu", threads=1, precision="fp32"))
    for shape in ((16, 16, 16), (18, 22, 30), (24, 16, 20)):
        np.testing.assert_allclose(converted(patch_of(shape)), plain(patch_of(shape)), atol=1e-3)


def test_openvino_leaves_the_choice_of_cores_to_the_system(model, monkeypatch):
    compiled = []
    compile_model = openvino.Core.compile_model

    def recorded(*args):
        compiled.append(compile_model(*args))
        return compiled[-1]

    monkeypatch.setattr(openvino.Core, "compile_model", recorded)
    make_engine(model, InferenceOptions(device="cpu", threads=1))(patch_of())
    assert compiled
    assert not any(network.get_property("ENABLE_CPU_PINNING") for network in compiled)


@pytest.fixture(params=["FP32", "FP32 BF16"], ids=["old processor", "new processor"])
def has_bf16(request, monkeypatch):
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: request.param.split())
    return "BF16" in request.param


@pytest.mark.parametrize(("told", "asked"), [(True, "auto"), (False, "auto"), (True, "fp32")])
def test_openvino_takes_bfloat16_where_model_and_processor_do(has_bf16, told, asked, tmp_path, caplog):
    bits = "bf16" if has_bf16 and told and asked == "auto" else "fp32"
    write_untrained_model(tmp_path, STEP2, configuration={"use_bfloat16": told})
    with caplog.at_level(logging.INFO, logger=engines.__name__):
        engine = make_engine(load_model(tmp_path), InferenceOptions(device="cpu", engine="openvino", precision=asked))
    assert caplog.messages[-1].endswith(f"runs on OpenVINO in {bits}")
    expected = make_engine(load_model(tmp_path), TORCH)(patch_of())
    assert ((engine(patch_of()) - expected).abs() < (1e-3 if bits == "fp32" else 0.5)).float().mean() > 0.95


@pytest.mark.parametrize(("least", "chosen"), [(0.5, "bf16"), (1.01, "fp32")])
def test_a_model_that_does_not_state_its_precision_is_tried(least, chosen, model, monkeypatch):
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    monkeypatch.setattr(engines, "_LEAST_AGREEMENT", least)
    monkeypatch.setattr(engines, "_TRIED_FROM_VOXELS", 16**3)
    data = image(2, (16, 18, 20))
    tried = Predictor(model, InferenceOptions(device="cpu", engine="openvino"))
    stated = Predictor(model, InferenceOptions(device="cpu", engine="openvino", precision=chosen))
    expected = stated.predict(data, ISO).labels
    assert stated.precision_report is None
    np.testing.assert_array_equal(tried.predict(data, ISO).labels, expected)
    report = tried.precision_report
    assert report.startswith(f"{chosen}: ")
    # Later images neither change the decision nor pay for it.
    tried.predict(data[..., :12], ISO)
    assert tried.precision_report == report


def test_torch_in_reduced_precision_computes_as_autocast(model):
    for folds in (1, 2):
        some = replace(model, stored_weights=model.stored_weights[:folds])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            logits = [network(patch_of()[None])[0] for network in some.networks()]
        # A single network keeps its 16 bits, which take half as much memory and time to copy.
        expected = logits[0] if folds == 1 else sum(found.float() for found in logits) / folds
        found = make_engine(some, replace(TORCH, precision="bf16"))(patch_of())
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_auto_falls_back_to_torch_and_says_so(model, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with caplog.at_level(logging.WARNING):
        assert make_engine(model, InferenceOptions(device="cpu")).name == "torch"
    assert "OpenVINO does not work here" in caplog.text
    with pytest.raises(UsageError, match="engine openvino"):
        make_engine(model, OPENVINO)


@pytest.mark.parametrize(
    ("device", "message"),
    [*[(device, "not known") for device in ("gpu", "cuda:x", "cpu:1", "")], ("cuda:99", "not there")],
)
def test_unknown_and_absent_devices_are_refused(device, message):
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match=message):
        resolve_device(device)


def in_fresh_process(program, **environment):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=600)


def test_combinations_that_do_not_go_together(model):
    with pytest.raises(UsageError, match="runs on the CPU"):
        make_engine(model, InferenceOptions(device="cuda", engine="openvino"))
    with pytest.raises(UsageError, match="must be one of"):
        make_engine(model, InferenceOptions(engine="tensorflow"))
    with pytest.raises(UsageError, match="at least 1"):
        Predictor(model, InferenceOptions(threads=0))
    with pytest.raises(UsageError, match="step"):
        Predictor(model, step=0.0)


def test_threads_are_set_back():
    before = torch.get_num_threads()
    with torch_threads(3):
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_openvino_reports_nothing(tmp_path):
    """In a fresh process, with a home folder in which usage reporting would leave its traces."""
    in_fresh_process(
        "import sys\n"
        "from totalspineseg_bids.inference.compilation import import_openvino\n"
        "openvino = import_openvino()\n"
        "from openvino.tools.ovc import telemetry_utils\n"
        "assert telemetry_utils.tm.__name__ == 'openvino.tools.ovc.telemetry_stub', telemetry_utils.tm\n"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]\n",
        HOME=str(tmp_path),
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_after_a_segmentation_reaches_its_handler():
    """In a fresh process; a signal crashed it when the engines of several networks were freed one after the other."""
    in_fresh_process(
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


def test_predictor_refuses_what_does_not_fit(model):
    broken = image(2, (16, 16, 16))
    broken[0, 8, 8, 8] = np.nan
    for data, keep, message in (
        (image(1), (), "takes 2 channel"),
        (image(2), ["csf"], "no output csf"),
        (broken, (), "not numbers"),
    ):
        with pytest.raises(ModelError, match=message):
            Predictor(model, TORCH).predict(data, ISO, keep=keep)


MEMORY = {
    "enough memory": (None, 0, ["cuda"]),
    "too little for the sums": (
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        1,
        ["cuda"],
    ),
    "too little for a patch": (RuntimeError("MPS backend out of memory"), 2, ["cuda", "cpu"]),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_a_gpu_without_memory_keeps_sums_on_the_cpu_then_leaves_all_to_it(kind, model, monkeypatch, caplog):
    error, failures, devices = MEMORY[kind]
    plain = make_engine(model, TORCH)
    seen = []
    left = [error] * failures

    class Gpu:
        name, device = "torch", torch.device("cpu")

        def __call__(self, patch):
            if left:
                raise left.pop()
            return plain(patch)

        def decide(self, patches):
            pass

    def make(_, options):
        seen.append(options.device)
        return Gpu()

    monkeypatch.setattr("totalspineseg_bids.inference.predictor.make_engine", make)
    monkeypatch.setattr("totalspineseg_bids.inference.predictor.resolve_device", torch.device)
    found, expected = (
        Predictor(model, InferenceOptions(device=device)).predict(image(2, (20, 20, 20)), ISO).labels
        for device in ("cuda", "cpu")
    )
    np.testing.assert_array_equal(found, expected)
    assert seen == [*devices, "cpu"]
    assert caplog.text.count("memory of the GPU") == failures


def test_a_cpu_without_memory_fails(model, monkeypatch):
    def fail(*_):
        msg = "DefaultCPUAllocator: out of memory"
        raise RuntimeError(msg)

    monkeypatch.setattr("totalspineseg_bids.inference.predictor.make_engine", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        Predictor(model, TORCH).predict(image(2, (20, 20, 20)), ISO)
