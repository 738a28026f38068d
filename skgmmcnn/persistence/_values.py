"""The state of an estimator as JSON and arrays, and back.

Numbers, strings, None and lists are JSON as they are.  Anything else becomes ``{kind: content}``, where the kind is
one of a table: whoever adds an attribute of a kind that is there need not think of files.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor

from ..features import memory_order, names_file

_NUMBERS = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split())
_FOLDERS = ("memory", "store")  # parameters that name where things are written, which a file must not choose


class Kind(NamedTuple):
    """How values of one kind are told from others, packed and unpacked."""

    matches: Callable[[Any], bool]
    pack: Callable[[Any, Packer], Any]
    unpack: Callable[[Any, Unpacker], Any]


class Packer:
    """Makes JSON of values, and collects their arrays.

    Parameters
    ----------
    kinds : dict of str to Kind
        Tried in order.
    embed : bool
        Whether the weights of networks are collected, too.
    """

    def __init__(self, kinds: dict[str, Kind], embed: bool) -> None:
        self._kinds, self.embed = kinds, embed
        self.arrays: dict[str, np.ndarray] = {}
        self.networks: dict[str, Any] = {}
        self.given: dict[str, str] = {}
        self.place: list[str] = []
        self.owner: Any = None
        self._seen: dict[int, tuple[Any, str]] = {}

    def __call__(self, value: Any) -> Any:
        """Return what JSON can hold for `value`."""
        if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            return value
        if type(value) is list:
            return [self(item) for item in value]
        for name, kind in self._kinds.items():
            if kind.matches(value):
                return {name: kind.pack(value, self)}
        raise self.refusal(value)

    def refusal(self, value: Any) -> TypeError:
        """Return the error for a value that no file can hold."""
        place, kind = ".".join(self.place) or "This", f"{type(value).__module__}.{type(value).__qualname__}"
        return TypeError(
            f"{place} is a {kind}, which save does not know: it keeps pipelines of skgmmcnn's estimators, numbers "
            "and text. joblib.dump keeps any object, as code to run."
        )

    @contextmanager
    def at(self, step: str) -> Iterator[None]:
        """Note for messages where the values lie."""
        self.place.append(step)
        yield
        self.place.pop()

    def store(self, value: Any, array: np.ndarray) -> str:
        """Keep the array that stands for `value`, once, and return its name."""
        if id(value) not in self._seen:
            name = str(len(self.arrays))
            self._seen[id(value)] = value, name  # held, so that no other object gets its id
            self.arrays[name] = np.array(array, order="C")
        return self._seen[id(value)][1]


class Unpacker:
    """Makes values of JSON and arrays.

    Parameters
    ----------
    kinds : dict of str to Kind
        As packed with.
    arrays : dict of str to array
        By name.
    networks : dict
        What is known of each network, by fingerprint.
    given : dict of str to object
        What the user passes, since it is code.
    """

    def __init__(
        self, kinds: dict[str, Kind], arrays: dict[str, np.ndarray], networks: dict[str, Any], given: dict[str, Any]
    ) -> None:
        self._kinds, self.arrays, self.networks, self.given = kinds, arrays, networks, given
        self.classes = known_classes()
        self._built: dict[Any, Any] = {}

    def __call__(self, packed: Any) -> Any:
        """Return the value that was packed."""
        if isinstance(packed, list):
            return [self(item) for item in packed]
        if not isinstance(packed, dict):
            return packed
        ((name, content),) = packed.items()
        return pick(self._kinds, name).unpack(content, self)

    def once(self, key: tuple[str, str], build: Callable[[], Any]) -> Any:
        """Return what `build` returned when it was first asked for under this key, a kind and a name."""
        if key not in self._built:
            self._built[key] = build()
        return self._built[key]


def pick(known: dict[str, Any], name: str) -> Any:
    """Return what a file names, if it may."""
    if name not in known:
        raise ValueError(f"it holds a {name!r}, which this version of skgmmcnn does not know.")
    return known[name]


def fill(owner: Any, state: dict[str, Any]) -> Any:
    """Set attributes of an object, but none that would stand before a method or before what is there."""
    for name in state:
        if not name.isidentifier() or name.startswith("__") or name in vars(owner) or hasattr(type(owner), name):
            raise ValueError(f"it gives a {type(owner).__name__} an attribute {name!r}, which none can be given.")
    vars(owner).update(state)
    return owner


def known_classes() -> dict[str, type]:
    """Return the classes that files may name: records and estimators of this package, and pipelines."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "skgmmcnn"]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {kind.__name__: kind for kind in found if _is_known(kind)} | {"Pipeline": Pipeline}


def _is_record(kind: type) -> bool:
    """Tell whether objects of a class are values alone: none that can be called."""
    is_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return (dataclasses.is_dataclass(kind) or is_tuple) and not any("__call__" in vars(base) for base in kind.__mro__)


def _is_known(kind: type) -> bool:
    ours = kind.__module__.partition(".")[0] == "skgmmcnn" and "<locals>" not in kind.__qualname__
    return kind is Pipeline or (ours and (_is_record(kind) or issubclass(kind, BaseEstimator)))


def _pack_record(value: Any, pack: Packer) -> Any:
    names = getattr(value, "_fields", None) or [part.name for part in dataclasses.fields(value) if part.init]
    return [type(value).__name__, _pack_attributes({name: getattr(value, name) for name in names}, pack)]


def _unpack_record(content: Any, unpack: Unpacker) -> Any:
    name, packed = content
    kind = pick(unpack.classes, name)
    fields = {name: unpack(value) for name, value in packed.items()}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"it holds a {name} of another version of skgmmcnn: {error}.") from error


def _pack_estimator(value: Any, pack: Packer) -> Any:
    before, pack.owner = pack.owner, value
    attributes = vars(value) | {name: None for name in _FOLDERS if name in vars(value)}
    if pack.embed and names_file(attributes.get("weights")):
        # The file holds the weights, so that the network stands for them and what came with them.
        attributes |= {"weights": None, "model": value.network_, "class_names": value.spec_.class_names}
        attributes |= {"preprocess": value.preprocess_}
    packed = _pack_attributes(attributes, pack)
    pack.owner = before
    return [type(value).__name__, packed]


def _pack_attributes(attributes: dict[str, Any], pack: Packer) -> dict[str, Any]:
    packed = {}
    for name, value in attributes.items():
        with pack.at(name):
            packed[name] = pack_weights(value, pack) if name == "weights" else pack(value)
    return packed


def pack_weights(value: Any, pack: Packer) -> Any:
    """Pack what the parameter `weights` is; a file is the caller's to name."""
    if not names_file(value):
        return pack(value)
    pack.given["weights"] = str(value)
    return {"code": ["given", "weights"]}


def unpack_weights(content: Any, unpack: Unpacker) -> Any:
    """Return what the parameter `weights` was; refuse a file that the caller has not named."""
    weights = unpack(content)
    if names_file(weights) and weights is not unpack.given.get("weights"):
        raise ValueError(f"it names a file of weights, {str(weights)!r}, which is yours to choose.")
    return weights


def _unpack_estimator(content: Any, unpack: Unpacker) -> Any:
    name, packed = content
    kind = pick(unpack.classes, name)
    state = {
        name: unpack_weights(value, unpack) if name == "weights" else unpack(value) for name, value in packed.items()
    }
    if state.get("store") is not None:
        raise ValueError(f"it names a store, {str(state['store'])!r}: where files go is yours to choose.")
    parameters = {name: state.pop(name) for name in inspect.signature(kind).parameters if name in state}
    return fill(kind(**parameters | {name: None for name in _FOLDERS if name in parameters}), state)


def _pack_array(value: np.ndarray, pack: Packer) -> Any:
    if value.dtype.name in _NUMBERS:
        axes = memory_order(value.strides, value.shape)
        return [pack.store(value, value.transpose(axes).astype(value.dtype.newbyteorder("="))), axes]
    if value.dtype.kind == "U":
        plain = np.array(value, value.dtype.newbyteorder("="), order="C")
        return ["text", list(value.shape), pack.store(value, plain.reshape(-1).view(np.uint32))]
    if value.dtype.kind != "O":
        raise pack.refusal(value)
    return ["object", list(value.shape), [pack(item) for item in value.ravel().tolist()]]


def _unpack_array(content: Any, unpack: Unpacker) -> np.ndarray:
    if len(content) == 2:
        name, axes = content
        return unpack.once(("array", name), lambda: np.array(unpack.arrays[name]).transpose(np.argsort(axes)))
    kind, shape, items = content
    if kind == "text":
        return unpack.once(("text", items), lambda: _text(unpack.arrays[items], shape))
    if kind != "object" or math.prod(shape) != len(items):
        raise ValueError(f"it holds an array of {kind!r} of shape {shape} with {len(items)} items.")
    array = np.empty(len(items), object)
    array[:] = [unpack(item) for item in items]
    return array.reshape(shape)


def _text(letters: np.ndarray, shape: list[int]) -> np.ndarray:
    """Return strings of their letters' numbers: memory that the file itself takes."""
    n = math.prod(shape)
    if not n:
        return np.empty(shape, "U1")
    if letters.dtype != np.uint32 or not letters.size or letters.size % n or letters.max() > sys.maxunicode:
        raise ValueError(f"it holds no text of shape {shape}.")
    return np.array(letters).view(f"U{letters.size // n}").reshape(shape)


def _pack_tensor(value: Tensor, pack: Packer) -> Any:
    kind, axes = str(value.dtype).removeprefix("torch."), memory_order(value.stride(), value.shape)
    stored = value.detach().cpu().permute(axes).contiguous()
    array = stored if kind in _NUMBERS else stored.reshape(-1).view(torch.uint8)  # numpy has no such type: its bytes
    return [pack.store(value, array.numpy()), kind, list(stored.shape), axes]


def _unpack_tensor(content: Any, unpack: Unpacker) -> Tensor:
    name, kind, shape, axes = content

    def build() -> Tensor:
        whole = torch.from_numpy(np.array(unpack.arrays[name]))
        return whole.view(dtype_of(kind)).reshape(shape).permute(np.argsort(axes).tolist())

    return unpack.once(("tensor", name), build)


def dtype_of(name: str) -> torch.dtype:
    """Return torch's type of plain numbers of this name."""
    known = {kind for kind in vars(torch).values() if isinstance(kind, torch.dtype)}
    plain = {str(kind).removeprefix("torch."): kind for kind in known if kind.is_floating_point or kind.is_complex}
    return pick(plain | {name: getattr(torch, name) for name in _NUMBERS}, name)


def _pack_random_state(value: np.random.RandomState, pack: Packer) -> Any:
    return [pack(part) for part in value.get_state()]


def _unpack_random_state(content: Any, unpack: Unpacker) -> np.random.RandomState:
    name, key, position, *rest = (unpack(part) for part in content)
    # numpy believes the position, and reads beyond its array.
    if name != "MT19937" or type(position) is not int or not 0 <= position <= 624 or key.shape != (624,):
        raise ValueError(f"it holds no state of random numbers at position {position!r}.")
    state = np.random.RandomState()
    state.set_state((name, key, position, *rest))
    return state


def _items(content: Any, unpack: Unpacker) -> Iterator[Any]:
    return (unpack(item) for item in content)


def _instance(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


KINDS: dict[str, Kind] = {
    "float": Kind(lambda v: type(v) is float, lambda v, pack: repr(v), lambda c, unpack: float(c)),
    "scalar": Kind(
        lambda v: isinstance(v, np.generic) and v.dtype.name in _NUMBERS,
        lambda v, pack: [v.dtype.name, pack(v.item())],
        lambda c, unpack: pick({name: np.dtype(name).type for name in _NUMBERS}, c[0])(unpack(c[1])),
    ),
    "text": Kind(_instance(np.str_), lambda v, pack: str(v), lambda c, unpack: np.str_(c)),
    "array": Kind(lambda v: type(v) is np.ndarray, _pack_array, _unpack_array),
    "tensor": Kind(lambda v: type(v) is Tensor, _pack_tensor, _unpack_tensor),
    "estimator": Kind(
        lambda v: isinstance(v, BaseEstimator) and _is_known(type(v)), _pack_estimator, _unpack_estimator
    ),
    "record": Kind(lambda v: not isinstance(v, BaseEstimator) and _is_known(type(v)), _pack_record, _unpack_record),
    "tuple": Kind(
        lambda v: type(v) is tuple,
        lambda v, pack: [pack(item) for item in v],
        lambda c, unpack: tuple(_items(c, unpack)),
    ),
    "dict": Kind(
        _instance(dict),
        lambda v, pack: [[pack(key), pack(item)] for key, item in v.items()],
        lambda c, unpack: {unpack(key): unpack(item) for key, item in c},
    ),
    "set": Kind(
        _instance(set, frozenset),
        lambda v, pack: sorted((pack(item) for item in v), key=repr),
        lambda c, unpack: set(_items(c, unpack)),
    ),
    "device": Kind(_instance(torch.device), lambda v, pack: str(v), lambda c, unpack: torch.device(c)),
    "random_state": Kind(_instance(np.random.RandomState), _pack_random_state, _unpack_random_state),
}
