"""Capture of layers, and reruns of the part of a network above an edited layer."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from ._forms import Form
from ._network import slots
from ._watching import Call, Watch, version_of

Edits = Mapping[str, Callable[[Tensor], Tensor]]


# Rerun from the lowest edited layer on, up to a layer if given.  Returns the output of the network, None if it was
# stopped, and the maps of the layers that ran.
Run = Callable[[Edits, str | None], tuple[Any, dict[str, Tensor]]]


class StopRun(BaseException):
    """Stop of a run at a layer.  Not an Exception, since the forward of a network may catch these."""


class ForwardPass(NamedTuple):
    """The output of a forward pass, its maps by layer, and a function that reruns it with edits."""

    outputs: Any
    maps: dict[str, Tensor]
    again: Run


def edit(value: Tensor, form: Form, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the tensor of a layer with its map replaced by ``change(map)``; other tokens are unchanged."""
    old = form.as_map(value)
    new = change(old.float())
    if new.shape != old.shape:
        raise ValueError(f"An edit must return a map of shape {tuple(old.shape)}; it returned {tuple(new.shape)}.")
    value = value.clone()
    form.as_map(value).copy_(new)
    return value


def replace(where: Tensor, filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that sets the locations `where` (n, H, W) to `filling`, broadcast to (n, C, H, W)."""
    return lambda maps: torch.where(where[:, None], filling, maps)


def put(filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that replaces whole maps by `filling`, broadcast to (n, C, H, W)."""
    return filling.expand_as


class Capture(Watch):
    """A run that edits layers and captures their maps (n, C, H, W), up to the layer `until` if given."""

    def __init__(
        self,
        layers: Mapping[str, str],
        forms: Mapping[str, Form],
        edits: Edits,
        until: str | None = None,
        *,
        functions: bool = True,
    ) -> None:
        super().__init__(layers, functions=functions)
        self.forms, self._edits, self._until = forms, edits, until
        self.maps: dict[str, Tensor] = {}

    def run(self, network: nn.Module, batch: Tensor) -> Any:
        """Return the output of the network, None if the run stopped at the layer `until`."""
        try:
            return super().run(network, batch)
        except StopRun:
            return None

    def see(self, call: Call, result: Any) -> Any:
        """Edit and capture the result of a layer."""
        layer = self.layers.get(call.name)
        if layer is None:
            return result
        form = self.forms[layer]
        if layer in self._edits:
            result = edit(result, form, self._edits[layer])
        self.maps[layer] = form.as_map(result.clone())  # later operations may change it in place
        if layer == self._until:
            raise StopRun
        return result


class _Slot(int):
    """Number of a tensor in a recording."""


class _Event(NamedTuple):
    """A recorded call: leaves of its result, with slots for tensors, and the number of the first event behind it.

    It is `known` if its arguments are tensors of the network or results of recorded calls.
    """

    leaves: list[Any]
    structure: TreeSpec
    end: int
    known: bool


class _Start(NamedTuple):
    """The state of a run when a layer returns: the number of its event, counts of calls, and existing tensors."""

    number: int
    counts: Counter[tuple[str, bool]]
    tensors: dict[int, Tensor]


class Recording(Capture):
    """A run whose calls are recorded, so that reruns can begin at a layer.

    A rerun executes the forward of the network again, in which calls before the lowest edited layer return what was
    recorded.  Tensors are kept if they exist when the call after that layer begins.  Others can no longer be read, and
    reruns get empty ones of equal shape.
    """

    def run(self, network: nn.Module, batch: Tensor) -> Any:
        """Run a network and record its calls."""
        self.starts: dict[str, _Start] = {}
        self.events: list[_Event] = []
        self.empty: list[Tensor] = []
        self._references: list[weakref.ref[Tensor]] = []
        self._slots: dict[int, _Slot] = {}  # by the id of a tensor
        self._copies: dict[tuple[int, int], Tensor] = {}
        self._pending: tuple[_Start, Any] | None = None  # the result exists until the start is completed
        self._of_network = {id(tensor) for *_, tensor in slots(network)}
        self._slot(batch)
        output = super().run(network, batch)
        self._keep()
        return output

    @property
    def is_complete(self) -> bool:
        """Whether all that calls read was recorded, and does not come from functions that torch does not report."""
        return all(event.known for event in self.events)

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Run a submodule or function and record its result."""
        self._keep()
        known = all(map(self._knows, tree_leaves((args, kwargs))))
        number, n_tensors, n_layers = len(self.events), len(self.empty), len(self.maps)
        self.events.append(_Event([], tree_flatten([])[1], 0, known))
        result = function(*args, **kwargs)
        if len(self.maps) == n_layers:  # no rerun begins inside
            for kept, n in ((self.events, number + 1), (self.empty, n_tensors), (self._references, n_tensors)):
                del kept[n:]
        leaves, structure = tree_flatten(result)
        leaves = [self._slot(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.events[number] = _Event(leaves, structure, len(self.events), known)
        start, n_layers = _Start(number, self.counts.copy(), {}), len(self.maps)
        self.seen(path, module, result)
        if len(self.maps) > n_layers:
            *_, layer = self.maps
            self.starts[layer] = start
            self._pending = start, result
        return result

    def _knows(self, value: Any) -> bool:
        return not isinstance(value, Tensor) or id(value) in self._of_network or self._find(value) is not None

    def _find(self, tensor: Tensor) -> _Slot | None:
        slot = self._slots.get(id(tensor))
        is_valid = slot is not None and slot < len(self._references) and self._references[slot]() is tensor
        return slot if is_valid else None

    def _slot(self, tensor: Tensor) -> _Slot:
        slot = self._find(tensor)
        if slot is None:
            slot = self._slots[id(tensor)] = _Slot(len(self._references))
            self._references.append(weakref.ref(tensor))
            self.empty.append(tensor.new_empty(()).expand(tensor.shape))
        return slot

    def _keep(self) -> None:
        """After a layer, copy the tensors that still exist; layers share copies of equal tensors."""
        if self._pending is None:
            return
        start, _ = self._pending
        for slot, reference in enumerate(self._references):
            tensor = reference()
            if tensor is not None:
                version = slot, version_of(tensor)
                if version not in self._copies:
                    self._copies[version] = tensor.clone()
                start.tensors[slot] = self._copies[version]
        self._pending = None


class Replay(Capture):
    """A run with edited layers that begins at the lowest one, `start`, by a recording."""

    def __init__(self, recording: Recording, start: str, edits: Edits, until: str | None) -> None:
        super().__init__(recording.layers, recording.forms, edits, until)
        self._events, self._start = recording.events, recording.starts[start]
        self._number = 0
        self._has_begun = False
        self._tensors = list(recording.empty)
        for slot, tensor in self._start.tensors.items():
            self._tensors[slot] = tensor.clone()  # later operations may change it in place

    @property
    def batch(self) -> Tensor:
        """The input of the network."""
        return self._tensors[0]

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Return the recorded result of a call before the start; run others, also those in which it lies."""
        number = self._number
        if self._has_begun or number < self._start.number < self._events[number].end:
            self._number += 1
            return super().call(path, module, function, args, kwargs)
        leaves, structure, self._number, _ = self._events[number]
        leaves = [self._tensors[leaf] if isinstance(leaf, _Slot) else leaf for leaf in leaves]
        result = tree_unflatten(leaves, structure)
        if number < self._start.number:
            return result
        self._has_begun, self.counts = True, self._start.counts.copy()
        return self.seen(path, module, result)
