"""The network as a graph of operations: layers are found by name, and what they return is captured."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from ._following import follow
from ._forms import Form, refuse
from ._network import Portable
from ._probing import HookedNetwork, several_calls
from ._receptive_field import ReceptiveField
from ._rerun import Layers, Passed, start
from ._running import move, prepare

Fields = dict[tuple[str, str], ReceptiveField]


class _LayerTracer(NodePathTracer):
    """Trace as torchvision's feature extraction does, and note also what each call of a submodule returned."""

    def __init__(self) -> None:
        super().__init__(param_shapes_constant=True)
        self.returned: dict[str, list[Any]] = {}
        self.last: dict[fx.Node, fx.Node] = {}

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        self.returned.setdefault(self.path_of_module(m), []).append(result)
        if isinstance(result, fx.Proxy):  # the module may go on working in place on what it will return
            self.last[result.node] = next(iter(reversed(self.graph.nodes)))
        return result


class TracedNetwork:
    """A network in evaluation mode, in which layers are found by name and captured on the way.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.  Its submodules are used as they are, not copied.
    layers : sequence of str
        Names of submodules as in ``network.named_modules()``, or torchvision's names of operations.
    forms : dict of str to Form
        How each layer is read as a map; found by :meth:`select`.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = (),
        forms: Mapping[str, Form] | None = None,
        tracer: _LayerTracer | None = None,
    ) -> None:
        self.network, self._forms = network, forms or {}
        if tracer is None:
            tracer = _LayerTracer()
            _trace(tracer, network)
        self._tracer, self._graph = tracer, tracer.graph
        nodes = {name: _find(name, tracer) for name in layers}
        order = {node: place for place, node in enumerate(self._graph.nodes)}
        self.layers = tuple(sorted(nodes, key=lambda name: order[nodes[name]]))
        self._nodes = {nodes[name]: name for name in self.layers}  # in network order
        if len(self._nodes) < len(nodes):
            same = next(name for name in self.layers if self._nodes[nodes[name]] != name)
            raise ValueError(f"Layers {same!r} and {self._nodes[nodes[same]]!r} are one and the same tensor; name one.")
        reserved = {"input", "decision"} & set(self.layers)
        if reserved:
            raise ValueError(f"A layer cannot be called {reserved.pop()!r} here; name a layer inside or behind it.")
        self._last = {node: tracer.last.get(node, node) for node in self._nodes}
        self._capturing = _capturing(network, self._graph, self._last)

    def __reduce__(self) -> tuple:
        return TracedNetwork, (Portable(self.network), self.layers, dict(self._forms))

    def select(self, layers: Sequence[str], image: Tensor) -> tuple[TracedNetwork, Fields]:
        """Return the network with `layers`, in the order in which they run, captured, and their receptive fields.

        Fields are those of every layer in each layer below that it depends on, and in the ``"input"``.
        """
        selected = TracedNetwork(self.network, layers, tracer=self._tracer)
        with torch.no_grad():
            module = fx.GraphModule(self.network, self._graph)
            geometry, formless = follow(module, selected._nodes, self.prepare(image))
        for layer, values in formless.items():
            raise refuse(layer, values)
        return TracedNetwork(self.network, layers, geometry.forms, self._tracer), geometry.fields

    def on(self, network: nn.Module) -> TracedNetwork:
        """Return the same for an equal `network`."""
        return TracedNetwork(network, self.layers, self._forms, self._tracer)

    def survey(self, image: Tensor) -> dict[str, tuple[tuple[int, int, int], ReceptiveField | None]]:
        """Return for every submodule that can be modelled the shape (C, H, W) of its map and its field in the image.

        Where several return the same tensor, the outermost stands for all.
        """
        nodes: dict[fx.Node, str] = {}
        for path, values in sorted(self._tracer.returned.items(), key=lambda item: item[0].count(".")):
            for place, value in enumerate(values):
                if path and isinstance(value, fx.Proxy):
                    nodes.setdefault(value.node, path if len(values) == 1 else f"{path}_{place}")
        order = {node: place for place, node in enumerate(self._graph.nodes)}
        nodes = dict(sorted(nodes.items(), key=lambda item: order[item[0]]))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of layers that nobody may want
            module = fx.GraphModule(self.network, self._graph)
            geometry, _ = follow(module, nodes, self.prepare(image), pairs=False)
        return {name: (shape, geometry.fields.get((name, "input"))) for name, shape in geometry.shapes.items()}

    @property
    def first_layer(self) -> nn.Module | None:
        """The first convolution or fully connected layer that runs, None without any."""
        for node in self._graph.nodes:
            module = self.network.get_submodule(node.target) if node.op == "call_module" else None
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
                return module
        return None

    def to(self, device: torch.device) -> TracedNetwork:
        """Move the network to `device`, if it is not there; return self."""
        move(self.network, device)
        self._capturing.to(device)
        return self

    def prepare(self, batch: Tensor) -> Tensor:
        """Return `batch` as the network takes it."""
        return prepare(self.network, batch)

    def run(self, batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Return what the network returns for `batch`, and the map (n, C, H, W) of each layer on the way."""
        with torch.no_grad():
            output, captured = self._capturing(self.prepare(batch))
        values = zip(self.layers, captured, strict=True)
        return output, {layer: self._forms[layer].as_map(value) for layer, value in values}

    def start(self, batch: Tensor) -> Passed:
        """Run the network over `batch`, such that its part from any layer on can be run again."""
        layers = Layers(self._nodes, self._last, self._forms)
        return start(self.network, self._graph, layers, self.prepare(batch))


def _trace(tracer: _LayerTracer, network: nn.Module) -> None:
    try:
        tracer.trace(network)
    except Exception as error:  # whatever a user's forward raises when it meets symbols instead of tensors
        raise UntraceableError(str(error)) from error


class UntraceableError(ValueError):
    """torch.fx cannot trace a network."""


def watch(network: nn.Module, gates: Sequence[str] = ()) -> TracedNetwork | HookedNetwork:
    """Return `network` made ready to capture layers: traced, or with hooks where it cannot be traced."""
    try:
        return TracedNetwork(network)
    except UntraceableError as error:
        warnings.warn(
            f"{type(network).__name__} cannot be traced by torch.fx ({str(error).splitlines()[0]}); its layers are "
            "captured by hooks, and its receptive fields are found by probing it, which takes longer.",
            stacklevel=3,
        )
        return HookedNetwork(network, gates=gates)


def _find(name: str, tracer: _LayerTracer) -> fx.Node:
    """Return the graph's node for the layer called `name`."""
    calls = tracer.returned.get(name, ())
    if len(calls) > 1:
        raise ValueError(several_calls(name, len(calls)))
    known = {f"{path}_{i}": value for path, values in tracer.returned.items() for i, value in enumerate(values)}
    known |= {path: node for node, path in tracer.node_to_qualname.items() if node.op.startswith("call")}
    known |= {path: values[0] for path, values in tracer.returned.items()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or list(tracer.returned)[:10]
        raise ValueError(f"The network has no layer {name!r}. Near names: {', '.join(map(repr, near))}.")
    value = known[name]
    node = value.node if isinstance(value, fx.Proxy) else value
    if not isinstance(node, fx.Node):
        raise ValueError(
            f"Layer {name!r} returns a {type(value).__name__}, not one tensor. Name a layer inside it that returns "
            "the tensor you mean."
        )
    return node


def _keep(tensor: Tensor) -> Tensor:
    """Copy what a layer returned, since later operations may work in place."""
    return tensor.clone()


def _capturing(network: nn.Module, graph: fx.Graph, nodes: dict[fx.Node, fx.Node]) -> fx.GraphModule:
    """Return the graph with a copy of each node's value taken behind a second node, returned beside the output."""
    mirror: dict[fx.Node, fx.Node] = {}
    capturing = fx.Graph()
    result = capturing.graph_copy(graph, mirror)
    kept = []
    for node, last in nodes.items():
        with capturing.inserting_after(mirror[last]):
            kept.append(capturing.call_function(_keep, (mirror[node],)))
    capturing.output((result, kept))
    return fx.GraphModule(network, capturing)
