"""Work divided among threads such that its results do not depend on their number.

Torch divides one product among its threads, which costs more than small products are worth, waits long where other
programs want the processor, and rounds by the number of threads.  Here each block of the work is computed by one
thread, and threads take different blocks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch

B = TypeVar("B")
R = TypeVar("R")

# New threads take 0.3 ms to begin; less work than some ten times that is done at once.
_WORTH = 2**27
_beginning = threading.Lock()


class _Outside(threading.local):
    """How many threads torch had in this thread before :func:`one_thread`; 0 outside of it."""

    n_threads = 0


_outside = _Outside()


def n_threads() -> int:
    """Return how many threads the caller of the package lets torch have."""
    return _outside.n_threads or torch.get_num_threads()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread alone; the number of threads is then put back."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    _outside.n_threads = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _outside.n_threads = 0


def by_blocks(work: Callable[[B], R], blocks: Iterable[B], n_operations: float) -> Iterator[R]:
    """Yield what `work` returns for each of the blocks, in their order.

    Parameters
    ----------
    work : callable
        Gets a block.  It is called in several threads at once where all blocks together are worth it.
    blocks : iterable
        What to work on.
    n_operations : float
        Multiplications of all blocks together, roughly; 0 where another device computes.

    Yields
    ------
    found : object
        Results, each computed by one thread.
    """
    blocks, n = iter(blocks), n_threads()
    if n == 1 or n_operations < _WORTH:
        for block in blocks:
            with one_thread():
                found = work(block)
            yield found
        return
    # Threads that outlive the call would be missing in processes forked from this one, which would wait for them.
    pool = ThreadPoolExecutor(n, "skgmmcnn", _compute_alone)
    try:
        waiting = deque(pool.submit(work, block) for block in islice(blocks, 2 * n))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(work, block) for block in islice(blocks, 1))
            yield found
    finally:
        pool.shutdown(cancel_futures=True)


def _compute_alone() -> None:
    """Let torch use no other threads in the calling one, which is new.

    `torch.set_num_threads` sets the number of the calling thread, and that of threads that have not begun yet: a
    thread that ends at once puts the latter back.
    """
    with _beginning:
        usual = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(usual,))
        other.start()
        other.join()
