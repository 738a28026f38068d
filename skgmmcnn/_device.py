"""Devices and floating-point precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the torch device; ``"auto"`` is a GPU if one is available, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"Unknown device={device!r}; use 'auto', 'cpu' or 'cuda'.") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r}, but torch finds no GPU; use device='auto' or device='cpu'.")
    return resolved


def _tf32_switches() -> list[tuple[Any, str, Any]]:
    """Return owner, name and exact setting of the TF32 switches, which differ between torch releases."""
    if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        convolutions: Any = getattr(torch.backends.cudnn, "conv")  # noqa: B009 - the stubs do not know it
        return [(owner, "fp32_precision", "ieee") for owner in (torch.backends.cuda.matmul, convolutions)]
    return [(torch.backends.cuda.matmul, "allow_tf32", False), (torch.backends.cudnn, "allow_tf32", False)]


@contextmanager
def exact_float32() -> Iterator[None]:
    """Compute float32 products on a GPU in float32 instead of TF32, so that results agree with the CPU."""
    switches = _tf32_switches()
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, exact in switches:
            setattr(owner, name, exact)
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
