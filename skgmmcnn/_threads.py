"""Computation in threads with results that do not depend on the number of threads.

Torch divides one product among its threads.  That is slow for small products and on a busy processor, and rounding
depends on the number of threads.  Here each block of the work is computed by one thread, and blocks run in parallel.
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

# About ten times the work that is done while new threads start, which takes 0.3 ms.
_MIN_OPERATIONS = 2**27
_lock = threading.Lock()
# The number of torch threads before a thread entered `one_thread`, until it leaves.
_user_settings = threading.local()


def n_threads() -> int:
    """Return the number of torch threads set by the user."""
    return getattr(_user_settings, "n_threads", torch.get_num_threads())


@contextmanager
def one_thread() -> Iterator[None]:
    """Restrict torch to the calling thread; the number of threads is restored on exit."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    _user_settings.n_threads = before
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        del _user_settings.n_threads


def by_blocks(work: Callable[[B], R], blocks: Iterable[B], n_operations: float) -> Iterator[R]:
    """Yield the results of `work` for each block in order, each computed by one thread.

    Threads are used from 2**27 `n_operations` on, the approximate number of multiplications in all blocks; 0 stands for
    work on another device.
    """
    blocks = iter(blocks)
    n = n_threads()
    if n == 1 or n_operations < _MIN_OPERATIONS:
        for block in blocks:
            with one_thread():
                result = work(block)
            yield result
        return
    # The pool ends with the call: a forked process would wait for its threads, which are not copied.
    pool = ThreadPoolExecutor(n, "skgmmcnn", _use_one_thread)
    try:
        waiting = deque(pool.submit(work, block) for block in islice(blocks, 2 * n))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, block) for block in islice(blocks, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    """Restrict torch to the calling, new thread.

    `torch.set_num_threads` applies to the calling thread and to threads that have not started yet; a short-lived
    thread restores the latter.
    """
    with _lock:
        usual = torch.get_num_threads()
        torch.set_num_threads(1)
        other = threading.Thread(target=torch.set_num_threads, args=(usual,))
        other.start()
        other.join()
