"""Shadows of the results of torch operations: a rule for each family of operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ._shadows import N_PLACE, align, combine, gather, least, mix, no_dependence, of_equal_length, rescale, set_places


class Call(NamedTuple):
    """A call of an operation: its arguments, those that have shadows, their shadows by id, and one result."""

    func: Any
    args: dict[str, Any]
    inputs: list[Tensor]
    shadows: dict[int, Tensor]
    result: Tensor

    @property
    def name(self) -> str:
        """Name of the operation without its overload."""
        return self.func.overloadpacket.__name__


_Rule = Callable[[Call], Tensor | None]
_RULES: dict[str, _Rule] = {}


def shadow_of(call: Call) -> Tensor | None:
    """Return the shadow of the result of a call, None if no rule applies."""
    shadow = _rule_of(call.func)(call)
    if shadow is None or shadow.ndim != call.result.ndim + 1:
        return None
    fits = all(m in (1, n) for m, n in zip(shadow.shape[1:], call.result.shape, strict=True))
    return shadow if fits else None


@cache
def _rule_of(func: Any) -> _Rule:
    name = func.overloadpacket.__name__
    default = _pointwise if torch.Tag.pointwise in func.tags else _by_arguments
    return next((rule for pattern, rule in _RULES.items() if fnmatchcase(name, pattern)), default)


def _rule(patterns: str) -> Callable[[_Rule], _Rule]:
    """Register a rule for operations: it returns the shadow of a result, or None if that is unknown."""

    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(patterns.split(), rule))
        return rule

    return register


def _of_one_input(rule: Callable[[Call, Tensor], Tensor | None]) -> _Rule:
    """Return a rule for calls in which one argument has a shadow, the second parameter of `rule`."""
    return lambda call: rule(call, call.shadows[id(call.inputs[0])]) if len(call.inputs) == 1 else None


def mix_all(call: Call) -> Tensor:
    """Return the shadow of values that depend on all values of all inputs."""
    parts = [call.shadows[id(value)].flatten(1).amin(1) for value in call.inputs]
    return least([align(part, call.result.ndim) for part in parts])


@_rule("_to_copy copy_ clone hardswish_ hardswish masked_fill masked_fill_ lift_fresh")
def _pointwise(call: Call) -> Tensor:
    """Each value depends on the values at its index; factors equal at all places are ignored."""
    ndim = call.result.ndim
    inputs = [value for value in call.inputs if value.ndim <= ndim]
    shadows = [align(call.shadows[id(value)], ndim) for value in inputs]
    if call.name in ("mul", "mul_") and len(inputs) == 2:
        if _is_gate(inputs[1], shadows[0]):
            return shadows[0]
        if _is_gate(inputs[0], shadows[1]):
            return shadows[1]
    return combine(shadows)


def _is_gate(value: Tensor, shadow: Tensor) -> bool:
    """Return whether `value` is constant over the locations of a shadow, as in squeeze-and-excitation."""
    place = shadow[:N_PLACE]
    axes = [axis for axis in range(1, place.ndim) if bool((place != place.narrow(axis, 0, 1)).any())]
    axes = [axis - place.ndim for axis in axes if axis - place.ndim >= -value.ndim]
    return bool(axes) and all(value.shape[axis] == 1 or value.stride(axis) == 0 for axis in axes)


@_of_one_input
def _by_arguments(call: Call, shadow: Tensor) -> Tensor | None:
    """By convention an operation mixes the axes `dim`, or the last axes of `normalized_shape`."""
    (value,) = call.inputs
    if call.args.get("normalized_shape"):
        axes: Sequence[int] = range(value.ndim - len(call.args["normalized_shape"]), value.ndim)
    elif "dim" in call.args:
        dim = call.args["dim"]
        axes = [dim] if isinstance(dim, int) else dim or range(value.ndim)
    else:
        return None
    axes = [axis % value.ndim for axis in axes]
    if call.result.shape == value.shape:
        return rescale(shadow, axes)
    mixed = mix(shadow, axes)
    return mixed if call.result.ndim == value.ndim else mixed.squeeze([axis + 1 for axis in axes])


@_rule("*batch_norm*")
@_of_one_input
def _batch_norm(call: Call, shadow: Tensor) -> Tensor:
    """Batch statistics are constants in evaluation mode; instance statistics mix all locations."""
    if not call.args.get("training", "no_training" not in call.name):
        return shadow
    return rescale(shadow, [axis for axis in range(shadow.ndim - 1) if axis != 1])


@_rule("native_group_norm")
@_of_one_input
def _group_norm(call: Call, shadow: Tensor) -> Tensor | None:
    if call.inputs[0] is not call.args["input"]:
        return None
    statistics = mix(shadow, range(2, shadow.ndim - 1))
    return combine([shadow, _mix_groups(statistics, call.args["group"], call.args["C"])])


def _mix_groups(shadow: Tensor, n_groups: int, n_channels: int) -> Tensor:
    """Return the shadow of mixtures of the channels of each group."""
    if shadow.shape[2] == 1:
        return shadow
    mixed = shadow.unflatten(2, (n_groups, -1)).amin(3)
    return mixed if n_groups == 1 else mixed.repeat_interleave(n_channels // n_groups, 2)


@_rule("_transformer_encoder_layer_fwd")
@_of_one_input
def _transformer_layer(call: Call, shadow: Tensor) -> Tensor:
    """Each token depends on all tokens of the image, and keeps its place."""
    return rescale(shadow, [1, 2])


@_rule("_native_multi_head_attention _scaled_dot_product_*")
def _attention(call: Call) -> Tensor:
    """Each query depends on all keys and their values, separately for the first axes."""
    axes = {"query": (-1,), "key": (-2, -1), "value": (-2, -1)}
    return least(_mixtures(call, [(call.args[name], mixed) for name, mixed in axes.items()]))


@_rule("mm bmm addmm _addmm_activation baddbmm")
def _product(call: Call) -> Tensor:
    """Rows of the first factor are multiplied by columns of the second one; a third argument is added."""
    *added, first, second = [argument for argument in call.args.values() if isinstance(argument, Tensor)]
    terms = [align(shadow, call.result.ndim) for shadow in _mixtures(call, [(term, ()) for term in added])]
    factors = _mixtures(call, [(first, (-1,)), (second, (-2,))])
    if factors:
        terms.append(least(factors))
    return combine(terms)


def _mixtures(call: Call, axes: Iterable[tuple[Tensor, Sequence[int]]]) -> list[Tensor]:
    """Return the shadows of the arguments that have one, mixed along the axes of each."""
    return [
        mix(call.shadows[id(value)], [axis % value.ndim for axis in mixed])
        for value, mixed in axes
        if id(value) in call.shadows
    ]


@_rule("view_as_real")
@_of_one_input
def _real_pairs(call: Call, shadow: Tensor) -> Tensor:
    return shadow.unsqueeze(-1)


@_rule("view_as_complex")
@_of_one_input
def _complex_values(call: Call, shadow: Tensor) -> Tensor:
    return shadow.amin(-1)


@_rule("cat")
def _concatenation(call: Call) -> Tensor:
    ndim = call.result.ndim
    axis = call.args["dim"] % ndim + 1
    parts = [part for part in call.args["tensors"] if part.ndim == ndim]
    shadows = of_equal_length([call.shadows.get(id(part), no_dependence(ndim)) for part in parts])
    shape = list(torch.broadcast_shapes(*[shadow.narrow(axis, 0, 1).shape for shadow in shadows]))
    for number, part in enumerate(parts):
        shape[axis] = part.shape[axis - 1]
        shadows[number] = shadows[number].expand(shape)
    return torch.cat(shadows, axis)


@_rule("constant_pad_nd")
@_of_one_input
def _constant_padding(call: Call, shadow: Tensor) -> Tensor:
    """Padding with a constant, from the last axis on; negative numbers crop."""
    pad = call.args["pad"]
    for axis, (before, behind) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        if before or behind:
            positions = torch.arange(call.result.shape[-axis])[:, None] - before
            shadow = gather(shadow, shadow.ndim - axis, call.inputs[0].shape[-axis], positions)
    return shadow


@_rule(
    "roll flip index index_select index_put index_put_ _unsafe_index gather take take_along_dim embedding repeat "
    "stack reflection_pad?d replication_pad?d im2col pixel_*shuffle *channel_shuffle tril triu "
    "slice_scatter select_scatter"
)
def _rearrangement(call: Call) -> Tensor:
    """Apply the operation to the numbers of values, to see where each goes; constants have the number 0."""
    shadows = [no_dependence(1)]
    numbers: dict[int, Tensor] = {}
    n_values = 1
    for value in filter(torch.is_floating_point, tensors_in(call.args)):
        if id(value) in numbers:
            continue
        numbers[id(value)] = torch.zeros(value.shape, dtype=torch.float64)
        if id(value) in call.shadows:
            shadows.append(call.shadows[id(value)].expand(-1, *value.shape).flatten(1))
            numbers[id(value)] += torch.arange(n_values, n_values + value.numel()).view(value.shape)
            n_values += value.numel()
    selections = [_by_index(call, value) for value in call.inputs if not value.is_floating_point()]
    if not numbers.keys() & call.shadows.keys():
        return least(selections)
    args = tree_map(lambda argument: numbers.get(id(argument), argument), call.args)
    moved = tensors_in(call.func(**args))[0].long()
    return least([torch.cat(of_equal_length(shadows), 1)[:, moved], *selections])


def _by_index(call: Call, index: Tensor) -> Tensor:
    """Return the shadow of a lookup of a value, or a row, for each entry of `index`."""
    if call.result.shape[: index.ndim] != index.shape:
        return mix_all(call._replace(inputs=[index]))
    shadow = call.shadows[id(index)]
    return shadow.view(*shadow.shape, *[1] * (call.result.ndim - index.ndim))


@_rule("convolution")
def _convolution(call: Call) -> Tensor | None:
    shadow, weight, bias = (call.shadows.get(id(call.args[key])) for key in ("input", "weight", "bias"))
    if shadow is None or weight is not None:
        return None
    kernel, size = call.args["weight"].shape[2:], call.result.shape[2:]
    settings = [_each(call.args[key], len(size)) for key in ("stride", "padding", "dilation")]
    windows = _transposed_windows if call.args["transposed"] else _windows
    positions = [windows(*setting) for setting in zip(size, kernel, *settings, strict=True)]
    shadow = _mix_groups(shadow, call.args["groups"], call.result.shape[1])
    shadow = _slide(call._replace(inputs=[call.args["input"]]), shadow, positions)
    return shadow if bias is None else combine([shadow, bias.reshape(len(bias), 1, -1, *[1] * len(size))])


@_rule("max_pool?d* avg_pool?d")
@_of_one_input
def _pooling(call: Call, shadow: Tensor) -> Tensor:
    n_axes = next(int(sign) for sign in call.name if sign.isdigit())
    args = {"padding": 0, "dilation": 1} | call.args
    args["stride"] = args["stride"] or args["kernel_size"]
    settings = [_each(args[key], n_axes) for key in ("kernel_size", "stride", "padding", "dilation")]
    size = call.result.shape[-n_axes:]
    return _slide(call, shadow, [_windows(*setting) for setting in zip(size, *settings, strict=True)])


def _each(setting: Any, n_axes: int) -> Sequence[int]:
    values = [setting] if isinstance(setting, int) else list(setting)
    return values * n_axes if len(values) == 1 else values


def _windows(n: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return the positions (n, kernel) that n windows read, also outside of the map."""
    return stride * torch.arange(n)[:, None] - padding + dilation * torch.arange(kernel)


def _transposed_windows(n: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return the positions (n, kernel) whose windows write to n positions, -1 for none."""
    positions = torch.arange(n)[:, None] + padding - dilation * torch.arange(kernel)
    return torch.where(positions % stride == 0, positions // stride, -1)


@_rule("_adaptive_avg_pool?d adaptive_max_pool?d upsample_* _upsample_*")
@_of_one_input
def _resampling(call: Call, shadow: Tensor) -> Tensor:
    """Adaptive pooling and interpolation treat channels and axes alike."""
    return _slide(call, shadow, [_reads(call, axis) for axis in range(2, call.result.ndim)])


def _reads(call: Call, axis: int) -> Tensor:
    """Return the positions that each position of the result reads along an axis, by NaN in each of them."""
    (value,) = call.inputs
    (name,) = [key for key, argument in call.args.items() if argument is value]
    n = value.shape[axis]
    probe = torch.full((n,), torch.nan).diag().view([n if i in (0, axis) else 1 for i in range(value.ndim)])
    response = tensors_in(call.func(**{**call.args, name: probe.expand(n, 1, *value.shape[2:])}))[0]
    reads = response.isnan().any([i for i in range(1, value.ndim) if i != axis]).T
    return torch.where(reads, torch.arange(n), n).sort(1).values[:, : reads.sum(1).max()]


def _slide(call: Call, shadow: Tensor, positions: Sequence[Tensor]) -> Tensor:
    """Return the shadow of a map of windows, which read `positions` (m, k) along each of the last axes."""
    n_axes = len(positions)
    for axis, of_axis in enumerate(positions, -n_axes):
        shadow = gather(shadow, shadow.ndim + axis, call.inputs[0].shape[axis], of_axis)
    return set_places(shadow, call.result.shape[-2:]) if n_axes == 2 else shadow


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors in nested arguments or results, in order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
