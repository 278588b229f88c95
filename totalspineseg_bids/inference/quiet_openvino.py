"""OpenVINO without its usage reporting; loads neither torch nor nnU-Net."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """Import OpenVINO without its usage reporting.

    OpenVINO reports its import and each conversion over the network if ``openvino_telemetry`` is installed. While
    that package is hidden, OpenVINO takes its own stand-in that does nothing.

    Raises
    ------
    ImportError
        If OpenVINO is not installed.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == _TELEMETRY}
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment] # None makes an import of it fail
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules[_TELEMETRY]
        sys.modules.update(hidden)
