"""Compile converted networks for OpenVINO's CPU plugin, those of the last process while torch is imported.

Compiling takes as long as importing a part of torch, on another core; this module does without torch.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Literal

from totalspineseg_bids.inference import network_cache

_TELEMETRY = "openvino_telemetry"
_importing = threading.RLock()


@dataclass(frozen=True, slots=True)
class Compilation:
    """Dependencies of compiled networks."""

    key: str
    """From `network_cache.network_key`."""
    folds: int
    """Number of networks."""
    shape: list[int]
    """Shape of a patch: channels, A, B, C."""
    properties: dict[str, Any]
    """Of OpenVINO's CPU plugin."""
    output: Literal["float32", "bfloat16", "channels last"]
    """Type of the logits, or their order of axes."""


#: Compiled or being compiled, by key.
_ahead: dict[str, tuple[Compilation, Future[list[Any]]]] = {}


def import_openvino() -> ModuleType:
    """Import OpenVINO without its usage reporting.

    OpenVINO reports its import and each conversion over the network if ``openvino_telemetry`` is installed. While
    that package is hidden, OpenVINO takes its own stand-in that does nothing.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    """
    with _importing:
        if loaded := sys.modules.get("openvino"):
            return loaded
        hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == _TELEMETRY}
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # None makes an import of it fail
        try:
            return importlib.import_module("openvino")
        finally:
            del sys.modules[_TELEMETRY]
            sys.modules.update(hidden)


def openvino_core() -> Any:  # noqa: ANN401 - untyped library
    """Return OpenVINO's core, one for the process.

    Each core installs a signal stack in the thread that creates it, and frees this stack when it is destroyed. With
    several cores, a stack that is already freed can be installed again, and the next signal crashes the process.
    """
    with _importing:
        return _core()


@functools.cache
def _core() -> Any:  # noqa: ANN401
    return import_openvino().Core()


def compile_networks(networks: Sequence[Any], wanted: Compilation) -> list[Any]:
    """Compile the networks of a model for a shape of patches; this takes 0.1 s.

    Raises
    ------
    RuntimeError
        If they do not take such patches.
    """
    compiled = []
    for network in networks:
        network.reshape([1, *wanted.shape])
        if list(network.output(0).shape)[2:] != wanted.shape[1:]:
            msg = f"the converted network does not take patches of {tuple(wanted.shape[1:])}"
            raise RuntimeError(msg)
        compiled.append(openvino_core().compile_model(_with_output(network, wanted), "CPU", wanted.properties))
    return compiled


def _with_output(network: Any, wanted: Compilation) -> Any:  # noqa: ANN401
    if wanted.output == "float32":
        return network
    openvino = import_openvino()
    steps = openvino.preprocess.PrePostProcessor(network.clone())
    if wanted.output == "bfloat16":
        steps.output().tensor().set_element_type(openvino.Type.bf16)
    else:
        steps.output().model().set_layout(openvino.Layout("NCDHW"))
        steps.output().tensor().set_layout(openvino.Layout("NDHWC"))
    return steps.build()


def compile_ahead(models: Iterable[str]) -> None:
    """Start to compile the networks of models, given by their digests, as the last process compiled them."""
    uses = network_cache.read_uses()
    pool = ThreadPoolExecutor(1)
    for digest in models:
        with suppress(KeyError, TypeError):  # not used yet, or by another version of this program
            wanted = Compilation(**uses[digest])
            _ahead[wanted.key] = wanted, pool.submit(_compile_stored, wanted)
    pool.shutdown(wait=False)


def _compile_stored(wanted: Compilation) -> list[Any]:
    networks = network_cache.read_networks(openvino_core(), wanted.key, wanted.folds)
    return compile_networks(networks or [], wanted)


def is_compiled_ahead(key: str) -> bool:
    """Return whether `take_compiled` may have the networks of a key."""
    return key in _ahead


def take_compiled(wanted: Compilation) -> list[Any]:
    """Return networks that were compiled ahead, and empty if these are not such networks."""
    found, networks = _ahead.pop(wanted.key, (None, None))
    if networks is None or found != wanted or networks.exception() is not None:
        return []
    return networks.result()


def remember(model: str, wanted: Compilation) -> None:
    """Let the next process compile the networks of a model, given by its digest, ahead."""
    network_cache.write_use(model, asdict(wanted))
