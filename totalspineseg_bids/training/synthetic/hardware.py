"""What a training runs on."""

from __future__ import annotations

import platform

import torch


def computes_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies in bfloat16 itself; a processor that does not is slower with it."""
    if device.type == "cpu":
        # Older releases of torch do not tell; they go on in 32 bits.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "cuda"


def describe_machine(device: torch.device) -> str:
    """Return in words what a training ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()}, {torch.get_num_threads()} threads ({platform.machine()})"
