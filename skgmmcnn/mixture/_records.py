"""Records of tensors, which are moved between devices, added and averaged as a whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """Base of dataclasses whose fields are tensors, records, tuples of these, and constants."""

    def to(self, device: torch.device | str) -> Self:
        return _map(lambda part: part.to(device), self)


@dataclass(frozen=True)
class Sums(Record):
    """Base of sums over rows, and of averages."""

    def add_(self, other: Self) -> Self:
        """Add the sums over other rows in place."""
        return _map(Tensor.add_, self, other)

    def blend(self, other: Self, share: float) -> Self:
        """Return ``(1 - share) * self + share * other`` of two averages."""
        return _map(lambda first, second: torch.lerp(first, second, share), self, other)


def _map(function: Callable[..., Tensor], first: Any, *others: Any) -> Any:
    """Return `first` with `function` applied to each of its tensors and those at the same place of `others`."""
    if isinstance(first, Tensor):
        return function(first, *others)
    if isinstance(first, Record):
        parts = {part.name: [getattr(record, part.name) for record in (first, *others)] for part in fields(first)}
        return replace(first, **{name: _map(function, *values) for name, values in parts.items()})
    if isinstance(first, tuple):
        mapped = [_map(function, *values) for values in zip(first, *others, strict=True)]
        return first._make(mapped) if hasattr(first, "_make") else tuple(mapped)
    return first
