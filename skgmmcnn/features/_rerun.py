"""Capture of layers, and reruns of the part of a network above an edited layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from ._forms import Form
from ._network import slots
from ._watching import Call, LayerCalls, LayerWatch, StopRun, is_of_torch, version_of

Edits = Mapping[str, Callable[[Tensor], Tensor]]


def edit(values: Tensor, form: Form, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the tensor of a layer with its map replaced by ``change(map)``; other tokens are unchanged."""
    old = form.as_map(values)
    new = change(old.float())
    if new.shape != old.shape:
        raise ValueError(f"An edit must return a map of shape {tuple(old.shape)}; it returned {tuple(new.shape)}.")
    values = values.clone()
    form.as_map(values).copy_(new)
    return values


def replace(where: Tensor, filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that sets the locations `where` (n, H, W) to `filling`, broadcast to (n, C, H, W)."""
    return lambda maps: torch.where(where[:, None], filling, maps)


def put(filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that replaces whole maps by `filling`, broadcast to (n, C, H, W)."""
    return filling.expand_as


class Capture(LayerWatch):
    """A run that edits layers and captures their maps (n, C, H, W), up to the layer `until` if given."""

    def __init__(self, calls: LayerCalls, forms: Mapping[str, Form], edits: Edits, until: str | None = None) -> None:
        super().__init__(calls)
        self.forms = forms
        self.maps: dict[str, Tensor] = {}
        self._edits = edits
        self._until = until

    def run(self, network: nn.Module, batch: Tensor) -> Any:
        """Return the output of the network, None if the run stopped at the layer `until`."""
        try:
            return super().run(network, batch)
        except StopRun:
            return None

    def see_layer(self, layer: str, result: Any) -> Any:
        """Edit and capture the result of a layer."""
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
    """The result of a recorded call, with slots for tensors, and the number of the first event after it."""

    result: Any
    end: int


class _Start(NamedTuple):
    """The state of a run when a layer returns: the number of its event, counts of calls, and existing tensors."""

    event: int
    call: Call
    counts: Counter[str]
    tensors: dict[int, Tensor]


class Recording(Capture):
    """A run whose calls are recorded, so that reruns can begin at a layer.

    A rerun executes the forward of the network again, in which calls before the lowest edited layer return what was
    recorded.  Tensors are kept if they exist when the call after that layer begins.  Others can no longer be read, and
    reruns get empty ones of equal shape.

    The recording `is_complete` if all that calls read was recorded, and does not come from functions that torch does
    not report.  What a submodule computes, keeps and does not return is not recorded, since reruns may skip it,
    nor are exceptions.
    """

    def __init__(self, calls: LayerCalls, forms: Mapping[str, Form]) -> None:
        super().__init__(calls, forms, {})
        self.is_complete = True
        self.starts: dict[str, _Start] = {}
        self.events: list[_Event] = []
        self.empty: list[Tensor] = []
        self._slots = WeakTensorKeyDictionary()
        self._copies: dict[tuple[int, int], Tensor] = {}
        self._pending: tuple[_Start, Any] | None = None  # the result exists until the start is completed

    def run(self, network: nn.Module, batch: Tensor) -> Any:
        """Run a network and record its calls."""
        self._of_network = {id(tensor) for *_, tensor in slots(network)}
        self._modules = dict(network.named_modules())
        self._with_slots(batch)
        output = super().run(network, batch)
        self._complete_start()
        return output

    def looks_into(self, path: str) -> bool:
        """Return whether calls inside a submodule are recorded; modules of torch read only what they are given."""
        return super().looks_into(path) or not is_of_torch(self._modules[path])

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        """Run a submodule or function and record its result."""
        self._complete_start()
        self.is_complete = self.is_complete and all(map(self._is_recorded, tree_leaves((args, kwargs))))
        number, n_tensors = len(self.events), len(self.empty)
        self.events.append(_Event(None, number))
        try:
            result = function(*args, **kwargs)
        except Exception:
            self.is_complete = False  # the network may go on
            raise
        if module is not None:
            self._complete_start()
            self._forget(n_tensors, result)
        self.events[number] = _Event(tree_map(self._with_slots, result), len(self.events))
        call = self.count(path, module)
        self.see(call, result)
        layer = self.layer_of(call)
        if layer is not None:
            start = _Start(number, call, self.counts.copy(), {})
            self.starts[layer] = start
            self._pending = start, result
        return result

    def _is_recorded(self, value: Any) -> bool:
        return not isinstance(value, Tensor) or id(value) in self._of_network or value in self._slots

    def _with_slots(self, value: Any) -> Any:
        """Return the slot of a tensor; other values are unchanged."""
        if not isinstance(value, Tensor):
            return value
        if value not in self._slots:
            self._slots[value] = _Slot(len(self.empty))
            self.empty.append(value.new_empty(()).expand(value.shape))
        return self._slots[value]

    def _forget(self, first: int, result: Any) -> None:
        """Forget the tensors from the slot `first` on, except for those in the result of a submodule."""
        returned = set(map(id, tree_leaves(result)))
        for tensor in [tensor for tensor, slot in self._slots.items() if slot >= first and id(tensor) not in returned]:
            del self._slots[tensor]

    def _complete_start(self) -> None:
        """After a layer, copy the tensors that still exist; layers share copies of equal tensors."""
        if self._pending is None:
            return
        start, _ = self._pending
        for tensor, slot in self._slots.items():
            version = slot, version_of(tensor)
            if version not in self._copies:
                self._copies[version] = tensor.clone()
            start.tensors[slot] = self._copies[version]
        self._pending = None


class Replay(Capture):
    """A run with edited layers that begins at the lowest one, `start`, by a recording."""

    def __init__(self, recording: Recording, start: str, edits: Edits, until: str | None) -> None:
        super().__init__(recording.calls, recording.forms, edits, until)
        self._events = recording.events
        self._start = recording.starts[start]
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
        if self._has_begun:
            return super().call(path, module, function, args, kwargs)
        number = self._number
        event = self._events[number]
        if number < self._start.event < event.end:
            self._number += 1
            return super().call(path, module, function, args, kwargs)
        self._number = event.end
        result = tree_map(lambda leaf: self._tensors[leaf] if isinstance(leaf, _Slot) else leaf, event.result)
        if number < self._start.event:
            return result
        self._has_begun = True
        self.counts = self._start.counts.copy()
        return self.see(self._start.call, result)
