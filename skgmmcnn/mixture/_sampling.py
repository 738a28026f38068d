"""Checks of the number of samples to draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any


@contextmanager
def sampling(n_samples: Any, n_channels: int) -> Iterator[None]:
    """Validate `n_samples`, and raise MemoryError with the size of samples that do not fit into memory."""
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}.")
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises the latter
        gigabytes = 8e-9 * int(n_samples) * n_channels
        raise MemoryError(
            f"n_samples={n_samples} rows of {n_channels} channels take {gigabytes:,.0f} GB, which do not fit into "
            "memory; draw fewer at a time."
        ) from error
