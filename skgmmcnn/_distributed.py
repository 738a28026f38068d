"""Division of work among the processes of ``torch.distributed``, if that is initialised.

Sampled rows, words and sums are exchanged between processes, activations are not.  All processes get equal results.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def n_processes() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def my_share(n: int) -> slice:
    """Return the local slice of n consecutive items."""
    if n_processes() == 1:
        return slice(0, n)
    rank, size = dist.get_rank(), dist.get_world_size()
    return slice(n * rank // size, n * (rank + 1) // size)


def gathered(value: Any) -> list[Any]:
    """Return the values of all processes in rank order (all-gather); every process must call this."""
    if n_processes() == 1:
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
