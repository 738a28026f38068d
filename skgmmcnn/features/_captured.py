"""Networks whose layers are captured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ._following import Follower, LayerGeometry
from ._forms import Form
from ._listing import FirstLayer, Listing
from ._network import Portable
from ._receptive_field import ReceptiveField
from ._rerun import Capture, Edits, Recording, Replay
from ._running import move, prepare
from ._watching import CopyPool, LayerCalls, LayerWatch, StopRun

Fields = dict[tuple[str, str], ReceptiveField]

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
        first = FirstLayer()
        try:
            with torch.no_grad():
                self._copies.run(self.prepare(torch.zeros(_PROBE)), first)
        except (StopRun, Exception):  # a network may fail in any way on an image of another size
            pass
        return first.module_in(self.network)

    def select(
        self, layers: Sequence[str], image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> tuple[CapturedNetwork, Fields]:
        """Return the network with `layers` captured, and the field of each layer in each lower one and the input."""
        calls = self._listing(image).find(layers)
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

    def _listing(self, image: Tensor) -> Listing:
        listing = Listing()
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


class _Following(LayerWatch):
    """A run that reports layers to a follower."""

    def __init__(self, calls: LayerCalls, follower: Follower) -> None:
        super().__init__(calls)
        self._follower = follower

    def see_layer(self, layer: str, result: Any) -> Any:
        self._follower.record(layer, result)
        return result
