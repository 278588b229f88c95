"""Hardware of a training."""

from __future__ import annotations

import platform

import torch


def computes_bfloat16(device: torch.device) -> bool:
    """Return whether a device has bfloat16 arithmetic; without it, bfloat16 is slower than float32."""
    if device.type == "cpu":
        # Older releases of torch lack this function; they compute in float32.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return device.type == "cuda"


def describe_machine(device: torch.device) -> str:
    """Describe the hardware of a training in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type.upper()}, {torch.get_num_threads()} threads ({platform.machine()})"
