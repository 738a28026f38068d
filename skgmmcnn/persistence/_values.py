"""Conversion of the state of an estimator to JSON and arrays, and back.

Numbers, strings, None and lists are JSON.  Other values become ``{kind: content}`` with a kind of the table `KINDS`;
attributes of these kinds are saved without further code.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor

from ..features import memory_order, names_file

_NUMBERS = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split())
_FOLDERS = ("memory", "store")  # output folders, which a file must not choose


class Kind(NamedTuple):
    """Recognition of values of one kind, conversion to JSON, and back."""

    matches: Callable[[Any], bool]
    pack: Callable[[Any, Packer], Any]
    unpack: Callable[[Any, Unpacker], Any]


class Packer:
    """Convert values to JSON and collect their arrays, with `embed` also the weights of networks.

    The `kinds` are tried in order.
    """

    def __init__(self, kinds: dict[str, Kind], embed: bool) -> None:
        self._kinds = kinds
        self.embed = embed
        self.arrays: dict[str, Tensor] = {}
        self.networks: dict[str, Any] = {}
        self.needs: dict[str, str] = {}
        self.place: list[str] = []
        self.owner: Any = None
        self._stored: dict[int, tuple[Any, str]] = {}

    def __call__(self, value: Any) -> Any:
        """Return the JSON of `value`."""
        if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            return value
        if type(value) is list:
            return [self(item) for item in value]
        for name, kind in self._kinds.items():
            if kind.matches(value):
                return {name: kind.pack(value, self)}
        raise self.refusal(value)

    def refusal(self, value: Any) -> TypeError:
        """Return the error for a value that cannot be saved."""
        place = ".".join(self.place) or "This"
        return TypeError(
            f"{place} is a {type(value).__module__}.{type(value).__qualname__}, which save does not support: it saves "
            "pipelines of skgmmcnn estimators, numbers and text. joblib.dump saves any object, as code to run."
        )

    def attribute(self, name: str, value: Any) -> Any:
        """Return the JSON of an attribute, which errors name."""
        self.place.append(name)
        packed = pack_weights(value, self) if name == "weights" else self(value)
        self.place.pop()
        return packed

    def numbers(self, value: Any, tensor: Tensor) -> tuple[str, list[int]]:
        """Store the numbers of `value` once; return their name in the file, and the axes in memory order."""
        axes = memory_order(tensor.stride(), tensor.shape)
        if id(value) not in self._stored:
            name = str(len(self.arrays))
            self._stored[id(value)] = value, name  # referenced, so that no other object gets its id
            self.arrays[name] = tensor.detach().cpu().permute(axes).clone(memory_format=torch.contiguous_format)
        return self._stored[id(value)][1], axes


class Unpacker:
    """Convert JSON and arrays to values, with `networks` by fingerprint; `arguments` of load are code of the user."""

    def __init__(
        self, kinds: dict[str, Kind], arrays: dict[str, Tensor], networks: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        self._kinds, self._arrays = kinds, arrays
        self.networks, self.arguments = networks, arguments
        self.classes = allowed_classes()
        self._built: dict[Any, Any] = {}

    def __call__(self, packed: Any) -> Any:
        """Return the value."""
        if isinstance(packed, list):
            return [self(item) for item in packed]
        if not isinstance(packed, dict):
            return packed
        ((name, content),) = packed.items()
        return pick(self._kinds, name).unpack(content, self)

    def numbers(self, content: Any, build: Callable[[Tensor], Any]) -> Any:
        """Return `build` of stored numbers with their axes in the original order; the same object for one name."""
        name, axes = content
        return self.once((build, name), lambda: build(self._arrays[name].permute(np.argsort(axes).tolist())))

    def once(self, key: Any, build: Callable[[], Any]) -> Any:
        """Return the result of `build`, called once per key."""
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]


def pick(table: dict[str, Any], name: str) -> Any:
    """Return the entry `name`, or raise an error."""
    if name not in table:
        raise ValueError(f"it contains a {name!r}, which this version of skgmmcnn does not know.")
    return table[name]


def fill(owner: Any, state: dict[str, Any]) -> Any:
    """Set attributes of an object; raise an error if they hide methods or existing attributes."""
    for name in state:
        if not name.isidentifier() or name.startswith("__") or name in vars(owner) or hasattr(type(owner), name):
            raise ValueError(f"it sets an attribute {name!r} of a {type(owner).__name__}, which is not allowed.")
    vars(owner).update(state)
    return owner


def allowed_classes() -> dict[str, type]:
    """Return the classes allowed in files: records and estimators of this package, and pipelines."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "skgmmcnn"]
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {kind.__name__: kind for kind in classes if _is_allowed(kind)} | {"Pipeline": Pipeline}


def _is_record(kind: type) -> bool:
    """Return whether a class is a dataclass or named tuple whose objects cannot be called."""
    is_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return (dataclasses.is_dataclass(kind) or is_tuple) and not any("__call__" in vars(base) for base in kind.__mro__)


def _is_allowed(kind: type) -> bool:
    ours = kind.__module__.partition(".")[0] == "skgmmcnn" and "<locals>" not in kind.__qualname__
    return kind is Pipeline or (ours and (_is_record(kind) or issubclass(kind, BaseEstimator)))


def _pack_record(value: Any, pack: Packer) -> Any:
    names = getattr(value, "_fields", None) or [part.name for part in dataclasses.fields(value) if part.init]
    return [type(value).__name__, {name: pack.attribute(name, getattr(value, name)) for name in names}]


def _unpack_record(content: Any, unpack: Unpacker) -> Any:
    name, packed = content
    kind = pick(unpack.classes, name)
    fields = {name: unpack(value) for name, value in packed.items()}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"it contains a {name} of another version of skgmmcnn: {error}.") from error


def _pack_estimator(value: Any, pack: Packer) -> Any:
    parent = pack.owner
    pack.owner = value
    attributes = vars(value) | {name: None for name in _FOLDERS if name in vars(value)}
    if pack.embed and names_file(attributes.get("weights")):
        # The network is saved in place of its weights file and the metadata of that.
        attributes |= {"weights": None, "model": value.network_, "class_names": value.spec_.class_names}
        attributes |= {"preprocess": value.preprocess_}
    packed = {name: pack.attribute(name, item) for name, item in attributes.items()}
    pack.owner = parent
    return [type(value).__name__, packed]


def pack_weights(value: Any, pack: Packer) -> Any:
    """Pack the parameter `weights`; the path of a file must be passed to load."""
    if not names_file(value):
        return pack(value)
    pack.needs["weights"] = str(value)
    return {"code": ["argument", "weights"]}


def unpack_weights(content: Any, unpack: Unpacker) -> Any:
    """Return the parameter `weights`; raise an error for a path that the user has not passed."""
    weights = unpack(content)
    if names_file(weights) and weights is not unpack.arguments.get("weights"):
        raise ValueError(f"it refers to a file of weights, {str(weights)!r}, which only the user may choose.")
    return weights


def _unpack_estimator(content: Any, unpack: Unpacker) -> Any:
    name, packed = content
    kind = pick(unpack.classes, name)
    state = {name: unpack(value) for name, value in packed.items() if name != "weights"}
    if "weights" in packed:
        state["weights"] = unpack_weights(packed["weights"], unpack)
    if state.get("store") is not None:
        raise ValueError(f"it refers to a store, {str(state['store'])!r}, which only the user may choose.")
    parameters = {name: state.pop(name) for name in inspect.signature(kind).parameters if name in state}
    return fill(kind(**parameters | {name: None for name in _FOLDERS if name in parameters}), state)


def _pack_array(value: np.ndarray, pack: Packer) -> Any:
    native = np.array(value, value.dtype.newbyteorder("="))
    return pack.numbers(value, torch.from_numpy(native))


def _unpack_items(content: Any, unpack: Unpacker) -> np.ndarray:
    kind, shape, items = content
    if kind not in ("O", "U") or math.prod(shape) != len(items):
        raise ValueError(f"it contains an array of {kind!r} of shape {shape} with {len(items)} items.")
    array = np.empty(len(items), object)
    array[:] = [unpack(item) for item in items]
    return (array if kind == "O" else array.astype(str)).reshape(shape)


def _dtype(name: str) -> torch.dtype:
    """Return the torch type of plain numbers with this name."""
    dtypes = {dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
    inexact = {str(dtype).removeprefix("torch."): dtype for dtype in dtypes if dtype.is_floating_point}
    return pick(inexact | {name: getattr(torch, name) for name in _NUMBERS}, name)


def _random_state(state: list[Any]) -> np.random.RandomState:
    name, key, position, *rest = state
    # numpy does not check the position, and would read beyond the array.
    if name != "MT19937" or type(position) is not int or not 0 <= position <= 624 or key.shape != (624,):
        raise ValueError(f"it contains no state of random numbers at position {position!r}.")
    random_state = np.random.RandomState()
    random_state.set_state((name, key, position, *rest))
    return random_state


def simple(types: type | tuple[type, ...], reduce: Callable[[Any], Any], build: Callable[[Any], Any]) -> Kind:
    """Return the kind of values that `reduce` converts to another kind, and `build` back."""
    return Kind(
        lambda value: isinstance(value, types),
        lambda value, pack: pack(reduce(value)),
        lambda content, unpack: build(unpack(content)),
    )


KINDS: dict[str, Kind] = {
    "array": Kind(
        lambda v: type(v) is np.ndarray and v.dtype.name in _NUMBERS,
        _pack_array,
        lambda content, unpack: unpack.numbers(content, Tensor.numpy),
    ),
    "items": Kind(
        lambda v: type(v) is np.ndarray and v.dtype.kind in "OU",
        lambda v, pack: [v.dtype.kind, list(v.shape), pack(v.ravel().tolist())],
        _unpack_items,
    ),
    "tensor": Kind(
        lambda v: type(v) is Tensor,
        lambda v, pack: pack.numbers(v, v),
        lambda content, unpack: unpack.numbers(content, Tensor.detach),
    ),
    "estimator": Kind(
        lambda v: isinstance(v, BaseEstimator) and _is_allowed(type(v)), _pack_estimator, _unpack_estimator
    ),
    "record": Kind(lambda v: not isinstance(v, BaseEstimator) and _is_allowed(type(v)), _pack_record, _unpack_record),
    "text": simple(np.str_, str, np.str_),
    "scalar": simple(np.generic, np.asarray, lambda array: array[()]),  # before "float", as np.float64 is one
    "float": simple(float, repr, float),  # not finite
    "tuple": simple(tuple, list, tuple),
    "dict": simple(dict, lambda v: list(map(list, v.items())), dict),
    "set": simple(set, lambda v: sorted(v, key=repr), set),
    "frozenset": simple(frozenset, lambda v: sorted(v, key=repr), frozenset),
    "device": simple(torch.device, str, torch.device),
    "dtype": simple(torch.dtype, lambda v: str(v).removeprefix("torch."), _dtype),
    "random_state": simple(np.random.RandomState, lambda v: list(v.get_state()), _random_state),
}
