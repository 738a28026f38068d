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
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from torch import Tensor

from ..features._network import memory_order

_NUMBERS = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split())


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
        self.built: dict[str, Any] = {}

    def __call__(self, packed: Any) -> Any:
        """Return the value that was packed."""
        if isinstance(packed, list):
            return [self(item) for item in packed]
        if not isinstance(packed, dict):
            return packed
        ((name, content),) = packed.items()
        return pick(self._kinds, name).unpack(content, self)

    def once(self, key: str, build: Callable[[], Any]) -> Any:
        """Return what `build` returned when it was first asked for under this key."""
        if key not in self.built:
            self.built[key] = build()
        return self.built[key]


def pick(known: dict[str, Any], name: str) -> Any:
    """Return what a file names, if it may."""
    if name not in known:
        raise ValueError(f"The file holds a {name!r}, which this version of skgmmcnn does not know.")
    return known[name]


def known_classes() -> dict[str, type]:
    """Return the classes that files may name: records and estimators of this package, and pipelines."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "skgmmcnn"]
    ours = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__.partition(".")[0] == "skgmmcnn"
    ]
    kept = {kind.__name__: kind for kind in ours if _is_record(kind) or issubclass(kind, BaseEstimator)}
    return kept | {"Pipeline": Pipeline}


def _is_record(kind: type) -> bool:
    return dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _is_known(value: Any) -> bool:
    return known_classes().get(type(value).__name__) is type(value)


def _pack_record(value: Any, pack: Packer) -> Any:
    names = getattr(value, "_fields", None) or [part.name for part in dataclasses.fields(value) if part.init]
    return [type(value).__name__, _pack_attributes({name: getattr(value, name) for name in names}, pack)]


def _unpack_record(content: Any, unpack: Unpacker) -> Any:
    kind = pick(known_classes(), content[0])
    fields = {name: unpack(packed) for name, packed in content[1].items()}
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"The file holds a {content[0]} of another version of skgmmcnn: {error}.") from error


def _pack_estimator(value: Any, pack: Packer) -> Any:
    before, pack.owner = pack.owner, value
    attributes = dict(vars(value))
    if isinstance(value, Pipeline):
        attributes["memory"] = None  # a folder of pickles, which a file must not choose
    packed = _pack_attributes(attributes, pack)
    pack.owner = before
    return [type(value).__name__, packed]


def _pack_attributes(attributes: dict[str, Any], pack: Packer) -> dict[str, Any]:
    packed = {}
    for name, value in attributes.items():
        with pack.at(name):
            packed[name] = pack(value)
    return packed


def _unpack_estimator(content: Any, unpack: Unpacker) -> Any:
    kind = pick(known_classes(), content[0])
    state = {name: unpack(packed) for name, packed in content[1].items()}
    parameters = {name: state.pop(name) for name in inspect.signature(kind).parameters if name in state}
    estimator = kind(**parameters)
    vars(estimator).update(state)
    return estimator


def _pack_array(value: np.ndarray, pack: Packer) -> Any:
    if value.dtype.name in _NUMBERS:
        axes = memory_order(value.strides, value.shape)
        return [pack.store(value, value.transpose(axes).astype(value.dtype.newbyteorder("="))), axes]
    if value.dtype.kind not in "UO":
        raise pack.refusal(value)
    return [value.dtype.str, list(value.shape), [pack(item) for item in value.ravel().tolist()]]


def _unpack_array(content: Any, unpack: Unpacker) -> np.ndarray:
    if len(content) == 2:
        name, axes = content
        return unpack.once(name, lambda: np.array(unpack.arrays[name]).transpose(np.argsort(axes)))
    kind, shape, items = content
    array = np.empty(shape, kind)
    array.ravel()[:] = [unpack(item) for item in items]
    return array


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

    return unpack.once(name, build)


def dtype_of(name: str) -> torch.dtype:
    """Return torch's type of this name, and nothing else that torch has."""
    return pick({name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}, name)


def _pack_random_state(value: np.random.RandomState, pack: Packer) -> Any:
    return [pack(part) for part in value.get_state()]


def _unpack_random_state(content: Any, unpack: Unpacker) -> np.random.RandomState:
    state = np.random.RandomState()
    state.set_state(tuple(unpack(part) for part in content))
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
        lambda c, unpack: np.dtype(c[0]).type(unpack(c[1])),
    ),
    "text": Kind(_instance(np.str_), lambda v, pack: str(v), lambda c, unpack: np.str_(c)),
    "array": Kind(lambda v: type(v) is np.ndarray, _pack_array, _unpack_array),
    "tensor": Kind(lambda v: type(v) is Tensor, _pack_tensor, _unpack_tensor),
    "estimator": Kind(lambda v: isinstance(v, BaseEstimator) and _is_known(v), _pack_estimator, _unpack_estimator),
    "record": Kind(lambda v: _is_record(type(v)) and _is_known(v), _pack_record, _unpack_record),
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
    "path": Kind(_instance(PurePath), lambda v, pack: str(v), lambda c, unpack: Path(c)),
    "device": Kind(_instance(torch.device), lambda v, pack: str(v), lambda c, unpack: torch.device(c)),
    "random_state": Kind(_instance(np.random.RandomState), _pack_random_state, _unpack_random_state),
}
