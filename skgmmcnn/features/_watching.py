"""Runs of networks in which the calls of submodules, and of torch functions in them, are intercepted.

Hooks and patched classes are not thread-safe: torch numbers hooks without a lock, hooks affect a network that runs in
another thread, and a patched class affects the whole process.  Here each run has a copy of the network, which shares
its tensors, and torch functions are intercepted in the calling thread.
"""

from __future__ import annotations

import copy
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class StopRun(BaseException):
    """Stop of a run at a layer.  Not an Exception, since the forward of a network may catch these."""


class Call(NamedTuple):
    """The call with a `number`, from 0 on, of the submodule, or torch function (`module` is None), at a `path`."""

    path: str
    number: int
    module: nn.Module | None

    @property
    def name(self) -> str:
        """Name as in torchvision: ``relu`` for the first call, ``relu_1`` for the second one."""
        return f"{self.path}_{self.number}" if self.number else self.path

    @property
    def computes(self) -> bool:
        """Whether the call is a single operation: a function, or a submodule of torch."""
        return self.module is None or is_of_torch(self.module)


class Watch(TorchFunctionMode):
    """One run of a network in which calls are intercepted, except for torch functions inside modules of torch.

    Subclasses override :meth:`see`, or :meth:`call`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._scope: tuple[str, nn.Module] | None = None  # the running submodule, None if calls are not intercepted
        self._intercepts_functions = False

    def see(self, call: Call, result: Any) -> Any:
        """Return the result of a call, or a replacement."""
        return result

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Run a submodule or function and return its result, or a replacement."""
        result = function(*args, **kwargs)
        return self.see(self.count(path, module), result)

    def count(self, path: str, module: nn.Module | None) -> Call:
        """Return the call of a submodule or function with its number."""
        self.counts[path] += 1
        return Call(path, self.counts[path] - 1, module)

    def looks_into(self, path: str) -> bool:
        """Return whether calls inside a submodule are intercepted."""
        return True

    def run(self, network: nn.Module, batch: Tensor) -> Any:
        """Run a copy of a network, whose submodules call :meth:`submodule`."""
        return self._inside(("", network), network, batch)

    def submodule(self, path: str, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """Run a submodule inside :meth:`call`."""
        if self._scope is None:
            return forward(*args, **kwargs)
        scope = (path, module) if self.looks_into(path) else None
        with self._intercept_functions(False):
            return self.call(path, module, partial(self._inside, scope, forward), args, kwargs)

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is torch._C._set_grad_enabled or self._scope is None:
            return func(*args, **(kwargs or {}))
        scope, module = self._scope
        name = func.__name__.strip("_")
        path = f"{scope}.{name}".lstrip(".")
        if name in module._modules:
            path += "()"  # else it would be the path of the submodule
        self._intercepts_functions = False  # torch does not intercept functions in here
        try:
            return self.call(path, None, func, args, kwargs or {})
        finally:
            self._intercepts_functions = True

    def _inside(self, scope: tuple[str, nn.Module] | None, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        """Run the forward of a module in its scope."""
        outer, self._scope = self._scope, scope
        try:
            with self._intercept_functions(scope is not None and not is_of_torch(scope[1])):
                return forward(*args, **kwargs)
        finally:
            self._scope = outer

    @contextmanager
    def _intercept_functions(self, on: bool) -> Iterator[None]:
        changes = on != self._intercepts_functions
        try:
            if changes:
                self._switch()
            yield
        finally:
            if changes:
                self._switch()

    def _switch(self) -> None:
        self._intercepts_functions = not self._intercepts_functions
        if self._intercepts_functions:
            self.__enter__()
        else:
            self.__exit__(None, None, None)


class LayerCalls(NamedTuple):
    """Layers by the names of their calls, and the paths of the submodules inside which they are called."""

    layers: Mapping[str, str]
    scopes: Sequence[str]


class LayerWatch(Watch):
    """A run in which layers are intercepted; subclasses override :meth:`see_layer`."""

    def __init__(self, calls: LayerCalls) -> None:
        super().__init__()
        self.calls = calls

    def looks_into(self, path: str) -> bool:
        """Return whether layers are called inside a submodule."""
        return path in self.calls.scopes

    def layer_of(self, call: Call) -> str | None:
        """Return the layer that a call is, None for other calls."""
        return self.calls.layers.get(call.name)

    def see(self, call: Call, result: Any) -> Any:
        """Return the result of a call, or a replacement for that of a layer."""
        layer = self.layer_of(call)
        return result if layer is None else self.see_layer(layer, result)

    def see_layer(self, layer: str, result: Any) -> Any:
        """Return the result of a layer, or a replacement."""
        return result


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
        shared: dict[int, Any] = {}
        for module in network.modules():
            tensors = [value for value in vars(module).values() if isinstance(value, Tensor)]
            shared |= {id(value): value for value in (module._parameters, module._buffers, *tensors)}
        self.network = copy.deepcopy(network, shared)
        for name, module in self.network.named_modules():
            if name:
                vars(module)["forward"] = partial(self._call, name, module, module.forward)

    def _call(self, *call: Any, **kwargs: Any) -> Any:
        return self.watch.submodule(*call, **kwargs)
