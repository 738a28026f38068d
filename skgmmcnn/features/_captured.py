"""Networks whose layers are captured."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ._following import Follower, LayerGeometry
from ._forms import Form
from ._network import Portable
from ._receptive_field import ReceptiveField
from ._rerun import Capture, Edits, Recording, Replay, StopRun
from ._running import move, prepare
from ._watching import Call, CopyPool, LayerCalls, LayerWatch, Watch, version_of

Fields = dict[tuple[str, str], ReceptiveField]

_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_PROBE = (1, 3, 64, 64)
_NO_LAYERS = LayerCalls({}, ())


class CapturedNetwork:
    """A network in evaluation mode, not copied, whose layers are captured by name in network order.

    Layers are submodules, or torch functions in them, named as in torchvision; ``name_0`` and ``name_1`` are the first
    and second call of a submodule that runs twice.  Their `calls` and `forms`, the conversions to maps, are determined
    by :meth:`select`.
    """

    def __init__(
        self, network: nn.Module, calls: LayerCalls = _NO_LAYERS, forms: Mapping[str, Form] | None = None
    ) -> None:
        self.network = network
        self.layers = tuple(calls.layers.values())
        self._calls = calls
        self._forms = forms or {}
        self._copies = CopyPool(network)

    def __reduce__(self) -> tuple:
        return type(self), (Portable(self.network), self._calls, dict(self._forms))

    def on(self, network: nn.Module) -> CapturedNetwork:
        """Return this object for another `network` of equal structure."""
        return CapturedNetwork(network, self._calls, self._forms)

    def to(self, device: torch.device) -> CapturedNetwork:
        """Move the network to `device`; return self."""
        move(self.network, device)
        return self

    def prepare(self, batch: Tensor) -> Tensor:
        """Return `batch` with the device, type and memory layout of the network."""
        return prepare(self.network, batch)

    @cached_property
    def first_layer(self) -> nn.Module | None:
        """The first convolution or fully connected layer to run, else to be defined; None if there is none."""
        first = _FirstLayer()
        try:
            with torch.no_grad():
                self._copies.run(self.prepare(torch.zeros(_PROBE)), first)
        except (StopRun, Exception):  # a network may fail in any way on an image of another size
            pass
        if first.path is not None:
            return self.network.get_submodule(first.path)
        return next((module for module in self.network.modules() if isinstance(module, _WEIGHTED)), None)

    def select(
        self, layers: Sequence[str], image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> tuple[CapturedNetwork, Fields]:
        """Return the network with `layers` captured, and the field of each layer in each lower one and the input."""
        calls = self._listing(image).find(layers, self.network)
        follower = self._follow(calls, image, layouts, pairs=True)
        follower.check(layers)
        forms = {layer: geometry.form for layer, geometry in follower.layers.items()}
        fields = {
            (layer, lower): field
            for layer, geometry in follower.layers.items()
            for lower, field in geometry.fields.items()
        }
        return CapturedNetwork(self.network, calls, forms), fields

    def survey(self, image: Tensor, layouts: Mapping[str, str] | None = None) -> dict[str, LayerGeometry]:
        """Return the geometry of each possible layer, with fields in the image only."""
        return self._follow(self._listing(image).submodules(), image, layouts, pairs=False).layers

    def run(self, batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Return the output of the network for `batch`, and the map (n, C, H, W) of each layer."""
        with torch.no_grad():
            output, maps = self.run_edited(batch, {})
        return output, {layer: maps[layer] for layer in self.layers}

    def run_edited(self, batch: Tensor, edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]:
        """Run the network on `batch` with edited layers; return its output and the maps of all layers."""
        capture = Capture(self._calls, self._forms, edits, until)
        return self._copies.run(self.prepare(batch), capture), capture.maps

    def start(self, batch: Tensor) -> ForwardPass:
        """Run the network on `batch`, so that it can be rerun with edited layers."""
        return ForwardPass(self, batch, self._copies, Recording(self._calls, self._forms))

    def _listing(self, image: Tensor) -> _Listing:
        listing = _Listing()
        with torch.no_grad():
            self._copies.run(self.prepare(image), listing)
        return listing

    def _follow(self, calls: LayerCalls, image: Tensor, layouts: Mapping[str, str] | None, *, pairs: bool) -> Follower:
        """Follow the dependence of layers on one image, with `pairs` also on each other."""
        image = self.prepare(image)
        follower = Follower(image, pairs=pairs, layouts=layouts or {}, n_layers=len(calls.layers))
        with torch.no_grad(), follower:
            self._copies.run(image, _Following(calls, follower))
        return follower


class ForwardPass:
    """A forward pass of a network on a batch, with its `outputs` and its `maps` by layer."""

    def __init__(self, network: CapturedNetwork, batch: Tensor, copies: CopyPool, recording: Recording) -> None:
        self._network = network
        self._batch = network.prepare(batch)
        self._copies = copies
        self._recording = recording
        with torch.no_grad():
            self.outputs = copies.run(self._batch, recording)
        self.maps = {layer: recording.maps[layer] for layer in network.layers}

    def again(self, edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]:
        """Rerun the network from the lowest edited layer on, up to the layer `until` if given.

        Return its output, None if it was stopped, and the maps of the layers that ran.
        """
        lowest = next((layer for layer in self._recording.starts if layer in edits), None)
        if lowest is None:
            return self.outputs, dict(self.maps)
        if not self._recording.is_complete:
            return self._network.run_edited(self._batch, edits, until)
        replay = Replay(self._recording, lowest, edits, until)
        return self._copies.run(replay.batch, replay), replay.maps


class _FirstLayer(Watch):
    """A run that ends at the first convolution or fully connected layer."""

    path: str | None = None

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        if isinstance(module, _WEIGHTED):
            self.path = path
            raise StopRun
        return super().call(path, module, function, args, kwargs)


class _Listing(Watch):
    """A run that lists all calls, in the order in which they return.

    Each tensor has a number, which it keeps while modules pass it on.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[Call, int | None] = {}  # with the number of the tensor, None for other results
        self._numbers: dict[tuple[int, int], int] = {}
        self._results: list[Any] = []  # kept, so that their ids stay unique
        self._running: list[str] = []
        self._scopes: dict[str, list[str]] = {}  # paths of the submodules in which a call is made

    def call(self, path: str, module: nn.Module | None, function: Callable, args: tuple, kwargs: dict) -> Any:
        self._running.append(path)
        result = super().call(path, module, function, args, kwargs)
        self._running.pop()
        return result

    def see(self, call: Call, result: Any) -> Any:
        self._results.append(result)
        number = None
        if isinstance(result, Tensor):
            version = id(result), version_of(result)
            if call.computes:
                self._numbers[version] = len(self._calls)
            number = self._numbers.setdefault(version, len(self._calls))
        self._calls[call] = number
        self._scopes[call.name] = self._running[:-1]
        return result

    def _layer_calls(self, layers: Mapping[str, str]) -> LayerCalls:
        return LayerCalls(layers, sorted({path for name in layers for path in self._scopes[name]}))

    def _times(self) -> Counter[str]:
        return Counter(call.path for call in self._calls if call.module is not None)

    def find(self, layers: Sequence[str], network: nn.Module) -> LayerCalls:
        """Return `layers` in network order; raise an error if one cannot be captured."""
        known, times = {call.name: number for call, number in self._calls.items()}, self._times()
        names = {_call_name(layer, network): layer for layer in layers}
        tensors: dict[int | None, str] = {}
        for layer in layers:
            name = _call_name(layer, network)
            if times[layer] > 1:
                raise ValueError(
                    f"Layer {layer!r} runs {times[layer]} times in one forward pass. Name one of these calls: "
                    f"{layer + '_0'!r} is the first, {layer + '_1'!r} the second."
                )
            if layer in ("input", "decision"):
                raise ValueError(f"The layer name {layer!r} is reserved; name a layer inside or behind it.")
            if name not in known:
                raise _unknown_layer(layer, list(known), list(times), network)
            other = tensors.setdefault(known[name], layer)
            if other != layer and known[name] is not None:
                raise ValueError(f"Layers {other!r} and {layer!r} are the same tensor; name one.")
        return self._layer_calls({name: names[name] for name in known if name in names})

    def submodules(self) -> LayerCalls:
        """Return all calls of submodules that return a tensor, the outermost of those that return the same."""
        layers: dict[int, Call] = {}
        for call in sorted(self._calls, key=lambda call: call.path.count(".")):
            number = self._calls[call]
            if call.module is not None and number is not None:
                layers.setdefault(number, call)
        times, ordered = self._times(), [layers[number] for number in sorted(layers)]
        return self._layer_calls(
            {call.name: call.path if times[call.path] == 1 else f"{call.path}_{call.number}" for call in ordered}
        )


class _Following(LayerWatch):
    """A run that reports layers to a follower."""

    def __init__(self, calls: LayerCalls, follower: Follower) -> None:
        super().__init__(calls)
        self._follower = follower

    def see_layer(self, layer: str, result: Any) -> Any:
        self._follower.record(layer, result)
        return result


def _call_name(layer: str, network: nn.Module) -> str:
    """Return the name of the call of a layer, which is without a number for the first call."""
    return layer if layer in dict(network.named_modules()) else layer.removesuffix("_0")


def _unknown_layer(name: str, known: list[str], submodules: list[str], network: nn.Module) -> ValueError:
    """Return the error for a layer that does not run, with the most similar names, else the first submodules."""
    if name in dict(network.named_modules()):
        return ValueError(f"Layer {name!r} does not run. Name a layer inside it, or another one that runs.")
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or submodules[:10]
    return ValueError(f"The network has no layer {name!r}. Near names: {', '.join(map(repr, near))}.")
