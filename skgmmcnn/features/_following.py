"""Following receptive fields through the operations of a traced network."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.weak import WeakIdKeyDictionary

from ._forms import Form
from ._receptive_field import Reach, ReceptiveField, adaptive_bins, everything, identity, nothing, taps

_ELEMENTWISE_FUNCTIONS = frozenset(
    "add add_ iadd sub sub_ isub mul mul_ imul multiply multiply_ truediv div div_ neg relu relu_ relu6 leaky_relu elu "
    "silu gelu sigmoid tanh hardswish hardsigmoid hardtanh dropout stochastic_depth contiguous clone detach "
    "float".split()
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
_MOVING = frozenset(["permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims"])
_RESHAPING = frozenset(["view", "reshape", "flatten", "unflatten"])
_SPREADING = frozenset(["expand", "expand_as", "repeat"])


class Geometry(NamedTuple):
    """Shapes (C, H, W) and forms of layers read as maps, and the fields of pairs (upper, lower)."""

    shapes: dict[str, tuple[int, int, int]]
    forms: dict[str, Form]
    fields: dict[tuple[str, str], ReceptiveField]


def follow(
    module: fx.GraphModule, layers: Mapping[fx.Node, str], batch: Tensor, *, pairs: bool = True
) -> tuple[Geometry, dict[str, Tensor]]:
    """Run `module` once on one image and return the geometry of its layers, and the tensors that have no form.

    Fields are found of every layer in the ``"input"``, and with `pairs` in every layer below.  Pairs without dependence
    are left out.  Convolutions and poolings are followed by their arithmetic, elementwise operations position by
    position, moved axes where they go; any other operation is probed by itself, with NaN in one row or column of one
    of its inputs at a time.  Tensors of fewer than four axes have no locations: they see all, and are seen by all.
    """
    follower = _Follower(module, {node.name: name for node, name in layers.items()}, pairs=pairs)
    follower.run(batch.clone())
    return follower.geometry, follower.formless


class _Follower(fx.Interpreter):
    """Keep for every tensor its reach in the input, and with `pairs` in each modelled layer below it."""

    def __init__(self, module: fx.GraphModule, layers: Mapping[str, str], *, pairs: bool) -> None:
        super().__init__(module)
        self._layers, self._pairs = layers, pairs
        self.geometry = Geometry({}, {}, {})
        self.formless: dict[str, Tensor] = {}
        self.reaches = WeakIdKeyDictionary()
        self.spread = WeakIdKeyDictionary()  # tensors that repeat one location over a map
        self.probed: dict[tuple, Reach] = {}
        self._axes = WeakIdKeyDictionary()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._maps_so_far: dict[tuple[int, int], None] = {}

    def axes(self, tensor: Tensor) -> tuple[int, int] | None:
        """Return which axes of a tensor are rows and columns, None where it has no locations."""
        return self._axes.get(tensor, _last_two(tensor))

    def size(self, tensor: Tensor) -> tuple[int, int]:
        """Return the numbers of rows and of columns."""
        return _size(tensor, self.axes(tensor))

    def run_node(self, n: fx.Node) -> Any:
        followed = self._followed(n) if n.op.startswith("call") else []
        spreads = _name(n) in _SPREADING and self.size(self.env[n.all_input_nodes[0]]) == (1, 1)
        result = super().run_node(n)
        if n.op == "placeholder" and isinstance(result, Tensor):
            self._sizes["input"] = self.size(result)
            followed = [(_last_two(result), {"input": identity(self.size(result))})]
        for tensor, (axes, reaches) in zip(_tensors(result), followed, strict=False):
            self._axes[tensor], self.reaches[tensor] = axes, reaches
            if axes is not None:
                size = self.size(tensor)
                self._maps_so_far.pop(size, None)
                self._maps_so_far[size] = None
            if spreads:
                self.spread[tensor] = True
        if n.name in self._layers and isinstance(result, Tensor):
            self._note_layer(self._layers[n.name], result)
        return result

    def _note_layer(self, name: str, tensor: Tensor) -> None:
        form = Form.of(tensor, self.axes(tensor), self._maps_so_far)
        if form is None:
            self.formless[name] = tensor
            return
        shape = form.shape(tensor)
        self.geometry.forms[name], self.geometry.shapes[name] = form, shape
        reaches = self.reaches.get(tensor, {})
        for lower, reach in reaches.items():
            over = reach.over(shape[1:], self._sizes[lower])
            self.geometry.fields[name, lower] = ReceptiveField.from_reach(over)
        if self._pairs:
            self._sizes[name] = shape[1:]
            self.reaches[tensor] = {**reaches, name: identity(self.size(tensor))}

    def _followed(self, node: fx.Node) -> list[tuple[tuple[int, int] | None, dict[str, Reach]]]:
        """Return axes and reaches of each tensor that `node` will return."""
        arguments = self.fetch_args_kwargs_from_env(node)
        if _name(node) == "getitem" and not isinstance(arguments[0][0], Tensor):
            return []  # taken out of a tuple, whose tensors have been noted
        operation = _Operation(self, node, arguments)
        return [(operation.axes[result], self._united(operation, result)) for result in range(len(operation.results))]

    def _united(self, operation: _Operation, result: int) -> dict[str, Reach]:
        united: dict[str, Reach] = {}
        for place, value in operation.inputs:
            local = operation.reach(place, result)
            for lower, reach in self.reaches[value].items():
                through = local.after(reach)
                united[lower] = united[lower] | through if lower in united else through
        return {lower: reach for lower, reach in united.items() if reach.rows.any() and reach.columns.any()}


class _Operation:
    """One operation on known arguments, and how each of its results depends on each followed tensor among them."""

    def __init__(self, follower: _Follower, node: fx.Node, arguments: tuple) -> None:
        self._follower, self._node = follower, node
        self._leaves, self._spec = tree_flatten(arguments)
        self.inputs = [
            (place, leaf)
            for place, leaf in enumerate(self._leaves)
            if isinstance(leaf, Tensor) and follower.reaches.get(leaf)
        ]
        self.results = self._call({})
        self.axes = [self._axes_of(result) for result in self.results]
        self._module = follower.fetch_attr(str(node.target)) if node.op == "call_module" else None

    def _call(self, replaced: dict[int, Tensor]) -> list[Tensor]:
        """Return the tensors that the operation returns; it gets copies, as it may work in place."""
        leaves = [replaced.get(i, x.clone() if isinstance(x, Tensor) else x) for i, x in enumerate(self._leaves)]
        args, kwargs = tree_unflatten(leaves, self._spec)
        return _tensors(getattr(self._follower, self._node.op)(self._node.target, args, kwargs))

    def _axes_of(self, result: Tensor) -> tuple[int, int] | None:
        """Return the axes of a result: those of an input as it moves them, or of one of as many axes."""
        if result.ndim < 4:
            return None
        for place, value in self.inputs:
            axes = self._follower.axes(value)
            if axes is not None and value.ndim == result.ndim:
                return self._moved(place, axes) if _name(self._node) in _MOVING else axes
        return _last_two(result)

    def _moved(self, place: int, axes: tuple[int, int]) -> tuple[int, int]:
        """Return where the operation moves `axes` to, read off the strides of a tensor in which all differ."""
        value = torch.empty(tuple(range(2, 2 + self._leaves[place].ndim)))
        moved, before = self._call({place: value})[0].stride(), value.stride()
        return moved.index(before[axes[0]]), moved.index(before[axes[1]])

    def reach(self, place: int, result: int) -> Reach:
        """Return how result number `result` depends on the argument at `place`."""
        value, returned = self._leaves[place], self.results[result]
        before, behind = self._follower.axes(value), self.axes[result]
        upper, lower = _size(returned, behind), _size(value, before)
        if before is None or behind is None:
            return everything(upper, lower)
        if _name(self._node) in _MOVING:
            return identity(upper)
        in_place = [axis - value.ndim for axis in before] == [axis - returned.ndim for axis in behind]
        if in_place and self._is_elementwise():
            return self._broadcast(upper, lower, value in self._follower.spread)
        keeps_places = self._joins_channels(behind, returned.ndim) or self._mixes_channels(before, value.ndim)
        if in_place and upper == lower and keeps_places:
            return identity(upper)
        if before == _last_two(value) and behind == _last_two(returned):
            return _by_arithmetic(self._module, upper, lower) or self._probed(place, result)
        return self._probed(place, result)

    def _is_elementwise(self) -> bool:
        return _name(self._node) in _ELEMENTWISE_FUNCTIONS or isinstance(self._module, _ELEMENTWISE_MODULES)

    def _joins_channels(self, axes: tuple[int, int], ndim: int) -> bool:
        """Tell whether the operation concatenates along an axis that is neither rows nor columns."""
        args, kwargs = self._node.args, self._node.kwargs
        axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
        return _name(self._node) in ("cat", "concat") and isinstance(axis, int) and axis % ndim not in axes

    def _mixes_channels(self, axes: tuple[int, int], ndim: int) -> bool:
        """Tell whether the operation mixes only values of the last axes, none of which is one of `axes`."""
        if isinstance(self._module, nn.LayerNorm):
            mixed = len(self._module.normalized_shape)
        elif isinstance(self._module, nn.Linear) or _name(self._node) == "linear":
            mixed = 1
        elif _name(self._node) == "layer_norm":
            mixed = len(self._node.kwargs.get("normalized_shape") or self._node.args[1])  # type: ignore[arg-type]
        else:
            return False
        return max(axes) < ndim - mixed

    def _broadcast(self, upper: tuple[int, int], lower: tuple[int, int], spread: bool) -> Reach:
        # A factor of spatial size 1, as in squeeze-and-excitation, rescales what is there: a gate, not evidence.
        if _name(self._node) in _PRODUCTS and (lower == (1, 1) != upper or spread):
            return nothing(upper, lower)
        same, broadcast = identity(upper), everything(upper, lower)
        rows, columns = (a if u == v else b for u, v, a, b in zip(upper, lower, same, broadcast, strict=True))
        return Reach(rows, columns)

    def _probed(self, place: int, result: int) -> Reach:
        """Return the reach found by probing; functions on arguments of the same shapes are probed once."""
        if self._node.op == "call_module":
            return self._probe(place, result)
        shapes = [tuple(x.shape) if isinstance(x, Tensor) else repr(x) for x in self._leaves]
        axes = self._follower.axes(self._leaves[place]), self.axes[result]
        key = (self._node.op, self._node.target, place, result, *shapes, *axes)
        if key not in self._follower.probed:
            self._follower.probed[key] = self._probe(place, result)
        return self._follower.probed[key]

    def _probe(self, place: int, result: int) -> Reach:
        """Put NaN into each row, then each column, of one argument, and see where it comes out."""
        value, returned, behind = self._leaves[place], self.results[result], self.axes[result]
        before = self._follower.axes(value)
        assert before is not None
        assert behind is not None
        reach = nothing(_size(returned, behind), _size(value, before))
        if not value.is_floating_point():
            return reach
        clean = returned.isnan()
        for axis_before, axis_behind, matrix in zip(before, behind, reach, strict=True):
            others = [axis for axis in range(returned.ndim) if axis != axis_behind]
            for position in range(value.shape[axis_before]):
                spoiled = value.clone()
                spoiled.select(axis_before, position).fill_(torch.nan)
                changed = self._call({place: spoiled})[result].isnan() & ~clean
                matrix[:, position] = changed.any(tuple(others)).numpy(force=True)
        if _name(self._node) in _RESHAPING and reach.rows.all() and min(_size(value, before)) > 1:
            warnings.warn(
                f"{self._node.target} ({self._node}) mixes rows and columns of a map, which receptive fields are not "
                "followed through: layers above it count as seeing all of the layers below it.",
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


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def _last_two(tensor: Tensor) -> tuple[int, int] | None:
    return (tensor.ndim - 2, tensor.ndim - 1) if tensor.ndim >= 4 else None


def _size(tensor: Tensor, axes: tuple[int, int] | None) -> tuple[int, int]:
    return (1, 1) if axes is None else (tensor.shape[axes[0]], tensor.shape[axes[1]])
