"""Base class of networks whose layers are captured: traced, or hooked while they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._following import Follower
from ._forms import Form
from ._network import Portable
from ._receptive_field import ReceptiveField
from ._rerun import Edits, ForwardPass
from ._running import move, prepare

Fields = dict[tuple[str, str], ReceptiveField]
Survey = dict[str, tuple[tuple[int, int, int], ReceptiveField | None]]


class CapturedNetwork(ABC):
    """A network in evaluation mode, not copied, whose layers are captured by name in network order.

    `forms` are the conversions of the layers to maps, which :meth:`select` determines.
    """

    network: nn.Module
    layers: tuple[str, ...]
    _forms: Mapping[str, Form]

    def __reduce__(self) -> tuple:
        return type(self), (Portable(self.network), self.layers, dict(self._forms))

    @property
    @abstractmethod
    def first_layer(self) -> nn.Module | None:
        """The first convolution or fully connected layer, None if there is none."""

    @abstractmethod
    def select(
        self, layers: Sequence[str], image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> tuple[CapturedNetwork, Fields]:
        """Return the network with `layers` captured, and the field of each layer in each lower one and the input."""

    @abstractmethod
    def survey(self, image: Tensor, layouts: Mapping[str, str] | None = None) -> Survey:
        """Return the shape (C, H, W) of the map and the field in the image of each possible layer."""

    @abstractmethod
    def on(self, network: nn.Module) -> CapturedNetwork:
        """Return this object for another `network` of equal structure."""

    @abstractmethod
    def run(self, batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Return the output of the network for `batch`, and the map (n, C, H, W) of each layer."""

    @abstractmethod
    def start(self, batch: Tensor) -> ForwardPass:
        """Run the network on `batch` and keep what reruns with edited layers need."""

    @abstractmethod
    def run_edited(self, batch: Tensor, edits: Edits) -> tuple[Any, dict[str, Tensor]]:
        """Run the network on `batch` with edited layers; return its output and the maps of all layers."""

    @abstractmethod
    def _pass(self, image: Tensor, layers: Any, follower: Follower) -> None:
        """Run the network on one image and report `layers` to `follower`."""

    def to(self, device: torch.device) -> CapturedNetwork:
        """Move the network to `device`; return self."""
        move(self.network, device)
        return self

    def prepare(self, batch: Tensor) -> Tensor:
        """Return `batch` with the device, type and memory layout of the network."""
        return prepare(self.network, batch)

    def _follow(self, layers: Any, image: Tensor, layouts: Mapping[str, str] | None, *, pairs: bool) -> Follower:
        """Follow the dependence of `layers` on one image, with `pairs` also on each other."""
        image = self.prepare(image)
        follower = Follower(image, pairs=pairs, layouts=layouts or {}, n_layers=len(layers))
        with torch.no_grad(), follower:
            self._pass(image, layers, follower)
        return follower
