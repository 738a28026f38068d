"""Copies of a network that share its tensors and intercept every call of a submodule.

Hooks and patched classes are not thread-safe: torch numbers hooks without a lock, hooks affect a network that runs in
another thread, and a patched class affects the whole process.  A copy belongs to one thread at a time.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

See = Callable[[str, Tensor], Tensor | None]


def sharing(network: nn.Module) -> nn.Module:
    """Return a copy of the modules of `network` with the same parameters, buffers and other tensors."""
    modules = list(network.modules())
    shared: dict[int, Any] = {id(kept): kept for module in modules for kept in (module._parameters, module._buffers)}
    shared |= {id(value): value for module in modules for value in vars(module).values() if isinstance(value, Tensor)}
    return copy.deepcopy(network, shared)


def route(network: nn.Module, call: Callable) -> None:
    """Route the calls of all submodules of a copy through ``call(name, module, forward, *args, **kwargs)``."""
    for name, module in network.named_modules():
        if name:
            vars(module)["forward"] = partial(call, name, module, module.forward)


class CopyPool:
    """Copies of a network that report what their submodules return, one per concurrent run."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._idle: deque[_Copy] = deque()  # pop and append are thread-safe

    @contextmanager
    def reporting_to(self, see: See) -> Iterator[nn.Module]:
        """Return a copy that calls `see` on every tensor returned by a submodule, which `see` may replace."""
        try:
            copied = self._idle.pop()
        except IndexError:
            copied = _Copy(self._network)
        copied.see = see
        try:
            yield copied.network
        finally:
            copied.see = None
            self._idle.append(copied)


class _Copy:
    def __init__(self, network: nn.Module) -> None:
        self.see: See | None = None
        self.network = sharing(network)
        route(self.network, self._call)

    def _call(self, name: str, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        changed = self.see(name, result) if self.see and isinstance(result, Tensor) else None
        return result if changed is None else changed
