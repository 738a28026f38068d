"""Capture of layers in networks that torch.fx traces to a graph of operations."""

from __future__ import annotations

import builtins
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import FunctionType, MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx._symbolic_trace import _wrapped_fns_to_patch
from torch.utils._pytree import tree_flatten
from torchvision.models.feature_extraction import NodePathTracer

from ._captured import CapturedNetwork, Fields, Survey
from ._following import Follower
from ._forms import Form
from ._probing import HookedNetwork, first_of, several_calls, unknown_layer
from ._rerun import Edits, ForwardPass, Layers, run_edited, start
from ._watching import route, sharing

_MATHS = {name: value for name, value in vars(math).items() if callable(value) and not name.startswith("_")}
_MATHS_BY_ID = frozenset(map(id, _MATHS.values()))


class _LayerTracer(NodePathTracer):
    """Tracer like that of torchvision's feature extraction which records the values returned by submodules.

    `torch.fx` patches the class of all modules while it traces, which breaks other threads.  Here a copy of the network
    is traced: its submodules are called through the tracer, its parameters are symbols, and its methods see the
    functions of :func:`torch.fx.wrap` and :mod:`math` as operations.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(param_shapes_constant=True)
        self.returned: dict[str, list[Any]] = {}
        self.last: dict[fx.Node, fx.Node] = {}
        self._marking: dict[type, dict[str, FunctionType]] = {}
        self.root, self.root_module_name, self.graph = network, network._get_name(), fx.Graph(tracer_cls=type(self))
        self.tensor_attrs = {
            value: f"{path}.{name}".lstrip(".")
            for path, module in network.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        }
        copied = sharing(network)
        modules = dict(copied.named_modules())
        self.submodule_paths = {module: path for path, module in modules.items()}
        (image, *_) = inspect.signature(copied.forward).parameters
        symbol = self.create_proxy("placeholder", image, (), {})
        parameters = [self._parameter(module, name) for module in modules.values() for name in module._parameters]
        for module in modules.values():
            if self.is_leaf_module(module, ""):  # hooks of torch run with the module
                module._forward_pre_hooks.clear()
                module._forward_hooks.clear()
            else:
                methods = self._marking_methods(type(module))
                for name, method in methods.items():
                    module.__dict__[name] = MethodType(method, module)
        route(copied, self._called)
        self.create_node("output", "output", (self.create_arg(copied.forward(symbol)),), {})
        for node in filter(None, parameters):
            if not node.users:
                self.graph.erase_node(node)

    def _called(self, name: str, module: nn.Module, forward: Callable, *args: Any, **kwargs: Any) -> Any:
        result = self.call_module(module, forward, args, kwargs)
        self.returned.setdefault(name, []).append(result)
        if isinstance(result, fx.Proxy):  # operations in place may follow
            self.last[result.node] = next(iter(reversed(self.graph.nodes)))
        return result

    def _parameter(self, module: nn.Module, name: str) -> fx.Node | None:
        """Replace a parameter by a symbol; return its node."""
        parameter = module._parameters[name]
        if parameter is None:
            return None
        path = f"{self.path_of_module(module)}.{name}".lstrip(".")
        node = self.create_node("get_attr", path, (), {})
        vars(module)[name] = fx.proxy.ParameterProxy(self, node, path, parameter)
        return node

    def _marking_methods(self, kind: type) -> dict[str, FunctionType]:
        """Return the methods of a class that use marked functions, with these replaced by operations."""
        if kind not in self._marking:
            own = [vars(each) for each in kind.__mro__ if not each.__module__.startswith(("torch.nn.", "builtins"))]
            names = {name for each in own for name, value in each.items() if isinstance(value, FunctionType)}
            self._marking[kind] = {}
            for name in names:
                method = getattr(kind, name)
                marked = self._marked(method) if isinstance(method, FunctionType) else {}
                if marked:
                    known = {**method.__globals__, **marked}
                    seeing = FunctionType(method.__code__, known, name, method.__defaults__, method.__closure__)
                    seeing.__kwdefaults__ = method.__kwdefaults__
                    self._marking[kind][name] = seeing
        return self._marking[kind]

    def _marked(self, method: FunctionType) -> dict[str, Any]:
        """Return the marked functions that a method uses, as operations."""
        known: dict[str, Any] = method.__globals__
        marked: dict[str, Any] = {}
        for name in method.__code__.co_names:
            value: Any = known.get(name, getattr(builtins, name, None))
            if (id(known), name) in _wrapped_fns_to_patch or id(value) in _MATHS_BY_ID:
                marked[name] = self._operation(value)
            elif value is math:
                operations = {key: self._operation(each) for key, each in _MATHS.items()}
                marked[name] = SimpleNamespace(**vars(math) | operations)
        return marked

    def _operation(self, function: Callable) -> Callable:
        """Return `function` recorded as one operation of the graph if it gets symbols."""

        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if any(isinstance(leaf, fx.Proxy) for leaf in tree_flatten((args, kwargs))[0]):
                return self.create_proxy("call_function", function, args, kwargs)
            return function(*args, **kwargs)

        return recorded


class TracedNetwork(CapturedNetwork):
    """A network as a graph of operations; layers are submodules, or operations named as in torchvision."""

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str] = (),
        forms: Mapping[str, Form] | None = None,
        tracer: _LayerTracer | None = None,
    ) -> None:
        self.network, self._forms = network, forms or {}
        tracer = tracer or _trace(network)
        self._tracer, self._graph = tracer, tracer.graph
        nodes = {name: _find(name, tracer) for name in layers}
        order = {node: place for place, node in enumerate(self._graph.nodes)}
        self.layers = tuple(sorted(nodes, key=lambda name: order[nodes[name]]))
        self._nodes = {nodes[name]: name for name in self.layers}  # in network order
        if len(self._nodes) < len(nodes):
            same = next(name for name in self.layers if self._nodes[nodes[name]] != name)
            raise ValueError(f"Layers {same!r} and {self._nodes[nodes[same]]!r} are the same tensor; name one.")
        reserved = {"input", "decision"} & set(self.layers)
        if reserved:
            raise ValueError(f"The layer name {reserved.pop()!r} is reserved; name a layer inside or behind it.")
        self._last = {node: tracer.last.get(node, node) for node in self._nodes}

    @cached_property
    def _capturing(self) -> fx.GraphModule:
        return _capturing(self.network, self._graph, self._last)

    def select(
        self, layers: Sequence[str], image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> tuple[TracedNetwork, Fields]:
        selected = TracedNetwork(self.network, layers, tracer=self._tracer)
        geometry = self._follow(selected._nodes, image, layouts, pairs=True).of(layers)
        return TracedNetwork(self.network, layers, geometry.forms, self._tracer), geometry.fields

    def on(self, network: nn.Module) -> TracedNetwork:
        return TracedNetwork(network, self.layers, self._forms, self._tracer)

    def survey(self, image: Tensor, layouts: Mapping[str, str] | None = None) -> Survey:
        # Of several submodules that return the same tensor, the outermost is kept.
        nodes: dict[fx.Node, str] = {}
        for path, values in sorted(self._tracer.returned.items(), key=lambda item: item[0].count(".")):
            for place, value in enumerate(values):
                if path and isinstance(value, fx.Proxy):
                    nodes.setdefault(value.node, path if len(values) == 1 else f"{path}_{place}")
        order = {node: place for place, node in enumerate(self._graph.nodes)}
        nodes = dict(sorted(nodes.items(), key=lambda item: order[item[0]]))
        return self._follow(nodes, image, layouts, pairs=False).survey()

    def _pass(self, image: Tensor, layers: Mapping[fx.Node, str], follower: Follower) -> None:
        _FollowedRun(self.network, self._graph, layers, follower).run(image)

    @property
    def first_layer(self) -> nn.Module | None:
        return first_of(map(self.network.get_submodule, self._tracer.returned))

    def to(self, device: torch.device) -> TracedNetwork:
        super().to(device)
        self._capturing.to(device)  # it can contain tensors of its own
        return self

    def run(self, batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
        with torch.no_grad():
            output, captured = self._capturing(self.prepare(batch))
        values = zip(self.layers, captured, strict=True)
        return output, {layer: self._forms[layer].as_map(value) for layer, value in values}

    def start(self, batch: Tensor) -> ForwardPass:
        return start(self.network, self._graph, self._captured, self.prepare(batch))

    def run_edited(self, batch: Tensor, edits: Edits) -> tuple[Any, dict[str, Tensor]]:
        return run_edited(self.network, self._graph, self._captured, self.prepare(batch), edits)

    @property
    def _captured(self) -> Layers:
        return Layers(self._nodes, self._last, self._forms)


class _FollowedRun(fx.Interpreter):
    """A run of a graph that reports layers to a follower."""

    def __init__(self, network: nn.Module, graph: fx.Graph, layers: Mapping[fx.Node, str], follower: Follower) -> None:
        super().__init__(network, graph=graph)
        self._layers, self._follower = layers, follower

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self._layers:
            self._follower.see(self._layers[n], result)
        return result


def _trace(network: nn.Module) -> _LayerTracer:
    for name, _ in network.named_children():
        if hasattr(fx.GraphModule, name):
            raise UntraceableError(f"the submodule name {name!r} is an attribute of torch.fx.GraphModule")
    try:
        return _LayerTracer(network)
    except Exception as error:  # a forward can fail in any way on symbols instead of tensors
        raise UntraceableError(str(error)) from error


class UntraceableError(ValueError):
    """Error for networks that torch.fx cannot trace."""


def watch(network: nn.Module) -> CapturedNetwork:
    """Return `network` as a traced network if torch.fx can trace it, else as a hooked network."""
    try:
        return TracedNetwork(network)
    except UntraceableError as error:
        warnings.warn(
            f"{type(network).__name__} cannot be traced by torch.fx ({str(error).splitlines()[0]}); its layers are "
            "captured by hooks, and reruns with edited layers run the whole network.",
            stacklevel=3,
        )
        return HookedNetwork(network)


def _find(name: str, tracer: _LayerTracer) -> fx.Node:
    """Return the node of a layer in the graph."""
    calls = tracer.returned.get(name, ())
    if len(calls) > 1:
        raise several_calls(name, len(calls))
    known = {f"{path}_{i}": value for path, values in tracer.returned.items() for i, value in enumerate(values)}
    known |= {path: node for node, path in tracer.node_to_qualname.items() if node.op.startswith("call")}
    known |= {path: values[0] for path, values in tracer.returned.items()}
    if name not in known:
        raise unknown_layer(name, known, tracer.returned)
    value = known[name]
    node = value.node if isinstance(value, fx.Proxy) else value
    if not isinstance(node, fx.Node):
        raise ValueError(
            f"Layer {name!r} returns a {type(value).__name__}, not a single tensor. Name a layer inside it that "
            "returns the tensor."
        )
    return node


def _keep(tensor: Tensor) -> Tensor:
    """Copy the tensor of a layer, which later operations may change in place."""
    return tensor.clone()


def _capturing(network: nn.Module, graph: fx.Graph, nodes: dict[fx.Node, fx.Node]) -> fx.GraphModule:
    """Return the graph with a second output: a copy of the value of each node, taken after its last node."""
    mirror: dict[fx.Node, fx.Node] = {}
    capturing = fx.Graph()
    result = capturing.graph_copy(graph, mirror)
    kept = []
    for node, last in nodes.items():
        with capturing.inserting_after(mirror[last]):
            kept.append(capturing.call_function(_keep, (mirror[node],)))
    capturing.output((result, kept))
    return fx.GraphModule(network, capturing)
