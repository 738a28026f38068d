"""Running the part of a network above a layer again, with changed activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from ._forms import Form

Edits = Mapping[str, Callable[[Tensor], Tensor]]
Run = Callable[[Edits], tuple[Any, dict[str, Tensor]]]


class Passed(NamedTuple):
    """A forward pass that can go on from a layer again: what it returned, its maps by layer, and how to go on."""

    outputs: Any
    maps: dict[str, Tensor]
    again: Run


class Layers(NamedTuple):
    """The modelled layers in a traced graph.

    Parameters
    ----------
    nodes : dict of fx.Node to str
        What each layer returns, in network order.
    last : dict of fx.Node to fx.Node
        For each of these the node behind which its value is final.
    forms : dict of str to Form
        How each is read as a map.
    """

    nodes: Mapping[fx.Node, str]
    last: Mapping[fx.Node, fx.Node]
    forms: Mapping[str, Form]


def edit(value: Tensor, form: Form, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a layer's tensor with its map replaced by what `change` makes of it; tokens without place stay."""
    old = form.as_map(value)
    new = change(old.float())
    if new.shape != old.shape:
        raise ValueError(f"An edit must return a map of shape {tuple(old.shape)}; it returned {tuple(new.shape)}.")
    value = value.clone()
    form.as_map(value).copy_(new)
    return value


def start(network: nn.Module, graph: fx.Graph, layers: Layers, lowest: str, batch: Tensor) -> Passed:
    """Run `network` once over `batch` and keep what its part from the layer `lowest` on needs."""
    editable = list(layers.nodes)[list(layers.nodes.values()).index(lowest) :]
    above = _above(graph, layers, editable)
    with torch.no_grad():
        first = _Pass(network, graph, layers, {}, above)
        outputs = first.run(batch)
    kept = {node: first.kept.get(node) for node in graph.nodes if node not in above}

    def again(edits: Edits) -> tuple[Any, dict[str, Tensor]]:
        run = _Pass(network, graph, layers, edits)
        return run.resume({node: _copy(value) for node, value in kept.items()}, editable), run.maps

    return Passed(outputs, first.maps, again)


def _above(graph: fx.Graph, layers: Layers, editable: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on a layer whose value may be edited once it is final."""
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
    """Copy a tensor, since later operations may work in place."""
    return value.clone() if isinstance(value, Tensor) else value


class _Pass(fx.Interpreter):
    """A pass in which layers are edited and captured, and what the nodes `above` read of those below is kept.

    It is kept as the first of them finds it, since what lies below may change it in place before or afterwards.
    """

    def __init__(
        self,
        network: nn.Module,
        graph: fx.Graph,
        layers: Layers,
        edits: Edits,
        above: set[fx.Node] | frozenset[fx.Node] = frozenset(),
    ) -> None:
        super().__init__(network, graph=graph)
        self._layers, self._edits, self._above = layers, edits, above
        self._ending = {layers.last[node]: node for node in layers.nodes}
        self.kept: dict[fx.Node, Any] = {}
        self.maps: dict[str, Tensor] = {}

    def resume(self, values: dict[fx.Node, Any], editable: list[fx.Node]) -> Any:
        """Run what `values` does not hold, and edit what it holds of the layers `editable`."""
        for node in editable:
            if values.get(node) is not None:
                values[node] = self._finish(node, values[node])
        return self.run(initial_env=values)

    def run_node(self, n: fx.Node) -> Any:
        if n in self._above:
            for read in n.all_input_nodes:
                if read not in self._above and read not in self.kept:
                    self.kept[read] = _copy(self.env[read])
        result = super().run_node(n)
        layer = self._ending.get(n)
        if layer is None:
            return result
        if layer is n:
            return self._finish(layer, result)
        self.env[layer] = self._finish(layer, self.env[layer])
        return result

    def _finish(self, node: fx.Node, value: Tensor) -> Tensor:
        layer = self._layers.nodes[node]
        form = self._layers.forms[layer]
        if layer in self._edits:
            value = edit(value, form, self._edits[layer])
        self.maps[layer] = form.as_map(_copy(value))
        return value
