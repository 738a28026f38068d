"""Following receptive fields through the operations of a traced network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from ._receptive_field import Reach, ReceptiveField, adaptive_bins, everything, identity, nothing, taps

_ELEMENTWISE_FUNCTIONS = frozenset(
    "add add_ iadd sub sub_ isub mul mul_ imul multiply multiply_ truediv div div_ neg relu relu_ relu6 leaky_relu elu "
    "silu gelu sigmoid tanh hardswish hardsigmoid hardtanh dropout contiguous clone detach float".split()
)
_ELEMENTWISE_MODULES = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
)
_PRODUCTS = frozenset(["mul", "mul_", "imul", "multiply", "multiply_"])
_REARRANGING = frozenset(["permute", "transpose", "movedim", "swapaxes", "view", "reshape"])
_SPREADING = frozenset(["expand", "expand_as", "repeat"])


def follow(module: fx.GraphModule, layers: Mapping[fx.Node, str], batch: Tensor) -> dict:
    """Run `module` once on `batch` and return the receptive field of every pair (upper layer, lower layer).

    Also of (layer, ``"input"``).  Pairs without dependence are left out.  Convolutions and poolings are followed by
    their arithmetic, elementwise operations position by position; any other operation is probed by itself, with NaN
    in one row or column of one of its inputs at a time.
    """
    follower = _Follower(module, {node.name: name for node, name in layers.items()})
    follower.run(batch.clone())
    return follower.fields


def survey(
    module: fx.GraphModule, layers: Mapping[fx.Node, str], batch: Tensor
) -> dict[str, tuple[tuple[int, ...], ReceptiveField | None]]:
    """Run `module` once on `batch`; return shape and field in the input of every layer that is one tensor."""
    follower = _Follower(module, {node.name: name for node, name in layers.items()}, pairs=False)
    follower.run(batch.clone())
    return {name: (shape, follower.fields.get((name, "input"))) for name, shape in follower.shapes.items()}


class _Follower(fx.Interpreter):
    """Keep for every tensor its reach in the input, and with `pairs` in each modelled layer below it."""

    def __init__(self, module: fx.GraphModule, layers: Mapping[str, str], *, pairs: bool = True) -> None:
        super().__init__(module)
        self._layers, self._pairs = layers, pairs
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._reaches = WeakIdKeyDictionary()
        self.spread = WeakIdKeyDictionary()  # tensors that repeat one location over a map
        self.fields: dict[tuple[str, str], ReceptiveField] = {}

    def run_node(self, n: fx.Node) -> Any:
        reaches = self._followed(n) if n.op.startswith("call") else []
        spreads = _name(n) in _SPREADING and _size(self.env[n.all_input_nodes[0]]) == (1, 1)
        result = super().run_node(n)
        if n.op == "placeholder" and isinstance(result, Tensor):
            reaches = [{"input": identity(_size(result))}]
        for tensor, reach in zip(_tensors(result), reaches, strict=False):
            self._reaches[tensor] = reach
            if spreads:
                self.spread[tensor] = True
        if n.name in self._layers and isinstance(result, Tensor):
            self._note_layer(self._layers[n.name], result)
        return result

    def _note_layer(self, name: str, tensor: Tensor) -> None:
        reaches = self._reaches.get(tensor, {})
        self.fields |= {(name, lower): ReceptiveField.from_reach(reach) for lower, reach in reaches.items()}
        self.shapes[name] = tuple(tensor.shape)
        if self._pairs:
            self._reaches[tensor] = {**reaches, name: identity(_size(tensor))}

    def _followed(self, node: fx.Node) -> list[dict[str, Reach]]:
        """Return the reaches of each tensor that `node` will return."""
        arguments = self.fetch_args_kwargs_from_env(node)
        if _name(node) == "getitem" and not isinstance(arguments[0][0], Tensor):
            return []  # taken out of a tuple, whose tensors have been noted
        operation = _Operation(self, node, arguments)
        return [self._united(operation, result) for result in range(len(operation.results))]

    def _united(self, operation: _Operation, result: int) -> dict[str, Reach]:
        united: dict[str, Reach] = {}
        for place, value in operation.inputs:
            below = self._reaches.get(value)
            if not below:
                continue
            local = operation.reach(place, result)
            for lower, reach in below.items():
                through = local.after(reach)
                united[lower] = united[lower] | through if lower in united else through
        return {lower: reach for lower, reach in united.items() if reach.rows.any() and reach.columns.any()}


class _Operation:
    """One operation on known arguments, and how each of its results depends on each tensor among them."""

    def __init__(self, interpreter: _Follower, node: fx.Node, arguments: tuple) -> None:
        self._interpreter, self._node = interpreter, node
        self._leaves, self._spec = tree_flatten(arguments)
        self.inputs = [(place, leaf) for place, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor)]
        self.results = self._call({})
        self._module = interpreter.fetch_attr(str(node.target)) if node.op == "call_module" else None

    def _call(self, replaced: dict[int, Tensor]) -> list[Tensor]:
        """Return the tensors that the operation returns; it gets copies, as it may work in place."""
        leaves = [replaced.get(i, x.clone() if isinstance(x, Tensor) else x) for i, x in enumerate(self._leaves)]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return _tensors(getattr(self._interpreter, self._node.op)(self._node.target, args, kwargs))

    def reach(self, place: int, result: int) -> Reach:
        """Return how result number `result` depends on the argument at `place`."""
        value, returned = self._leaves[place], self.results[result]
        upper, lower = _size(returned), _size(value)
        if value.ndim < 3 or returned.ndim < 3:
            return everything(upper, lower)
        if _name(self._node) in _ELEMENTWISE_FUNCTIONS or isinstance(self._module, _ELEMENTWISE_MODULES):
            return self._broadcast(upper, lower, value in self._interpreter.spread)
        if returned.ndim == 4 and _joins_channels(self._node):
            return identity(upper)
        return _by_arithmetic(self._module, upper, lower) or self._probed(place, result)

    def _broadcast(self, upper: tuple[int, int], lower: tuple[int, int], spread: bool) -> Reach:
        # A factor of spatial size 1, as in squeeze-and-excitation, rescales what is there: a gate, not evidence.
        if _name(self._node) in _PRODUCTS and (lower == (1, 1) != upper or spread):
            return nothing(upper, lower)
        same, broadcast = identity(upper), everything(upper, lower)
        rows, columns = (a if u == v else b for u, v, a, b in zip(upper, lower, same, broadcast, strict=True))
        return Reach(rows, columns)

    def _probed(self, place: int, result: int) -> Reach:
        """Return the reach found by putting NaN into each row, then each column, of one argument."""
        value = self._leaves[place]
        reach = nothing(_size(self.results[result]), _size(value))
        if not value.is_floating_point():
            return reach
        clean = self.results[result].isnan()
        for axis, matrix in zip((-2, -1), reach, strict=True):
            for position in range(value.shape[axis]):
                spoiled = value.clone()
                spoiled.select(axis, position).fill_(torch.nan)
                changed = self._call({place: spoiled})[result].isnan() & ~clean
                matrix[:, position] = changed.flatten(0, -3).any(0).any(1 if axis == -2 else 0).numpy(force=True)
        if _name(self._node) in _REARRANGING and reach.rows.all() and min(value.shape[-2:]) > 1:
            warnings.warn(
                f"{self._node.target} ({self._node}) moves the axes of a map, which receptive fields are not followed "
                "through: layers above it count as seeing all of the layers below it.",
                stacklevel=2,
            )
        return reach


def _by_arithmetic(module: Any, upper: tuple[int, int], lower: tuple[int, int]) -> Reach | None:
    """Return the reach of a convolution or pooling module, None for any other."""
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        return Reach(*(adaptive_bins(u, v) for u, v in zip(upper, lower, strict=True)))
    if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d)):
        return None
    if isinstance(module.padding, str) or getattr(module, "padding_mode", "zeros") != "zeros":
        return None
    settings = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
    axes = list(zip(upper, lower, *map(_pair, settings), strict=True))
    if isinstance(module, nn.ConvTranspose2d):
        return Reach(*(taps(v, u, *setting).T for u, v, *setting in axes))
    return Reach(*(taps(*axis) for axis in axes))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _name(node: fx.Node) -> str:
    """Return the name of the function or method that `node` calls, empty for a module."""
    return "" if node.op == "call_module" else getattr(node.target, "__name__", str(node.target))


def _joins_channels(node: fx.Node) -> bool:
    """Tell whether `node` concatenates along axis 1, which leaves locations where they are."""
    axis = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
    return _name(node) in ("cat", "concat") and isinstance(axis, int) and axis == 1


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def _size(tensor: Tensor) -> tuple[int, int]:
    """Return the two spatial sizes of a tensor: its last two, or 1 x 1 where there is one vector per image."""
    return (tensor.shape[-2], tensor.shape[-1]) if tensor.ndim > 2 else (1, 1)
