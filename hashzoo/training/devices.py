"""Names of devices: which of them this machine has, and which one ``auto`` stands for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hashzoo.errors import EnvironmentFailure, UsageError


def resolve_device(device: str, count: int = 1) -> str:
    """The device that a name stands for: ``auto`` is ``cuda`` if there is such a device, else ``cpu``.

    Args:
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"mps"`` or ``"xpu"``. Other devices of torch are not
            looked for.
        count: Number of devices that train together.

    Raises:
        EnvironmentFailure: If this machine has no such device, or fewer than ``count``.
        UsageError: If several devices of one kind are asked for that can only be used alone.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "xpu": torch.xpu.is_available,
    }
    if kind in available and not available[kind]():
        raise EnvironmentFailure(f"no {kind.upper()} device is available here; use --device cpu")
    if count > 1 and device not in ("cpu", "cuda"):
        raise UsageError(f"--devices {count} cannot train on {device}; use --device cuda, or --devices 1")
    there = torch.cuda.device_count() if kind == "cuda" else 0
    if number and int(number) >= there:
        raise EnvironmentFailure(f"there is no device {device} here; the last one is cuda:{there - 1}")
    if kind == "cuda" and count > there:
        raise EnvironmentFailure(f"{there} CUDA devices are available, not {count}; use fewer --devices")
    return device
