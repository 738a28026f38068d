"""Work shared among the processes of ``torch.distributed``, where that has been initialised; else all of it is ours.

Sampled rows, words and sums travel between processes, activations do not.  Every process ends with the same.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def n_processes() -> int:
    """Return how many processes share the work."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def my_share(n: int) -> slice:
    """Return which of n consecutive things this process takes."""
    if n_processes() == 1:
        return slice(0, n)
    rank, size = dist.get_rank(), dist.get_world_size()
    return slice(n * rank // size, n * (rank + 1) // size)


def gathered(mine: Any) -> list[Any]:
    """Return what each process has, in their order; all must call this."""
    if n_processes() == 1:
        return [mine]
    everyones: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyones, mine)
    return everyones
