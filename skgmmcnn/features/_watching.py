"""Copies of a network that share its tensors, in which every call of a submodule can be watched.

Neither hooks nor patched classes are safe beside other threads: torch numbers hooks without a lock, a network that is
running sees them come and go, and a patched class changes whatever else runs in the process.  A copy is nobody else's.
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
    """Return a copy of the modules of `network` that holds the same parameters, buffers and other tensors."""
    modules = list(network.modules())
    shared: dict[int, Any] = {id(held): held for module in modules for held in (module._parameters, module._buffers)}
    shared |= {id(value): value for module in modules for value in vars(module).values() if isinstance(value, Tensor)}
    return copy.deepcopy(network, shared)


def route(network: nn.Module, call: Callable) -> None:
    """Let every submodule of a copy run by ``call(name, module, forward, *args, **kwargs)``."""
    for name, module in network.named_modules():
        if name:
            vars(module)["forward"] = partial(call, name, module, module.forward)


class Watched:
    """Lets those who run a network see what its submodules return, each in a copy that is theirs while it runs."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._idle: deque[_Copy] = deque()  # whose pop and append are safe among threads

    @contextmanager
    def by(self, see: See) -> Iterator[nn.Module]:
        """Give the network, of which `see` gets every tensor that a submodule returns, and may return another."""
        try:
            mine = self._idle.pop()
        except IndexError:
            mine = _Copy(self._network)
        mine.see = see
        try:
            yield mine.network
        finally:
            mine.see = None
            self._idle.append(mine)


class _Copy:
    def __init__(self, network: nn.Module) -> None:
        self.see: See | None = None
        self.network = sharing(network)
        route(self.network, self._call)

    def _call(self, name: str, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        changed = self.see(name, result) if self.see and isinstance(result, Tensor) else None
        return result if changed is None else changed
