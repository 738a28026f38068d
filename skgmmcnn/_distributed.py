"""Division of work among the processes of ``torch.distributed``, if it is initialised; one process otherwise.

Processes exchange sampled rows, words and sums, never activations, and all end with the same result.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def n_processes() -> int:
    """Return the number of processes that divide the work."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def local_slice(n: int) -> slice:
    """Return the slice of n consecutive items that this process takes."""
    if n_processes() == 1:
        return slice(0, n)
    rank, size = dist.get_rank(), dist.get_world_size()
    return slice(n * rank // size, n * (rank + 1) // size)


def all_gather(item: Any) -> list[Any]:
    """Return the items of all processes, in rank order; every process must call this."""
    if n_processes() == 1:
        return [item]
    items: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items
