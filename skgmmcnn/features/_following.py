"""Dependence of all values of a network on the image, followed through one forward pass.

The storage of each tensor has a shadow, which records for each value the rows and columns of the image, or of a lower
layer, that it depends on.  Shadows are read and written as operations of torch read and write memory.  So views and
operations in place are covered, networks may branch on their values, and one pass gives the fields of all layers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property, lru_cache, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .._progress import progress
from ._forms import Form, no_form
from ._receptive_field import ReceptiveField, Span

# The shadow of a tensor of shape S has shape (k, *S), with length 1 along axes where it is constant.  The first two
# entries are the place of a value, the row and column in the last map returned by a convolution or pooling.  Four
# entries follow for each origin (the image and lower layers): first row, -(last row + 1), first column and
# -(last column + 1) that the value depends on.  The shadow of a mixture is the minimum; infinity means no dependence.
_PLACE, _ENDS = 2, 4
_PATIENCE = 2.0  # seconds until a progress bar appears

_Measured = tuple[Form | None, dict[str, ReceptiveField]]


class Geometry(NamedTuple):
    """Shapes (C, H, W) and forms of layers, and fields of pairs (upper, lower)."""

    shapes: dict[str, tuple[int, int, int]]
    forms: dict[str, Form]
    fields: dict[tuple[str, str], ReceptiveField]


class Follower(TorchDispatchMode):
    """Context that follows the computation on a preprocessed `image` (1, ...) in the calling thread.

    Layers are reported by :meth:`see`; with `pairs` their fields in each other are determined, too.  `layouts` are
    those set by the user, and `n_layers` the number of layers, for the progress bar.
    """

    def __init__(self, image: Tensor, *, pairs: bool, layouts: Mapping[str, str], n_layers: int) -> None:
        super().__init__()
        self._bar = progress(total=n_layers, delay=_PATIENCE, desc="receptive fields", unit="layer")
        self.geometry = Geometry({}, {}, {})
        self.formless: dict[str, Any] = {}
        self._pairs, self._layouts = pairs, layouts
        self._measured: dict[tuple, _Measured] = {}
        self._references: list[Tensor | None] = []
        self._shadows: dict[tuple[int, int], _StoredShadow] = {}
        self._origins: dict[str, tuple[int, int]] = {}
        self._unknown: set[str] = set()
        form = Form(axes=(2, 3)) if image.ndim == 4 else Form()
        size = form.size(image)
        self._write(image, _place(size, image.ndim, form.axes))
        self._originate("input", image, form)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self._follow(func, _bind(func, args, kwargs or {}), list(_tensors(result)))
        return result

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._bar.__exit__(*exception)
        if self._unknown:
            warnings.warn(
                f"The outputs of {', '.join(sorted(self._unknown))} are taken to depend on all inputs: the receptive "
                "fields of layers above may be smaller than reported.",
                stacklevel=2,
            )

    def of(self, layers: Sequence[str]) -> Geometry:
        """Return the geometry; raise an error if one of `layers` has no form or does not depend on the image."""
        for layer in layers:
            if layer in self.formless:
                raise no_form(layer, self.formless[layer])
            if (layer, "input") not in self.geometry.fields:
                raise ValueError(
                    f"Layer {layer!r} does not depend on the image: it is constant, or computed outside of torch. "
                    "Leave it out."
                )
        return self.geometry

    def survey(self) -> dict[str, tuple[tuple[int, int, int], ReceptiveField | None]]:
        """Return the shape (C, H, W) of the map and the field in the image of each layer."""
        fields = self.geometry.fields
        return {name: (shape, fields.get((name, "input"))) for name, shape in self.geometry.shapes.items()}

    def see(self, name: str, tensor: Any) -> None:
        """Record that `tensor` is the layer `name`."""
        if not isinstance(tensor, Tensor):
            self.formless[name] = tensor
            return
        super().__exit__(None, None, None)  # operations here are not followed
        shadow = self._read(tensor)
        form, fields = self._measure(tensor, shadow, self._layouts.get(name))
        if form is not None:
            self.geometry.forms[name], self.geometry.shapes[name] = form, form.shape(tensor)
            self.geometry.fields.update({(name, lower): field for lower, field in fields.items()})
            if self._pairs:
                self._originate(name, tensor, form)
        elif shadow is not None:
            self.formless[name] = tensor
        self._bar.update(1)
        super().__enter__()

    def _measure(self, tensor: Tensor, shadow: Tensor | None, layout: str | None) -> _Measured:
        """Return the form of a layer and its fields in all origins, computed once for layers that share a shadow."""
        key = id(shadow), tensor.shape, layout
        if key not in self._measured:
            form = Form.of(tensor, None if shadow is None else shadow[:_PLACE], layout)
            fields = {} if form is None or shadow is None else self._fields(tensor, shadow, form)
            self._measured[key] = form, fields
            self._references.append(shadow)  # so that its id stays unique
        return self._measured[key]

    def _fields(self, tensor: Tensor, shadow: Tensor, form: Form) -> dict[str, ReceptiveField]:
        spread = shadow if form.grid is None else shadow.expand(-1, *tensor.shape)
        fields = {}
        for number, (lower, size) in enumerate(self._origins.items()):
            ends = spread[_PLACE + _ENDS * number :][:_ENDS]
            field = _field([form.as_map(end).numpy() for end in ends], form.size(tensor), size)
            if field is not None:
                fields[lower] = field
        return fields

    def _originate(self, name: str, tensor: Tensor, form: Form) -> None:
        """Make a tensor an origin, in whose locations the fields of later layers are determined."""
        size = form.size(tensor)
        n_before = _PLACE + _ENDS * len(self._origins)
        self._origins[name] = size
        if form.grid is None:
            ends = _at(_ends(size), tensor.ndim, form.axes)
        else:  # tokens outside the grid are not locations
            ends = tensor.new_full((_ENDS, *tensor.shape), torch.inf, dtype=torch.float32)
            for values, end in zip(ends, _ends(size), strict=True):
                form.as_map(values).copy_(end)
        before = ends.new_full((n_before, *ends.shape[1:]), torch.inf)
        known = self._read(tensor)
        own = torch.cat([before, ends])
        self._write(tensor, own if known is None else _least([known, own]))

    def _follow(self, func: Any, args: dict[str, Any], results: list[Tensor]) -> None:
        name = func.overloadpacket.__name__
        overwritten = args.get("self") if name in _OVERWRITING else None
        tensors = [value for value in _tensors(args.values()) if value is not overwritten]
        if name.startswith("new_") or name.endswith("_like"):
            return  # depends on shape and type only
        shadows = {id(value): shadow for value in tensors if (shadow := self._read(value)) is not None}
        written = {id(args[key]) for key in _written(func) if args.get(key) is not None}
        own = {_key(value) for value in tensors}
        for number, result in enumerate(results):
            if name in _RESHAPING or (id(result) not in written and _key(result) in own):
                continue  # a view
            if shadows:
                call = _Call(func, name, args, [value for value in tensors if id(value) in shadows], shadows, result)
                is_main = not number or result.shape == results[0].shape
                self._write(result, self._shadow_of(call) if is_main else _mix_all(call))
            elif _key(result) in self._shadows:
                self._write(result, torch.full((_PLACE, *[1] * result.ndim), torch.inf))

    def _shadow_of(self, call: _Call) -> Tensor:
        """Return the shadow of a result."""
        shadow = _rule_of(call.func)(call)
        if shadow is not None and _fits(shadow.shape[1:], call.result.shape):
            return shadow
        if call.result.numel() > 1:
            self._unknown.add(str(call.func))
        return _mix_all(call)

    def _read(self, tensor: Tensor) -> Tensor | None:
        """Return the shadow of a tensor, None if it depends on nothing."""
        known = self._shadows.get(_key(tensor))
        if known is None:
            return None
        if known.geometry == _geometry(tensor):
            return known.shadow
        return _view(known.spread, _geometry(tensor))

    def _write(self, tensor: Tensor, shadow: Tensor) -> None:
        key, geometry = _key(tensor), _geometry(tensor)
        known, storage = self._shadows.get(key), tensor.untyped_storage()
        length = storage.nbytes() // tensor.element_size()
        if tensor.numel() < length:  # a part of a larger tensor
            whole = torch.full((len(shadow), length), torch.inf) if known is None else known.spread.clone()
            whole = _pad(whole, 0, 0, max(0, len(shadow) - len(whole)))
            part = _view(whole, geometry)
            part.fill_(torch.inf)
            part[: len(shadow)] = shadow
            geometry, shadow = ((length,), (1,), 0), whole
        for expired in [key for key, known in self._shadows.items() if known.storage.expired()]:
            del self._shadows[expired]
        self._shadows[key] = _StoredShadow(StorageWeakRef(storage), length, geometry, shadow)


@dataclass(frozen=True)
class _StoredShadow:
    """The shadow of a storage, in the geometry of the tensor through which it was written."""

    storage: StorageWeakRef
    length: int
    geometry: tuple
    shadow: Tensor

    @cached_property
    def spread(self) -> Tensor:
        """The shadow (k, length) of the whole storage."""
        if self.geometry == ((self.length,), (1,), 0):
            return self.shadow.expand(-1, self.length)
        whole = torch.full((len(self.shadow), self.length), torch.inf)
        _view(whole, self.geometry).copy_(self.shadow)
        return whole


class _Call(NamedTuple):
    """An operation with its arguments, the inputs that have shadows, and one result."""

    func: Any
    name: str
    args: dict[str, Any]
    inputs: list[Tensor]
    shadows: dict[int, Tensor]
    result: Tensor

    def of(self, *names: str) -> list[Tensor | None]:
        """Return the shadows of arguments."""
        return [self.shadows.get(id(self.args.get(name))) for name in names]

    def mixed(self, arguments: Iterable[tuple[Tensor, Sequence[int]]]) -> list[Tensor]:
        """Return the shadows of arguments, mixed along axes."""
        known = [(value, axes) for value, axes in arguments if id(value) in self.shadows]
        return [_mix(self.shadows[id(value)], [axis % value.ndim for axis in axes]) for value, axes in known]


_Rule = Callable[[_Call], Tensor | None]
_RULES: dict[str, _Rule] = {
    "view_as_real": lambda call: call.shadows[id(call.inputs[0])].unsqueeze(-1),
    "view_as_complex": lambda call: call.shadows[id(call.inputs[0])].amin(-1),
}


def _rule(patterns: str) -> Callable[[_Rule], _Rule]:
    """Register a rule for operations: it returns the shadow of a result, or None if that is unknown."""

    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(patterns.split(), rule))
        return rule

    return register


@cache
def _rule_of(func: Any) -> _Rule:
    name = func.overloadpacket.__name__
    usual = _pointwise if torch.Tag.pointwise in func.tags else _by_arguments
    return next((rule for pattern, rule in _RULES.items() if fnmatchcase(name, pattern)), usual)


@_rule("_to_copy copy_ clone hardswish_ hardswish masked_fill masked_fill_ lift_fresh")
def _pointwise(call: _Call) -> Tensor:
    """Each value depends on the values at its index; factors equal at all places are ignored."""
    ndim = call.result.ndim
    values = [(value, _align(call.shadows[id(value)], ndim)) for value in call.inputs if value.ndim <= ndim]
    if call.name in ("mul", "mul_") and len(values) == 2:
        (first, one), (second, other) = values
        if _is_gate(second, one):
            return one
        if _is_gate(first, other):
            return other
    return _combine([shadow for _, shadow in values])


def _is_gate(value: Tensor, shadow: Tensor) -> bool:
    """Return whether `value` is constant over the locations of a shadow, as in squeeze-and-excitation."""
    place = shadow[:_PLACE]
    axes = [axis for axis in range(1, place.ndim) if bool((place != place.narrow(axis, 0, 1)).any())]
    axes = [axis - place.ndim for axis in axes if axis - place.ndim >= -value.ndim]
    return bool(axes) and all(value.shape[axis] == 1 or value.stride(axis) == 0 for axis in axes)


def _combine(shadows: list[Tensor]) -> Tensor:
    """Return the shadow of values that depend on several branches.

    The place is that of the branch with the larger one: branches that mix locations have smaller places.
    """
    united = _least(shadows)
    if len(shadows) > 1:
        places = torch.broadcast_tensors(*[shadow[:_PLACE] for shadow in shadows])
        known = torch.stack([place.nan_to_num(posinf=-1) for place in places]).amax(0)
        united[:_PLACE] = known.where(known >= 0, torch.inf)
    return united


def _least(shadows: list[Tensor]) -> Tensor:
    """Return the minimum of shadows with equal numbers of axes."""
    if len(shadows) == 1:
        return shadows[0]
    return reduce(torch.minimum, _of_all_origins(shadows))


def _of_all_origins(shadows: list[Tensor]) -> list[Tensor]:
    """Pad shadows to equal length, without dependence on the added origins."""
    most = max(map(len, shadows))
    return [_pad(shadow, 0, 0, most - len(shadow)) for shadow in shadows]


def _mix_all(call: _Call) -> Tensor:
    """Each value depends on all inputs."""
    parts = [call.shadows[id(value)].flatten(1).amin(1) for value in call.inputs]
    return _least([part.view(-1, *[1] * call.result.ndim) for part in parts])


def _by_arguments(call: _Call) -> Tensor | None:
    """By convention an operation mixes the axes `dim`, or the last axes of `normalized_shape`."""
    value, ndim = call.inputs[0], call.result.ndim
    if len(call.inputs) > 1:
        return None
    if call.args.get("normalized_shape"):
        axes: Sequence[int] = range(value.ndim - len(call.args["normalized_shape"]), value.ndim)
    elif "dim" in call.args:
        dim = call.args["dim"]
        axes = [dim] if isinstance(dim, int) else dim or range(value.ndim)
    else:
        return None
    axes = [axis % value.ndim for axis in axes]
    known = call.shadows[id(value)]
    if call.result.shape == value.shape:
        return _rescale(known, axes)
    shadow = _mix(known, axes)
    return shadow if ndim == value.ndim else shadow.squeeze([axis + 1 for axis in axes])


def _rescale(shadow: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the shadow of values rescaled by statistics over axes."""
    return _combine([shadow, _mix(shadow, axes)])


def _mix(shadow: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the shadow of a mixture along axes, which keep length 1."""
    return shadow.amin([axis + 1 for axis in axes], keepdim=True) if len(axes) else shadow


@_rule("mm bmm addmm _addmm_activation baddbmm")
def _product(call: _Call) -> Tensor:
    """Rows of the first factor are multiplied by columns of the second one; a third argument is added."""
    *added, first, second = [argument for argument in call.args.values() if isinstance(argument, Tensor)]
    factors = call.mixed([(first, [-1]), (second, [-2])])
    terms = [_align(shadow, call.result.ndim) for shadow in call.mixed((term, []) for term in added)]
    return _combine([*([_least(factors)] if factors else []), *terms])


@_rule("_native_multi_head_attention _scaled_dot_product_*")
def _attention(call: _Call) -> Tensor:
    """Each query depends on all keys and their values, separately for the first axes."""
    mixed = {"query": (-1,), "key": (-2, -1), "value": (-2, -1)}
    return _least(call.mixed((call.args[name], axes) for name, axes in mixed.items()))


@_rule("_transformer_encoder_layer_fwd")
def _transformer_layer(call: _Call) -> Tensor | None:
    """Each token depends on all tokens of the image, and keeps its place."""
    (shadow,) = call.of("src")
    return None if shadow is None else _rescale(shadow, [1, 2])


@_rule("cat")
def _concatenation(call: _Call) -> Tensor:
    ndim = call.result.ndim
    axis = call.args["dim"] % ndim + 1
    parts = [value for value in call.args["tensors"] if value.ndim == ndim]
    nothing = torch.full((_PLACE, *[1] * ndim), torch.inf)
    shadows = _of_all_origins([call.shadows.get(id(part), nothing) for part in parts])
    shape = torch.broadcast_shapes(*[shadow.narrow(axis, 0, 1).shape for shadow in shadows])
    lengths = [part.shape[axis - 1] for part in parts]
    return torch.cat(
        [x.expand(*shape[:axis], n, *shape[axis + 1 :]) for x, n in zip(shadows, lengths, strict=True)], axis
    )


@_rule("constant_pad_nd")
def _constant_padding(call: _Call) -> Tensor:
    """Padding with a constant, from the last axis on; negative numbers crop."""
    shadow, pad = call.shadows[id(call.args["self"])], call.args["pad"]
    for number, (before, behind) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = shadow.ndim - 1 - number
        if before or behind:
            shadow = _pad(_expand(shadow, axis, call.args["self"].shape[axis - 1]), axis, before, behind)
    return shadow


@_rule(
    "roll flip index index_select index_put index_put_ _unsafe_index gather take take_along_dim embedding repeat stack "
    "reflection_pad?d replication_pad?d im2col pixel_*shuffle *channel_shuffle tril triu slice_scatter select_scatter"
)
def _rearrangement(call: _Call) -> Tensor:
    """Apply the operation to indices of values, to see where each goes."""
    numbers, sources, begin = {}, [], 0
    for value in _tensors(call.args.values()):
        if id(value) in call.shadows and value.is_floating_point() and id(value) not in numbers:
            numbers[id(value)] = torch.arange(begin, begin + value.numel(), dtype=torch.float64).view(value.shape)
            sources.append(call.shadows[id(value)].expand(-1, *value.shape).flatten(1))
            begin += value.numel()
        elif value.is_floating_point():
            numbers[id(value)] = torch.full(value.shape, -1, dtype=torch.float64)

    def replace_values(argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [replace_values(each) for each in argument]
        return numbers.get(id(argument), argument) if isinstance(argument, Tensor) else argument

    indices = [_by_index(call, value) for value in call.inputs if not value.is_floating_point()]
    if not sources:
        return _least(indices)
    args = {key: replace_values(value) for key, value in call.args.items()}
    (moved, *_) = _tensors(call.func(**args))
    source = _pad(torch.cat(_of_all_origins(sources), 1), 1, 0, 1)
    return _least([source[:, moved.long().flatten()].view(-1, *moved.shape), *indices])


def _by_index(call: _Call, index: Tensor) -> Tensor:
    """Return the shadow of a lookup of a value, or a row, for each entry of `index`."""
    if call.result.shape[: index.ndim] != index.shape:
        return _mix_all(call._replace(inputs=[index]))
    shadow = call.shadows[id(index)]
    return shadow.view(*shadow.shape, *[1] * (call.result.ndim - index.ndim))


@_rule("*batch_norm*")
def _normalisation(call: _Call) -> Tensor | None:
    """Batch statistics are constants in evaluation mode; instance statistics mix all locations."""
    if len(call.inputs) > 1:
        return None
    shadow = call.shadows[id(call.inputs[0])]
    if not call.args.get("training", "no_training" not in call.name):
        return shadow
    return _rescale(shadow, [axis for axis in range(shadow.ndim - 1) if axis != 1])


@_rule("native_group_norm")
def _group_norm(call: _Call) -> Tensor | None:
    shadow = call.of("input")[0]
    if shadow is None or len(call.inputs) > 1:
        return None
    mixed = _by_groups(_mix(shadow, range(2, shadow.ndim - 1)), call.args["group"], call.args["C"])
    return _combine([shadow, mixed])


def _by_groups(shadow: Tensor, n_groups: int, n_channels: int) -> Tensor:
    """Return the shadow of mixtures of the channels of each group."""
    if shadow.shape[2] == 1:
        return shadow
    mixed = shadow.unflatten(2, (n_groups, -1)).amin(3)
    return mixed if n_groups == 1 else mixed.repeat_interleave(n_channels // n_groups, 2)


@_rule("convolution")
def _convolution(call: _Call) -> Tensor | None:
    shadow, weight = call.of("input", "weight")
    if shadow is None or weight is not None:
        return None
    args, kernel = call.args, call.args["weight"].shape[2:]
    sizes, ahead = args["input"].shape[2:], call.result.shape[2:]
    shadow = _by_groups(shadow, args["groups"], call.result.shape[1])
    stride, padding, dilation = (_each(args[key], len(kernel)) for key in ("stride", "padding", "dilation"))
    if args["transposed"]:
        for axis, (n, step) in enumerate(zip(sizes, stride, strict=True), 3):
            shadow = _spread(_expand(shadow, axis, n), axis, step)
        sizes = shadow.shape[3:]
        padding = [d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation, strict=True)]
        stride = [1] * len(kernel)
    return _slide(shadow, sizes, ahead, zip(kernel, stride, padding, dilation, strict=True))


@_rule("max_pool?d* avg_pool?d")
def _pooling(call: _Call) -> Tensor | None:
    value = call.inputs[0]
    n_axes = next(int(sign) for sign in call.name if sign.isdigit())
    args = {"padding": 0, "dilation": 1} | call.args
    args["stride"] = args["stride"] or args["kernel_size"]
    settings = [_each(args[key], n_axes) for key in ("kernel_size", "stride", "padding", "dilation")]
    sizes, ahead = value.shape[-n_axes:], call.result.shape[-n_axes:]
    return _slide(call.shadows[id(value)], sizes, ahead, zip(*settings, strict=True))


def _spread(shadow: Tensor, axis: int, stride: int) -> Tensor:
    """Insert stride - 1 entries without dependence between those of an axis."""
    n = (shadow.shape[axis] - 1) * stride + 1
    apart = shadow.new_full((*shadow.shape[:axis], n, *shadow.shape[axis + 1 :]), torch.inf)
    apart[(slice(None),) * axis + (slice(None, None, stride),)] = shadow
    return apart


def _slide(shadow: Tensor, sizes: Sequence[int], ahead: Sequence[int], settings: Iterable[tuple[int, ...]]) -> Tensor:
    """Return the shadow of a map of size `ahead` whose windows slide over the last axes, of lengths `sizes`."""
    first = shadow.ndim - len(sizes)
    for axis, (n, m, setting) in enumerate(zip(sizes, ahead, settings, strict=True), first):
        shadow = _windows(_expand(shadow, axis, n), axis, m, *setting)
    return _set_places(shadow, ahead)


def _windows(shadow: Tensor, axis: int, n: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return the shadow of `n` windows along an axis; window i reads stride i - padding + dilation k."""
    reach = dilation * (kernel - 1) + 1
    behind = (n - 1) * stride + reach - padding - shadow.shape[axis]
    shadow = _pad(shadow, axis, padding, behind)
    if reach == 1:
        return shadow[(slice(None),) * axis + (slice(None, None, stride),)].narrow(axis, 0, n)
    return shadow.unfold(axis, reach, stride)[..., ::dilation].amin(-1).narrow(axis, 0, n)


def _pad(shadow: Tensor, axis: int, before: int, behind: int) -> Tensor:
    """Pad an axis without dependence; negative numbers crop."""
    shadow = shadow.narrow(axis, max(0, -before), shadow.shape[axis] - max(0, -before) - max(0, -behind))
    if before <= 0 and behind <= 0:
        return shadow
    around = [
        shadow.new_full((*shadow.shape[:axis], max(0, n), *shadow.shape[axis + 1 :]), torch.inf)
        for n in (before, behind)
    ]
    return torch.cat([around[0], shadow, around[1]], axis)


@_rule("_adaptive_avg_pool?d adaptive_max_pool?d upsample_* _upsample_*")
def _resampling(call: _Call) -> Tensor | None:
    """Adaptive pooling and interpolation treat channels alike: NaN in a row, or column, shows its reach."""
    value = call.inputs[0]
    shadow, sizes = call.shadows[id(value)], value.shape[2:]
    (name,) = [key for key, argument in call.args.items() if argument is value]
    for axis, size in enumerate(sizes):
        probe = torch.zeros(size, 1, *sizes)
        for place in range(size):
            probe[place, 0].select(axis, place).fill_(torch.nan)
        (response, *_) = _tensors(call.func(**{**call.args, name: probe}))
        others = [other for other in range(1, response.ndim) if other != axis + 2]
        reads = response.isnan().any(others)
        whole = _expand(shadow, axis + 3, size)
        parts = [whole.index_select(axis + 3, read.nonzero()[:, 0]).amin(axis + 3) for read in reads.T]
        shadow = torch.stack(parts, axis + 3)
    return _set_places(shadow, call.result.shape[2:])


def _set_places(shadow: Tensor, size: Sequence[int]) -> Tensor:
    """Set the places to the locations of a new map."""
    if len(size) != 2:
        return shadow
    place = _place((size[0], size[1]), shadow.ndim - 1, (shadow.ndim - 3, shadow.ndim - 2))
    shape = torch.broadcast_shapes(place.shape[1:], shadow.shape[1:])
    return torch.cat([place.expand(-1, *shape), shadow[_PLACE:].expand(-1, *shape)])


def _place(size: tuple[int, int], ndim: int, axes: tuple[int, int] | None) -> Tensor:
    return _at(_ends(size)[::2], ndim, axes)


@lru_cache(maxsize=64)
def _ends(size: tuple[int, int]) -> Tensor:
    """Return the interval ends (4, H, W) of the rows and columns of each location of a map."""
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    return torch.stack([rows, -rows - 1, columns, -columns - 1])


def _at(ends: Tensor, ndim: int, axes: tuple[int, int] | None) -> Tensor:
    """Return `ends` (k, H, W) with H and W at the given axes of a tensor."""
    if axes is None:
        return ends.view(len(ends), *[1] * ndim)
    shape = [len(ends), *[1] * ndim]
    for axis, n in zip(axes, ends.shape[1:], strict=True):
        shape[axis + 1] = n
    return (ends if axes[0] < axes[1] else ends.transpose(1, 2)).reshape(shape)


def _expand(shadow: Tensor, axis: int, n: int) -> Tensor:
    """Expand an axis to length n."""
    return shadow.expand(*[n if i == axis else -1 for i in range(shadow.ndim)])


def _align(shadow: Tensor, ndim: int) -> Tensor:
    """Add leading axes of length 1 to a shadow, for broadcasting."""
    return shadow.view(len(shadow), *[1] * (ndim + 1 - shadow.ndim), *shadow.shape[1:])


def _field(ends: Sequence[np.ndarray], upper: tuple[int, int], lower: tuple[int, int]) -> ReceptiveField | None:
    """Return the field of a layer of size `upper` from four interval ends that broadcast to (1, C, H, W)."""
    ends = [end.min((0, 1)) for end in ends]
    if not ends or not np.isfinite(ends[0]).any():
        return None
    rows, columns = (_span(*(end.min(axis) for end in pair)) for axis, pair in ((1, ends[:2]), (0, ends[2:])))
    return ReceptiveField(
        Span(*(np.broadcast_to(end, upper[0]).copy() for end in rows)),  # without strides of views, which enter hashes
        Span(*(np.broadcast_to(end, upper[1]).copy() for end in columns)),
        lower,
    )


def _span(start: np.ndarray, stop: np.ndarray) -> Span:
    """Return intervals from starts and negated stops; infinite ones are empty."""
    seen = np.isfinite(start)
    return Span(np.where(seen, start, 0).astype(np.intp), -np.where(seen, stop, 0).astype(np.intp))


def _fits(shape: Sequence[int], full: Sequence[int]) -> bool:
    return len(shape) == len(full) and all(m in (1, n) for m, n in zip(shape, full, strict=True))


def _each(setting: Any, n_axes: int) -> Sequence[int]:
    values = [setting] if isinstance(setting, int) else list(setting)
    return values * n_axes if len(values) == 1 else values


def _key(tensor: Tensor) -> tuple[int, int]:
    """Return the storage of a tensor and the size of its values, which are pairs for complex types."""
    return tensor.untyped_storage()._cdata, tensor.element_size()


def _geometry(tensor: Tensor) -> tuple:
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _view(whole: Tensor, geometry: tuple) -> Tensor:
    """Return the view of a shadow (k, length) by a tensor of some geometry."""
    shape, strides, offset = geometry
    return whole.as_strided(
        (len(whole), *shape), (whole.stride(0), *(n * whole.stride(1) for n in strides)), offset * whole.stride(1)
    )


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif not isinstance(values, (str, int, float)) and hasattr(values, "__iter__"):
        for value in values:
            yield from _tensors(value)


@cache
def _written(func: Any) -> tuple[str, ...]:
    """Return the names of the arguments that an operation writes to."""
    return tuple(each.name for each in func._schema.arguments if each.alias_info and each.alias_info.is_write)


@cache
def _defaults(func: Any) -> dict[str, Any]:
    """Return all arguments of an operation in order, with their default values."""
    return {each.name: each.default_value for each in func._schema.arguments}


def _bind(func: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    known = _defaults(func)
    return {**known, **dict(zip(known, args, strict=False)), **kwargs}


_OVERWRITING = frozenset(["copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_"])
_RESHAPING = frozenset(["as_strided_", "squeeze_", "unsqueeze_", "t_", "transpose_", "detach_"])  # change no value
