"""Engines that run a network: OpenVINO on CPU, torch on any device."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.inference import network_cache
from totalspineseg_bids.inference.compilation import (
    Compilation,
    compile_networks,
    import_openvino,
    is_compiled_ahead,
    openvino_core,
    remember,
    take_compiled,
)
from totalspineseg_bids.inference.model import NnUNetModel
from totalspineseg_bids.inference.options import InferenceOptions, Precision

logger = logging.getLogger(__name__)

DEFAULT_OPTIONS = InferenceOptions()
_CONVOLUTIONS = (torch.nn.Conv3d, torch.nn.ConvTranspose3d)
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
#: Share of labels that must not change for ``auto`` to compute in bfloat16.
_LEAST_AGREEMENT = 0.999
#: Smallest patch of a network for which the trial is worth its time.
_TRIED_FROM_VOXELS = 500_000
#: Number of outputs from which OpenVINO's copy to channels first is slow (measured with 2026.4 on AVX-512).
_MANY_OUTPUTS = 16


class Engine:
    """Runs a network, all folds averaged, on one patch.

    Attributes
    ----------
    name
        ``"openvino"`` or ``"torch"``.
    device
        Device of the patches and of the logits.
    precision_report
        Precision that was chosen by its effect, and how much of the labels stayed the same; ``None`` otherwise.
    """

    name: str
    device: torch.device
    precision_report: str | None = None

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return logits (outputs, A, B, C) of a patch (channels, A, B, C)."""
        raise NotImplementedError

    def release(self) -> None:
        """Free the memory that the next patch needs again; that of torch belongs to its allocator."""

    def decide(self, patches: Callable[[], Sequence[torch.Tensor]]) -> None:
        """Choose the precision, if that is still open, by its effect on patches of an image."""


class TorchEngine(Engine):
    """The network as nnU-Net runs it.

    Parameters
    ----------
    model
        What to run.
    device
        A torch device.
    precision
        ``auto``: 32-bit, on CUDA autocast to 16-bit floats as in nnU-Net.
    """

    name = "torch"

    def __init__(self, model: NnUNetModel, device: torch.device, precision: Precision = "auto") -> None:
        self.device = device
        self._networks = [network.to(device) for network in model.networks()]
        automatic = torch.float16 if device.type == "cuda" else None
        kinds = {"auto": automatic, "fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
        self._reduced = kinds[precision]
        if self._reduced is not None:
            # As autocast does it, but once: it converts weights without gradients again for every patch.
            for module in (module for network in self._networks for module in network.modules()):
                if isinstance(module, _CONVOLUTIONS):
                    module.to(self._reduced)

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return logits of a patch."""
        reduced = self._reduced
        autocast = contextlib.nullcontext() if reduced is None else torch.autocast(self.device.type, dtype=reduced)
        with torch.inference_mode(), autocast:
            logits: torch.Tensor = self._networks[0](patch[None])[0]
            for network in self._networks[1:]:
                logits = logits.float() + network(patch[None])[0].float()
        return logits if len(self._networks) == 1 else logits / len(self._networks)


class OpenVinoEngine(Engine):
    """The network converted for OpenVINO's CPU plugin, and compiled again when the shape of patches changes.

    Parameters
    ----------
    model
        What to run.
    threads
        Threads at most; all cores if not given.
    precision
        ``bf16`` and ``fp16`` let the plugin compute in fewer bits where the processor can; ``auto`` does so for models
        whose plans say that they lose nothing in bfloat16. For a model whose plans say neither, `decide` compares.

    Raises
    ------
    ImportError
        If OpenVINO cannot be imported.
    RuntimeError
        If the network cannot be converted.
    """

    name = "openvino"
    device = torch.device("cpu")

    def __init__(self, model: NnUNetModel, threads: int | None = None, precision: Precision = "auto") -> None:
        openvino = import_openvino()
        self._native = "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self._open = False
        if precision == "auto":
            # A processor that does not multiply in bfloat16 itself would be slower with it.
            large = math.prod(model.network_patch_size) >= _TRIED_FROM_VOXELS
            self._open = self._native and large and "use_bfloat16" not in model.configuration
            precision = "bf16" if model.use_bfloat16 and self._native else "fp32"
        self._regions = model.heads.regions
        self._properties: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            # Pinned threads take the first cores of the machine, so that processes beside each other share one core.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            self._properties["INFERENCE_NUM_THREADS"] = threads
        self._model, self._tries = model, self._open
        self._shape: torch.Size | None = None
        self._compiled_networks: list[Any] = []
        self._requests: list[Any] = []
        self._key = network_cache.network_key(model, openvino.__version__)
        # An error here, unlike one in the first prediction, lets `make_engine` fall back to torch.
        self._networks = [] if is_compiled_ahead(self._key) else self._read()
        logger.info("%s runs on OpenVINO in %s", model.name, precision)

    def _read(self) -> list[Any]:
        """Read the converted networks or, if they are not stored, convert them."""
        model, openvino = self._model, import_openvino()
        networks = network_cache.read_networks(openvino_core(), self._key, len(model.stored_weights))
        if networks is None:
            networks = _convert(model, openvino)
            compile_networks(networks, self._compilation([len(model.channel_names), *model.network_patch_size]))
            for network in networks:
                network.reshape(_any_patch(model))
            network_cache.write_networks(openvino, self._key, networks)
        return networks

    def _compilation(self, shape: Sequence[int]) -> Compilation:
        """Return how to compile the networks, with outputs as they are cheapest to take.

        A network that computes in bfloat16 gives bfloat16 logits, which halves their memory. In 32 bits the plugin
        moves many outputs from channels last, as convolutions give them, to channels first in a loop that can take
        longer than the network; `_channels_first` does so in a tenth of the time.
        """
        output: Literal["float32", "bfloat16", "channels last"] = "float32"
        if self._native and self._properties["INFERENCE_PRECISION_HINT"] == "bf16":
            output = "bfloat16"
        elif len(self._model.heads.names) >= _MANY_OUTPUTS:
            output = "channels last"
        return Compilation(self._key, len(self._model.stored_weights), list(shape), dict(self._properties), output)

    def _compiled(self, shape: torch.Size) -> list[Any]:
        """Compile the networks for a shape of patches; memory is about 160 bytes per voxel."""
        if shape != self._shape:
            self._discard()
            wanted = self._compilation(shape)
            self._compiled_networks = take_compiled(wanted)
            if not self._compiled_networks:
                self._networks = self._networks or self._read()
                self._compiled_networks = compile_networks(self._networks, wanted)
            if not self._tries:
                remember(self._model.digest, wanted)
            self._channels_last = wanted.output == "channels last"
            self._shape = shape
        if not self._requests:
            self._requests = [network.create_infer_request() for network in self._compiled_networks]
        return self._requests

    def release(self) -> None:
        """Free the memory of tensors; the compiled networks stay."""
        self._requests = []
        for network in self._compiled_networks:
            network.release_memory()

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return logits of a patch."""
        array = patch.float().contiguous().numpy()[None]
        requests = self._compiled(patch.shape)
        logits = self._run(requests[0], array)
        for request in requests[1:]:
            logits = logits.float() + self._run(request, array)
        return logits if len(requests) == 1 else logits / len(requests)

    def decide(self, patches: Callable[[], Sequence[torch.Tensor]]) -> None:
        """Use bfloat16 if it leaves at least 99.9 % of the labels of some patches as they are in 32 bits."""
        if not self._open:
            return
        self._open, taken = False, patches()
        labels = []
        for precision in ("fp32", "bf16"):
            self._use(precision)
            labels.append([self._decisions(self(patch)) for patch in taken])
        pairs = zip(*labels, strict=True)
        agreement = float(np.mean([float((one == other).all(0).float().mean()) for one, other in pairs]))
        precision = "bf16" if agreement >= _LEAST_AGREEMENT else "fp32"
        self._use(precision)
        self.precision_report = f"{precision}: {agreement:.3%} of labels in bf16 as in fp32"
        logger.info("%s", self.precision_report)

    def _discard(self) -> None:
        self._shape, self._compiled_networks, self._requests = None, [], []

    def _use(self, precision: str) -> None:
        self._discard()
        self._properties["INFERENCE_PRECISION_HINT"] = _HINTS[precision]

    def _decisions(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the outputs that each voxel belongs to, or the largest, shape (outputs or 1, A, B, C)."""
        return logits > 0 if self._regions else logits.argmax(0, keepdim=True)

    def _run(self, request: Any, array: NDArray[np.float32]) -> torch.Tensor:  # noqa: ANN401 - untyped library
        # The result stays valid until the next run of the same request; it is summed up before that.
        request.infer([array], share_inputs=True, share_outputs=True)
        data = request.get_output_tensor(0).data
        if data.dtype == np.float32:
            logits = torch.from_numpy(data)[0]
            return _channels_first(logits) if self._channels_last else logits
        # NumPy has no bfloat16, so that OpenVINO gives its bits another type.
        return torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)[0]


def _convert(model: NnUNetModel, openvino: ModuleType) -> list[Any]:
    """Convert the network of each fold, with patches of any size."""
    example = torch.zeros(1, len(model.channel_names), *_smallest_patch(model))
    networks = []
    for network in model.networks():
        with warnings.catch_warnings(), torch.inference_mode():
            # Tracing warns about shape checks in Python code; patches have shapes that pass them. Its own check,
            # which traces and compares twice more, takes seconds; the tests compare what is converted.
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
            networks.append(openvino.convert_model(traced, example_input=example, input=[_any_patch(model)]))
    return networks


def _channels_first(logits: torch.Tensor) -> torch.Tensor:
    """Copy logits of shape (A, B, C, outputs) to (outputs, A, B, C)."""
    # Torch copies a transposed matrix in blocks only into memory that is there.
    rows = logits.flatten(0, 2).t()
    return torch.empty(rows.shape).copy_(rows).reshape(-1, *logits.shape[:3])


def _any_patch(model: NnUNetModel) -> list[int]:
    """Return the shape of a batch of one patch of any size."""
    return [1, len(model.channel_names), -1, -1, -1]


def _smallest_patch(model: NnUNetModel) -> list[int]:
    """Return a patch of two voxels of the coarsest stage, the fewest that have a spread, to trace the network on."""
    size = list(model.coarsest_voxel)
    axis = next((k for k in range(3) if model.network_patch_size[k] >= 2 * size[k]), 0)
    size[axis] *= 2
    return size


def resolve_device(device: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` into a torch device that is there.

    Raises
    ------
    UsageError
        If it is none of these, or not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, number = device.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (number and not (kind == "cuda" and number.isdigit())):
        msg = f"device {device!r} is not known; use auto, cpu, cuda, cuda:N or mps"
        raise UsageError(msg)
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present[kind]:
        msg = f"device {device} is not there; use --device cpu, or auto to take what is"
        raise UsageError(msg)
    return torch.device(device)


def make_engine(model: NnUNetModel, options: InferenceOptions = DEFAULT_OPTIONS) -> Engine:
    """Build the engine for a model.

    Parameters
    ----------
    model : NnUNetModel
        Network to run.
    options : InferenceOptions
        Device, engine, threads and precision.

    Raises
    ------
    UsageError
        If engine, device or precision do not exist or do not go together.
    ModelError
        If the network cannot be built.
    """
    if options.engine == "openvino":
        if options.device not in {"auto", "cpu"}:
            msg = f"engine openvino runs on the CPU, not on {options.device}; use --engine torch"
            raise UsageError(msg)
        try:
            return OpenVinoEngine(model, options.thread_count, options.precision)
        except (ImportError, RuntimeError) as error:
            msg = f"engine openvino does not work here ({_first_line(error)}); use --engine torch"
            raise UsageError(msg) from error
    device = resolve_device(options.device)
    if options.engine == "auto" and device.type == "cpu":
        try:
            return OpenVinoEngine(model, options.thread_count, options.precision)
        except (ImportError, RuntimeError) as error:
            logger.warning("OpenVINO does not work here (%s); running on torch, which is slower", _first_line(error))
    return TorchEngine(model, device, options.precision)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", maxsplit=1)[0]


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Limit torch's threads for a while; ``None`` leaves them alone."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
