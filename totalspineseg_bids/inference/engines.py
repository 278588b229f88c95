"""What runs a network: OpenVINO on CPU, torch anywhere."""

from __future__ import annotations

import contextlib
import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch

from totalspineseg_bids.errors import UsageError
from totalspineseg_bids.inference.model import NnUNetModel
from totalspineseg_bids.inference.quiet_openvino import import_openvino

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "openvino", "torch"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
ENGINE_NAMES: tuple[EngineName, ...] = ("auto", "openvino", "torch")
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16", "fp16")
#: Shapes of patches for which a network stays compiled.
_SHAPES_KEPT = 4


class Engine(Protocol):
    """Runs a network, all folds averaged, on one patch.

    Attributes
    ----------
    name
        ``"openvino"`` or ``"torch"``.
    device
        Where patches are taken from and logits are left.
    """

    name: str
    device: torch.device

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return logits (outputs, A, B, C) of a patch (channels, A, B, C)."""


class TorchEngine:
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

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return logits of a patch."""
        reduced = self._reduced
        autocast = contextlib.nullcontext() if reduced is None else torch.autocast(self.device.type, dtype=reduced)
        with torch.inference_mode(), autocast:
            logits: torch.Tensor = self._networks[0](patch[None])[0].float()
            for network in self._networks[1:]:
                logits = logits + network(patch[None])[0].float()
        return logits if len(self._networks) == 1 else logits / len(self._networks)


class OpenVinoEngine:
    """The network converted for OpenVINO's CPU plugin, and compiled for each shape of patch that comes.

    Parameters
    ----------
    model
        What to run.
    threads
        Threads at most; all cores if not given.
    precision
        ``bf16`` and ``fp16`` let the plugin compute in fewer bits where the processor can.

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
        hint = {"auto": "f32", "fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision]
        self._properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            self._properties["INFERENCE_NUM_THREADS"] = threads
        # Tracing runs the network a few times: on a patch of two voxels of its coarsest stage that takes no time.
        sizes = zip(model.network_patch_size, model.patch_multiple, strict=True)
        example = torch.zeros(1, len(model.channel_names), *(min(full, 2 * least) for full, least in sizes))
        self._core = openvino.Core()
        self._networks = []
        for network in model.networks():
            with warnings.catch_warnings(), torch.inference_mode():
                # Tracing warns about shape checks in Python code; patches have shapes that pass them.
                warnings.simplefilter("ignore")
                shape = [1, len(model.channel_names), -1, -1, -1]
                self._networks.append(openvino.convert_model(network, example_input=example, input=[shape]))
        self._requests: dict[torch.Size, list[Any]] = {}
        self._compiled(torch.Size([len(model.channel_names), *model.network_patch_size]))

    def _compiled(self, shape: torch.Size) -> list[Any]:
        """Compile the networks for a shape of patches; those of the last few shapes are kept."""
        if shape not in self._requests:
            while len(self._requests) >= _SHAPES_KEPT:
                self._requests.pop(next(iter(self._requests)))
            requests = []
            for network in self._networks:
                network.reshape([1, *shape])
                if tuple(network.output(0).shape)[2:] != tuple(shape[1:]):
                    msg = f"the converted network does not take patches of {tuple(shape[1:])}"
                    raise RuntimeError(msg)
                requests.append(self._core.compile_model(network, "CPU", self._properties).create_infer_request())
            self._requests[shape] = requests
        return self._requests[shape]

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return logits of a patch."""
        array = np.ascontiguousarray(patch.numpy()[None], dtype=np.float32)
        requests = self._compiled(patch.shape)
        logits = self._run(requests[0], array)
        for request in requests[1:]:
            logits = logits + self._run(request, array)
        return logits if len(requests) == 1 else logits / len(requests)

    @staticmethod
    def _run(request: Any, array: np.ndarray[Any, np.dtype[np.float32]]) -> torch.Tensor:  # noqa: ANN401 - untyped library
        # The result stays valid until the next run of the same request; it is summed up before that.
        request.infer([array], share_inputs=True, share_outputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data)[0]


class MirroredEngine:
    """Averages another engine over mirrored patches, as nnU-Net's test-time augmentation.

    Parameters
    ----------
    engine
        The other engine.
    axes
        Spatial axes of the network along which to mirror, together and one by one.
    shift
        Voxels by which mirrored patches are moved along every axis. A network that takes voxels in blocks then sees
        other blocks: what it draws to one side too much it draws to the other.
    """

    def __init__(self, engine: Engine, axes: Sequence[int], shift: int = 0) -> None:
        self.name = engine.name
        self.device = engine.device
        self._engine = engine
        self._shift = shift
        self._flips = [combo for size in range(1, len(axes) + 1) for combo in itertools.combinations(axes, size)]

    def __call__(self, patch: torch.Tensor) -> torch.Tensor:
        """Return logits of a patch."""
        # An engine may use the memory of what it returns again.
        mean = self._engine(patch).clone()
        by = self._shift
        for number, axes in enumerate(self._flips, start=2):
            seen = patch
            for axis in range(3):
                seen = seen.index_select(axis + 1, self._order(seen.shape[axis + 1], mirrored=axis in axes))
            logits = self._engine(seen)
            for axis in axes:
                order = self._order(logits.shape[axis + 1], mirrored=True)
                logits = logits.index_select(axis + 1, order.argsort())
            # Logits are as large as all that a network works on together, so the mean is taken in place, and along axes
            # that are only moved it is of what both saw.
            at = tuple(slice(0, None if axis in axes else n - by) for axis, n in enumerate(patch.shape[1:]))
            of = tuple(slice(0 if axis in axes else by, None) for axis in range(3))
            mean[(slice(None), *at)].lerp_(logits[(slice(None), *of)], 1.0 / number)
        return mean

    def _order(self, length: int, *, mirrored: bool) -> torch.Tensor:
        """Return where the voxels of a mirrored or moved line come from; what leaves at one end enters at the other."""
        order = torch.arange(length, device=self.device).roll(self._shift)
        return order.flip(0) if mirrored else order


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


def make_engine(
    model: NnUNetModel,
    *,
    device: str = "auto",
    engine: EngineName = "auto",
    threads: int | None = None,
    precision: Precision = "auto",
) -> Engine:
    """Build the engine for a model.

    Parameters
    ----------
    model
        What to run.
    device
        See ``resolve_device``.
    engine
        ``auto``: OpenVINO on CPU where it works (else torch, with a warning), torch elsewhere.
    threads
        Threads of the CPU at most.
    precision
        Arithmetic; ``auto`` is 32-bit except on CUDA.

    Raises
    ------
    UsageError
        If engine, device or precision do not exist or do not go together.
    ModelError
        If the network cannot be built.
    """
    if engine not in ENGINE_NAMES or precision not in PRECISIONS:
        msg = f"engine must be one of {', '.join(ENGINE_NAMES)} and precision one of {', '.join(PRECISIONS)}"
        raise UsageError(msg)
    if engine == "openvino":
        if device not in {"auto", "cpu"}:
            msg = f"engine openvino runs on the CPU, not on {device}; use --engine torch"
            raise UsageError(msg)
        try:
            return OpenVinoEngine(model, threads, precision)
        except (ImportError, RuntimeError) as error:
            msg = f"engine openvino does not work here ({_first_line(error)}); use --engine torch"
            raise UsageError(msg) from error
    place = resolve_device(device)
    if engine == "auto" and place.type == "cpu":
        try:
            return OpenVinoEngine(model, threads, precision)
        except (ImportError, RuntimeError) as error:
            logger.warning("OpenVINO does not work here (%s); running on torch, which is slower", _first_line(error))
    return TorchEngine(model, place, precision)


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
