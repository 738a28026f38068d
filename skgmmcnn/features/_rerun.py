"""Reruns of the part of a network above an edited layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, fx, nn

from ._forms import Form

Edits = Mapping[str, Callable[[Tensor], Tensor]]


class Run(Protocol):
    """A rerun from the lowest edited layer on, up to the layer `until` if given.

    Returns the output of the network, None if it was stopped, and the maps of the layers that ran.
    """

    def __call__(self, edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]: ...


class StopRun(BaseException):
    """Stop of a run at a layer.  Not an Exception, since the forward of a network may catch these."""


class ForwardPass(NamedTuple):
    """The output of a forward pass, its maps by layer, and a function that reruns it with edits."""

    outputs: Any
    maps: dict[str, Tensor]
    again: Run


class Layers(NamedTuple):
    """The modelled layers in a traced graph: their nodes in network order, and their forms.

    The value of a node is final after its `last` node, since operations in place may follow.
    """

    nodes: Mapping[fx.Node, str]
    last: Mapping[fx.Node, fx.Node]
    forms: Mapping[str, Form]


def edit(value: Tensor, form: Form, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the tensor of a layer with its map replaced by ``change(map)``; other tokens are unchanged."""
    old = form.as_map(value)
    new = change(old.float())
    if new.shape != old.shape:
        raise ValueError(f"An edit must return a map of shape {tuple(old.shape)}; it returned {tuple(new.shape)}.")
    value = value.clone()
    form.as_map(value).copy_(new)
    return value


def replace(where: Tensor, filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that sets the locations `where` (n, H, W) to `filling`, broadcast to (n, C, H, W)."""
    return lambda maps: torch.where(where[:, None], filling, maps)


def put(filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that replaces whole maps by `filling`, broadcast to (n, C, H, W)."""
    return filling.expand_as


def start(network: nn.Module, graph: fx.Graph, layers: Layers, batch: Tensor) -> ForwardPass:
    """Run `network` once on `batch` and keep what reruns from each layer need."""
    order = list(layers.nodes)
    above = {node: _above(graph, layers, order[place:]) for place, node in enumerate(order)}
    with torch.no_grad():
        first = _Pass(network, graph, layers, {}, above=above)
        outputs = first.run(batch)
    names = list(layers.nodes.values())

    def again(edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]:
        edited = [place for place, name in enumerate(names) if name in edits]
        if not edited:
            return outputs, dict(first.maps)
        lowest = order[edited[0]]
        values = {node: _copy(first.kept[lowest].get(node)) for node in graph.nodes if node not in above[lowest]}
        run = _Pass(network, graph, layers, edits, until=until)
        return run.resume(values, order[edited[0] :]), run.maps

    return ForwardPass(outputs, first.maps, again)


def run_edited(
    network: nn.Module, graph: fx.Graph, layers: Layers, batch: Tensor, edits: Edits
) -> tuple[Any, dict[str, Tensor]]:
    """Run `network` once on `batch` with edited layers; return its output and the maps of all layers."""
    run = _Pass(network, graph, layers, edits)
    return run.run(batch), run.maps


def _above(graph: fx.Graph, layers: Layers, editable: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on the final value of one of the layers `editable`."""
    ending = {layers.last[node]: node for node in editable}
    changed: set[fx.Node] = set()
    above: set[fx.Node] = set()
    for node in graph.nodes:
        if not changed.isdisjoint(node.all_input_nodes):
            above.add(node)
            changed.add(node)
        if node in ending:
            changed.add(ending[node])
    return above


def _copy(value: Any) -> Any:
    """Copy a tensor, which later operations may change in place."""
    return value.clone() if isinstance(value, Tensor) else value


class _Pass(fx.Interpreter):
    """A pass that edits and captures layers, and keeps the values that the nodes `above` each layer read from below.

    Values are copied when the first of these nodes reads them, since others may change them in place.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: fx.Graph,
        layers: Layers,
        edits: Edits,
        *,
        above: Mapping[fx.Node, set[fx.Node]] | None = None,
        until: str | None = None,
    ) -> None:
        super().__init__(network, graph=graph)
        self._layers, self._edits, self._above, self._until = layers, edits, above or {}, until
        self._ending = {layers.last[node]: node for node in layers.nodes}
        self._copies: dict[tuple[fx.Node, int], Tensor] = {}
        self.kept: dict[fx.Node, dict[fx.Node, Any]] = {layer: {} for layer in self._above}
        self.maps: dict[str, Tensor] = {}

    def resume(self, values: dict[fx.Node, Any], editable: list[fx.Node]) -> Any:
        """Run the nodes that are not in `values`, and edit those of the layers `editable`; return None if stopped."""
        try:
            for node in editable:
                if values.get(node) is not None:
                    values[node] = self._finish(node, values[node])
            return self.run(initial_env=values)
        except StopRun:
            return None

    def run_node(self, n: fx.Node) -> Any:
        for layer, above in self._above.items():
            if n in above:
                self._keep(n, above, self.kept[layer])
        result = super().run_node(n)
        final = self._ending.get(n)
        if final is None:
            return result
        if final is n:
            return self._finish(final, result)
        self.env[final] = self._finish(final, self.env[final])
        return result

    def _keep(self, n: fx.Node, above: set[fx.Node], kept: dict[fx.Node, Any]) -> None:
        for read in n.all_input_nodes:
            if read not in above and read not in kept:
                kept[read] = self._copy_once(read)

    def _copy_once(self, read: fx.Node) -> Any:
        """Copy the value of a node, once for all layers unless it was changed in place in between."""
        value = self.env[read]
        if not isinstance(value, Tensor):
            return value
        version = read, value._version
        if version not in self._copies:
            self._copies[version] = value.clone()
        return self._copies[version]

    def _finish(self, node: fx.Node, value: Tensor) -> Tensor:
        layer = self._layers.nodes[node]
        form = self._layers.forms[layer]
        if layer in self._edits:
            value = edit(value, form, self._edits[layer])
        self.maps[layer] = form.as_map(_copy(value))
        if layer == self._until:
            raise StopRun
        return value
