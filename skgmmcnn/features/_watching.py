"""Runs of networks in which the calls of submodules, and of torch functions in them, are intercepted.

Hooks and patched classes are not thread-safe: torch numbers hooks without a lock, hooks affect a network that runs in
another thread, and a patched class affects the whole process.  Here each run has a copy of the network, which shares
its tensors, and torch functions are intercepted in the calling thread.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Call(NamedTuple):
    """A call of a submodule, or of a torch function (`module` is None), the one numbered `place` of its `path`."""

    path: str
    place: int
    module: nn.Module | None

    @property
    def name(self) -> str:
        """Name as in torchvision: ``relu`` for the first call, ``relu_1`` for the second one."""
        return f"{self.path}_{self.place}" if self.place else self.path

    @property
    def computes(self) -> bool:
        """Whether the call is a single operation: a function, or a submodule of torch."""
        return self.module is None or is_of_torch(self.module)


class Watch(TorchFunctionMode):
    """One run of a network, of which subclasses override :meth:`see` or :meth:`call`.

    `layers` are the layers to see by the name of their call.  Torch functions are only intercepted with `functions`,
    and not inside modules of torch, unless a layer is in them.
    """

    def __init__(self, layers: Mapping[str, str] | None = None, *, functions: bool = True) -> None:
        super().__init__()
        self.layers, self._functions = layers or {}, functions
        self.counts: Counter[tuple[str, bool]] = Counter()
        self._intercepting = False

    def see(self, call: Call, result: Any) -> Any:
        """Return the result of a call, or a replacement."""
        return result

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Run a submodule or function and return its result."""
        return self.seen(path, module, function(*args, **kwargs))

    def seen(self, path: str, module: nn.Module | None, result: Any) -> Any:
        """Count a call and return its result, or a replacement."""
        key = path, module is None
        self.counts[key] += 1
        return self.see(Call(path, self.counts[key] - 1, module), result)

    def run(self, network: nn.Module, batch: Tensor) -> Any:
        """Run a copy of a network, whose submodules call :meth:`submodule`."""
        self._scope = "", network
        return self._inside(*self._scope, network, batch)

    def submodule(self, path: str, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """Run a submodule inside :meth:`call`."""
        if not is_of_torch(module) or any(layer.startswith(f"{path}.") for layer in self.layers):
            forward = partial(self._inside, path, module, forward)
        with self._intercept(False):
            return self.call(path, module, forward, args, kwargs)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch._C._set_grad_enabled:
            return func(*args, **(kwargs or {}))
        (scope, module), name = self._scope, func.__name__.strip("_")
        path = f"{scope}.{name}".lstrip(".") + "()" * (name in module._modules)  # else it could be a submodule
        self._intercepting = False  # torch does not intercept functions in here
        try:
            return self.call(path, None, func, args, kwargs or {})
        finally:
            self._intercepting = True

    def _inside(self, path: str, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """Run the forward of a module, whose functions are intercepted."""
        outer, self._scope = self._scope, (path, module)
        try:
            with self._intercept(self._functions):
                return forward(*args, **kwargs)
        finally:
            self._scope = outer

    @contextmanager
    def _intercept(self, on: bool) -> Iterator[None]:
        """Intercept torch functions, or not."""
        changes = on != self._intercepting
        try:
            if changes:
                self._switch()
            yield
        finally:
            if changes:
                self._switch()

    def _switch(self) -> None:
        self._intercepting = not self._intercepting
        if self._intercepting:
            self.__enter__()
        else:
            self.__exit__(None, None, None)


def is_of_torch(module: nn.Module) -> bool:
    """Return whether a module is an operation of torch, not a container of modules."""
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential)


def version_of(tensor: Tensor) -> int:
    """Return the number of changes in place, which torch does not count in inference mode."""
    return 0 if tensor.is_inference() else tensor._version


class CopyPool:
    """Copies of a network for runs, one per concurrent run."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._idle: deque[_Copy] = deque()  # pop and append are thread-safe

    def run(self, batch: Tensor, watch: Watch) -> Any:
        """Return the output of the network for `batch`, in a run intercepted by `watch`."""
        try:
            copied = self._idle.pop()
        except IndexError:
            copied = _Copy(self._network)
        copied.watch = watch
        try:
            return watch.run(copied.network, batch)
        finally:
            del copied.watch
            self._idle.append(copied)


class _Copy:
    """A copy of the modules of a network with the same tensors, whose submodules run through `watch`."""

    watch: Watch

    def __init__(self, network: nn.Module) -> None:
        modules = list(network.modules())
        shared: dict[int, Any] = {
            id(kept): kept for module in modules for kept in (module._parameters, module._buffers)
        }
        for module in modules:
            shared |= {id(value): value for value in vars(module).values() if isinstance(value, Tensor)}
        self.network = copy.deepcopy(network, shared)
        for name, module in self.network.named_modules():
            if name:
                vars(module)["forward"] = partial(self._call, name, module, module.forward)

    def _call(self, *call: Any, **kwargs: Any) -> Any:
        return self.watch.submodule(*call, **kwargs)
