"""Running the part of a network above a layer again, with changed activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, fx, nn

from ._forms import Form

Edits = Mapping[str, Callable[[Tensor], Tensor]]


class Run(Protocol):
    """Goes on from the lowest layer that is edited; stops once the layer `until` is final, if one is named.

    Returns what the network returned, None where it was stopped, and the maps of the layers that ran.
    """

    def __call__(self, edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]: ...


class Reached(BaseException):
    """The layer up to which a network was to run is final.  No Exception: a network's own forward may catch these."""


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


def replace(where: Tensor, filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that puts `filling` (broadcast to n, C, H, W) to the locations `where` (n, H, W)."""
    return lambda maps: torch.where(where[:, None], filling, maps)


def put(filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that puts `filling` (broadcast to n, C, H, W) in the place of a whole map."""
    return filling.expand_as


def start(network: nn.Module, graph: fx.Graph, layers: Layers, batch: Tensor) -> Passed:
    """Run `network` once over `batch` and keep what its part from each layer on needs."""
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

    return Passed(outputs, first.maps, again)


def run_edited(
    network: nn.Module, graph: fx.Graph, layers: Layers, batch: Tensor, edits: Edits
) -> tuple[Any, dict[str, Tensor]]:
    """Run `network` once over `batch` with changed layers; return what it returned, and the maps of all layers."""
    run = _Pass(network, graph, layers, edits)
    return run.run(batch), run.maps


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
    """A pass in which layers are edited and captured, and what the nodes `above` each layer read of others is kept.

    It is kept as the first of them finds it, since what lies below may change it in place before or afterwards.
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
        """Run what `values` does not hold, and edit what it holds of the layers `editable`; None where stopped."""
        try:
            for node in editable:
                if values.get(node) is not None:
                    values[node] = self._finish(node, values[node])
            return self.run(initial_env=values)
        except Reached:
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
        """Copy what a node returned, once for all layers unless it was changed in place since."""
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
            raise Reached
        return value
