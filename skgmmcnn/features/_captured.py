"""The interface of networks whose layers are captured: traced ones, and ones that are watched while they run."""

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
from ._rerun import Edits, Passed
from ._running import move, prepare

Fields = dict[tuple[str, str], ReceptiveField]
Survey = dict[str, tuple[tuple[int, int, int], ReceptiveField | None]]


class CapturedNetwork(ABC):
    """A network in evaluation mode, in which layers are found by name and captured on the way.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode.  Its submodules are used as they are, not copied.
    layers : sequence of str
        Names of layers, in the order in which they run.
    forms : dict of str to Form
        How each layer is read as a map; found by :meth:`select`.
    """

    network: nn.Module
    layers: tuple[str, ...]
    _forms: Mapping[str, Form]

    def __reduce__(self) -> tuple:
        return type(self), (Portable(self.network), self.layers, dict(self._forms))

    @property
    @abstractmethod
    def first_layer(self) -> nn.Module | None:
        """The first convolution or fully connected layer, None without any."""

    @abstractmethod
    def select(
        self, layers: Sequence[str], image: Tensor, layouts: Mapping[str, str] | None = None
    ) -> tuple[CapturedNetwork, Fields]:
        """Return the network with `layers`, in the order in which they run, captured, and their receptive fields.

        Fields are those of every layer in each layer below that it depends on, and in the ``"input"``.
        """

    @abstractmethod
    def survey(self, image: Tensor, layouts: Mapping[str, str] | None = None) -> Survey:
        """Return for every layer that can be modelled the shape (C, H, W) of its map and its field in the image."""

    @abstractmethod
    def on(self, network: nn.Module) -> CapturedNetwork:
        """Return the same for an equal `network`."""

    @abstractmethod
    def run(self, batch: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """Return what the network returns for `batch`, and the map (n, C, H, W) of each layer on the way."""

    @abstractmethod
    def start(self, batch: Tensor) -> Passed:
        """Run the network over `batch`, such that it can be run again with changed layers."""

    @abstractmethod
    def run_edited(self, batch: Tensor, edits: Edits) -> tuple[Any, dict[str, Tensor]]:
        """Run the network over `batch` with changed layers; return what it returned, and the maps of all layers."""

    @abstractmethod
    def _pass(self, image: Tensor, layers: Any, follower: Follower) -> None:
        """Run the network over one image, and let `follower` see `layers`."""

    def to(self, device: torch.device) -> CapturedNetwork:
        """Move the network to `device`, if it is not there; return self."""
        move(self.network, device)
        return self

    def prepare(self, batch: Tensor) -> Tensor:
        """Return `batch` as the network takes it."""
        return prepare(self.network, batch)

    def _follow(self, layers: Any, image: Tensor, layouts: Mapping[str, str] | None, *, pairs: bool) -> Follower:
        """Follow what `layers` depend on in one image; with `pairs`, in each other too."""
        image = self.prepare(image)
        follower = Follower(image, pairs=pairs, layouts=layouts or {}, n_layers=len(layers))
        with torch.no_grad(), follower:
            self._pass(image, layers, follower)
        return follower
