"""Calls in a network, and the names of layers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ._watching import Call, LayerCalls, StopRun, Watch, version_of

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)


class FirstLayer(Watch):
    """A run that ends at the first convolution or fully connected layer."""

    path: str | None = None

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        if isinstance(module, _WEIGHTED):
            self.path = path
            raise StopRun
        return super().call(path, module, function, args, kwargs)

    def module_in(self, network: nn.Module) -> nn.Module | None:
        """Return the layer, the first one defined if none ran."""
        if self.path is not None:
            return network.get_submodule(self.path)
        return next((module for module in network.modules() if isinstance(module, _WEIGHTED)), None)


class _Entry(NamedTuple):
    """A call, the number of the tensor that it returned, None for other results, and the submodules around it."""

    call: Call
    tensor: int | None
    scopes: tuple[str, ...]


class Listing(Watch):
    """A run that lists all calls, in the order in which they return.

    Each tensor has a number, which it keeps while modules pass it on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._entries: list[_Entry] = []
        self._numbers: dict[tuple[int, int], int] = {}
        self._results: list[Any] = []  # kept, so that their ids stay unique
        self._running: list[str] = []

    def run(self, network: nn.Module, batch: Tensor) -> Any:
        """Run a network and list its calls."""
        self._submodules = dict(network.named_modules()).keys()
        return super().run(network, batch)

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        self._running.append(path)
        try:
            return super().call(path, module, function, args, kwargs)
        finally:
            self._running.pop()

    def see(self, call: Call, result: Any) -> Any:
        self._results.append(result)
        number = None
        if isinstance(result, Tensor):
            version = id(result), version_of(result)
            if call.computes:
                self._numbers[version] = len(self._entries)
            number = self._numbers.setdefault(version, len(self._entries))
        self._entries.append(_Entry(call, number, tuple(self._running[:-1])))
        return result

    def find(self, layers: Sequence[str]) -> LayerCalls:
        """Return `layers` in network order; raise an error if one cannot be captured."""
        tensors = {entry.call.name: entry.tensor for entry in self._entries}
        layer_of_tensor: dict[int, str] = {}
        for layer in layers:
            name = self._call_name(layer)
            if layer in self._submodules and self.counts[layer] > 1:
                raise ValueError(
                    f"Layer {layer!r} runs {self.counts[layer]} times in one forward pass. Name one of these calls: "
                    f"{layer + '_0'!r} is the first, {layer + '_1'!r} the second."
                )
            if layer in ("input", "decision"):
                raise ValueError(f"The layer name {layer!r} is reserved; name a layer inside or behind it.")
            if name not in tensors:
                raise self._unknown_layer(layer)
            tensor = tensors[name]
            other = layer if tensor is None else layer_of_tensor.setdefault(tensor, layer)
            if other != layer:
                raise ValueError(f"Layers {other!r} and {layer!r} are the same tensor; name one.")
        names = {self._call_name(layer): layer for layer in layers}
        return self._layer_calls({name: names[name] for name in tensors if name in names})

    def submodules(self) -> LayerCalls:
        """Return all calls of submodules that return a tensor, the outermost of those that return the same."""
        calls: dict[int, Call] = {}
        for call, tensor, _ in sorted(self._entries, key=lambda entry: entry.call.path.count(".")):
            if call.module is not None and tensor is not None:
                calls.setdefault(tensor, call)
        ordered = [calls[tensor] for tensor in sorted(calls)]
        return self._layer_calls(
            {call.name: call.path if self.counts[call.path] == 1 else f"{call.path}_{call.number}" for call in ordered}
        )

    def _call_name(self, layer: str) -> str:
        """Return the name of the call of a layer, which is without a number for the first call."""
        return layer if layer in self._submodules else layer.removesuffix("_0")

    def _layer_calls(self, layers: Mapping[str, str]) -> LayerCalls:
        """Return the calls of layers, with the submodules around all calls that count for their numbers."""
        paths = {entry.call.path for entry in self._entries if entry.call.name in layers}
        scopes = [entry.scopes for entry in self._entries if entry.call.path in paths]
        return LayerCalls(layers, sorted(set().union(*scopes)))

    def _unknown_layer(self, name: str) -> ValueError:
        """Return the error for a layer that does not run, with the most similar names, else the first submodules."""
        if name in self._submodules:
            return ValueError(f"Layer {name!r} does not run. Name a layer inside it, or another one that runs.")
        submodules = [path for path in self.counts if path in self._submodules]
        names = [entry.call.name for entry in self._entries]
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or submodules[:10]
        return ValueError(f"The network has no layer {name!r}. Near names: {', '.join(map(repr, near))}.")
