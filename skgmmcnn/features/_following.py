"""Dependence of all values of a network on the image, followed through one forward pass.

The storage of each tensor has a shadow, which records for each value the rows and columns of the image, or of a lower
layer, that it depends on.  Shadows are read and written as operations of torch read and write memory.  So views and
operations in place are covered, networks may branch on their values, and one pass gives the fields of all layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .._progress import progress
from .._warnings import warn
from ._forms import Form, no_form
from ._operations import Call, mix_all, shadow_of, tensors_in
from ._receptive_field import ReceptiveField
from ._shadows import N_ENDS, N_PLACE, at_locations, ends_of, fields_of, least, no_dependence, pad_entries

_PATIENCE = 2.0  # seconds until a progress bar appears
_OVERWRITING = frozenset(["copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_"])
_RESHAPING = frozenset(["as_strided_", "squeeze_", "unsqueeze_", "t_", "transpose_", "detach_"])  # change no value


class LayerGeometry(NamedTuple):
    """Shape (C, H, W) and form of the map of a layer, and its fields in the image, "input", and in lower layers."""

    shape: tuple[int, int, int]
    form: Form
    fields: dict[str, ReceptiveField]

    @property
    def is_map(self) -> bool:
        """Whether the layer has several locations."""
        return self.shape[1] * self.shape[2] > 1


class Follower(TorchDispatchMode):
    """Context that follows the computation on a preprocessed `image` (1, ...) in the calling thread.

    Layers are reported by :meth:`record`; with `pairs` their fields in each other are determined, too.  `layouts` are
    those set by the user, and `n_layers` the number of layers, for the progress bar.
    """

    def __init__(self, image: Tensor, *, pairs: bool, layouts: Mapping[str, str], n_layers: int) -> None:
        super().__init__()
        self._bar = progress(total=n_layers, delay=_PATIENCE, desc="receptive fields", unit="layer")
        self.layers: dict[str, LayerGeometry] = {}
        self._formless: dict[str, Any] = {}
        self._pairs = pairs
        self._layouts = layouts
        self._cache: dict[tuple, tuple[Tensor | None, LayerGeometry | None]] = {}
        self._shadows: dict[tuple[int, int], _StoredShadow] = {}
        self._origins: dict[str, tuple[int, int]] = {}
        self._unknown: set[str] = set()
        form = Form(axes=(2, 3)) if image.ndim == 4 else Form()
        self._write(image, at_locations(ends_of(form.size(image))[::2], image, form))
        self._add_origin("input", image, form)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        defaults = _defaults(func)
        positional = dict(zip(defaults, args, strict=False))
        self._follow(func, {**defaults, **positional, **(kwargs or {})}, tensors_in(result))
        return result

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._bar.__exit__(*exception)
        if self._unknown:
            warn(
                f"The outputs of {', '.join(sorted(self._unknown))} are taken to depend on all inputs: the receptive "
                "fields of layers above may be smaller than reported.",
            )

    def check(self, layers: Sequence[str]) -> None:
        """Raise an error if one of `layers` has no form or does not depend on the image."""
        for layer in layers:
            if layer in self._formless:
                raise no_form(layer, self._formless[layer])
            if layer not in self.layers or "input" not in self.layers[layer].fields:
                raise ValueError(
                    f"Layer {layer!r} does not depend on the image: it is constant, or computed outside of torch. "
                    "Leave it out."
                )

    def record(self, name: str, tensor: Any) -> None:
        """Record that `tensor` is the layer `name`."""
        if not isinstance(tensor, Tensor):
            self._formless[name] = tensor
            return
        super().__exit__(None, None, None)  # operations here are not followed
        shadow = self._read(tensor)
        geometry = self._geometry_of(tensor, shadow, self._layouts.get(name))
        if geometry is not None:
            self.layers[name] = geometry
            if self._pairs:
                self._add_origin(name, tensor, geometry.form)
        elif shadow is not None:
            self._formless[name] = tensor
        self._bar.update(1)
        super().__enter__()

    def _geometry_of(self, tensor: Tensor, shadow: Tensor | None, layout: str | None) -> LayerGeometry | None:
        """Return the geometry of a layer, computed once for layers that share a shadow; None if it has no form."""
        key = id(shadow), tensor.shape, layout
        if key not in self._cache:
            form = Form.of(tensor, None if shadow is None else shadow[:N_PLACE], layout)
            geometry = None
            if form is not None:
                fields = {} if shadow is None else fields_of(shadow, tensor, form, self._origins)
                geometry = LayerGeometry(form.shape(tensor), form, fields)
            self._cache[key] = shadow, geometry  # keeps the shadow, so that its id stays unique
        return self._cache[key][1]

    def _add_origin(self, name: str, tensor: Tensor, form: Form) -> None:
        """Make a tensor an origin, in whose locations the fields of later layers are determined."""
        size = form.size(tensor)
        ends = at_locations(ends_of(size), tensor, form)
        own = pad_entries(ends, N_PLACE + N_ENDS * len(self._origins), 0)
        self._origins[name] = size
        shadow = self._read(tensor)
        self._write(tensor, own if shadow is None else least([shadow, own]))

    def _follow(self, func: Any, args: dict[str, Any], results: list[Tensor]) -> None:
        """Write the shadows of the results of an operation."""
        name = func.overloadpacket.__name__
        if name.startswith("new_") or name.endswith("_like"):
            return  # depends on shape and type only
        overwritten = args.get("self") if name in _OVERWRITING else None
        tensors = [value for value in tensors_in(args) if value is not overwritten]
        shadows = {id(value): shadow for value in tensors if (shadow := self._read(value)) is not None}
        inputs = [value for value in tensors if id(value) in shadows]
        written = {id(args[key]) for key in _written(func)}
        storages = {_key(value) for value in tensors}
        for result in results:
            is_view = id(result) not in written and _key(result) in storages
            if is_view or name in _RESHAPING:
                continue
            if shadows:
                call = Call(func, args, inputs, shadows, result)
                is_main = result.shape == results[0].shape
                self._write(result, self._shadow_of(call) if is_main else mix_all(call))
            elif _key(result) in self._shadows:
                self._write(result, no_dependence(result.ndim))

    def _shadow_of(self, call: Call) -> Tensor:
        """Return the shadow of a result; without a rule it depends on all inputs."""
        shadow = shadow_of(call)
        if shadow is not None:
            return shadow
        if call.result.numel() > 1:
            self._unknown.add(str(call.func))
        return mix_all(call)

    def _read(self, tensor: Tensor) -> Tensor | None:
        """Return the shadow of a tensor, None if it depends on nothing."""
        stored = self._shadows.get(_key(tensor))
        if stored is None:
            return None
        if stored.layout == _layout(tensor):
            return stored.shadow
        return _view(stored.spread, _layout(tensor))

    def _write(self, tensor: Tensor, shadow: Tensor) -> None:
        """Store the shadow of a tensor, inside that of its whole storage if it is a part of it."""
        storage = tensor.untyped_storage()
        length = storage.nbytes() // tensor.element_size()
        stored, layout = self._shadows.get(_key(tensor)), _layout(tensor)
        if tensor.numel() < length:
            whole = torch.full((len(shadow), length), torch.inf) if stored is None else stored.spread.clone()
            whole = pad_entries(whole, 0, max(0, len(shadow) - len(whole)))
            part = _view(whole, layout)
            part.fill_(torch.inf)
            part[: len(shadow)] = shadow
            shadow, layout = whole, _contiguous(length)
        for key in [key for key, stored in self._shadows.items() if stored.storage.expired()]:
            del self._shadows[key]
        self._shadows[_key(tensor)] = _StoredShadow(StorageWeakRef(storage), length, layout, shadow)


@dataclass(frozen=True)
class _StoredShadow:
    """The shadow of a storage, in the layout of the tensor through which it was written."""

    storage: StorageWeakRef
    length: int
    layout: tuple
    shadow: Tensor

    @cached_property
    def spread(self) -> Tensor:
        """The shadow (k, length) of the whole storage."""
        if self.layout == _contiguous(self.length):
            return self.shadow.expand(-1, self.length)
        whole = torch.full((len(self.shadow), self.length), torch.inf)
        _view(whole, self.layout).copy_(self.shadow)
        return whole


def _key(tensor: Tensor) -> tuple[int, int]:
    """Return the storage of a tensor and the size of its values, which are pairs for complex types."""
    return tensor.untyped_storage()._cdata, tensor.element_size()


def _layout(tensor: Tensor) -> tuple:
    return tuple(tensor.shape), tensor.stride(), tensor.storage_offset()


def _contiguous(length: int) -> tuple:
    return (length,), (1,), 0


def _view(whole: Tensor, layout: tuple) -> Tensor:
    """Return the view of a shadow (k, length) by a tensor of some layout."""
    shape, strides, offset = layout
    step = whole.stride(1)
    return whole.as_strided((len(whole), *shape), (whole.stride(0), *(n * step for n in strides)), offset * step)


@cache
def _written(func: Any) -> list[str]:
    """Return the names of the arguments that an operation writes to."""
    return [each.name for each in func._schema.arguments if each.alias_info and each.alias_info.is_write]


@cache
def _defaults(func: Any) -> dict[str, Any]:
    """Return all arguments of an operation in order, with their default values."""
    return {each.name: each.default_value for each in func._schema.arguments}
