"""Activations from memory and from networks, and reruns of networks with edited activations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from .._device import resolve_device
from .._progress import progress
from .._warnings import warn
from ._captured import CapturedNetwork
from ._decisions import decide
from ._images import Images
from ._network import fingerprint
from ._pixels import PixelScale
from ._rerun import Edits
from ._rows import ArrayRows, choose, plain
from ._running import images_at_once, in_parts, precisely
from ._spec import NetworkSpec

Change = Callable[[nn.Module, Tensor], None]
Result = TypeVar("Result")


class FeatureBatch(NamedTuple):
    """Activations, outputs and decisions of consecutive images, the first of which has the number `start`.

    Activations are float32 maps (n, C, H, W) by layer on the device of the network, and decisions an int64 array (n,).
    Outputs are those of the network; probabilities are those of all classes, also for a network that returns one.
    """

    start: int
    activations: dict[str, Tensor]
    outputs: Any
    decisions: np.ndarray

    @property
    def rows(self) -> slice:
        """The numbers of the images."""
        return slice(self.start, self.start + len(self.decisions))


@dataclass(eq=False)
class MemorySource:
    """Activations in memory: arrays (n, H, W, C) by layer, outputs and decisions, in batches of `size` images.

    `network` computes the same activations; None without a network.
    """

    spec: NetworkSpec
    arrays: Mapping[str, np.ndarray | ArrayRows]
    outputs: np.ndarray | None
    decisions: np.ndarray
    size: int
    network: NetworkSource | None = None

    def __len__(self) -> int:
        return len(self.decisions)

    def __getitem__(self, rows: Any) -> MemorySource:
        rows = [rows] if isinstance(rows, Integral) else rows
        return MemorySource(
            self.spec,
            {layer: choose(values, rows) for layer, values in self.arrays.items()},
            None if self.outputs is None else self.outputs[rows],
            self.decisions[rows],
            self.size,
            None if self.network is None else self.network[rows],
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"arrays": {layer: plain(values) for layer, values in self.arrays.items()}}

    def batches(self) -> Iterator[FeatureBatch]:
        """Yield batches of all images, in order."""
        device = resolve_device("auto") if self.network is None else self.network.device
        for start in range(0, len(self), self.size):
            part = self[start : start + self.size]
            copies = {layer: np.array(array, order="C") for layer, array in part.arrays.items()}
            maps = {layer: torch.from_numpy(copy).to(device).permute(0, 3, 1, 2) for layer, copy in copies.items()}
            yield FeatureBatch(start, maps, part.outputs, part.decisions)


class Running(NamedTuple):
    """Parameters of the extractor for running a network."""

    decision: Callable | None
    batch_size: int
    n_jobs: int | None
    verbose: int
    device: str | torch.device


@dataclass(eq=False)
class NetworkSource:
    """Activations computed by the network, which can also be rerun, changed and stored.

    `scale` converts the input of the network to pixels; None if it is not an image.
    """

    captured: CapturedNetwork
    spec: NetworkSpec
    fingerprint: str | None
    images: Images
    scale: PixelScale | None
    running: Running

    @property
    def network(self) -> NetworkSource:
        """The source itself."""
        return self

    @property
    def device(self) -> torch.device:
        """The device of the network, which is determined when it is used."""
        return resolve_device(self.running.device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> NetworkSource:
        return replace(self, images=self.images[rows])

    def batches(self) -> Iterator[FeatureBatch]:
        """Yield batches of all images, in order."""
        return self._passes(self._pass, "network", self.size)

    def rerun(self, work: Callable[[Rerun], Result], what: str) -> Iterator[Result]:
        """Yield the results of `work` for batches of the images; `what` is the name of the progress bar."""
        return self._passes(lambda images, start, _: work(Rerun(self, images, start)), what, self.running.batch_size)

    def _passes(self, work: Callable[[Tensor, int, int], Result], what: str, size: int) -> Iterator[Result]:
        """Yield the results of `work` for batches of `size` images, or smaller ones once memory is exhausted."""
        start, most = 0, size
        self.captured.to(self.device)
        with progress(total=len(self), desc=what, unit="image", shown=self.running.verbose) as bar:
            for images in self.images.batches(size, self.spec.input_shape, self.running.n_jobs):
                rest = images
                while len(rest):
                    batch = rest[:size]
                    try:
                        result = work(batch, start, size)
                    except torch.OutOfMemoryError:
                        if len(batch) == 1:
                            raise
                        if size == most:
                            self._warn_of_memory()
                        size = -(-len(batch) // 2)
                        continue
                    yield result
                    bar.update(len(batch))
                    start, rest = start + len(batch), rest[len(batch) :]

    def _warn_of_memory(self) -> None:
        warn(
            f"The device ran out of memory with batch_size={self.running.batch_size}; continuing with smaller batches.",
        )

    @property
    def size(self) -> int:
        """The batch size; on a CPU a multiple of the number of images in one pass."""
        if self.device.type != "cpu":
            return self.running.batch_size
        at_once = images_at_once(self.spec.input_shape)
        return -(-self.running.batch_size // at_once) * at_once

    def _pass(self, images: Tensor, start: int, size: int) -> FeatureBatch:
        def run(part: Tensor) -> tuple[Any, dict[str, Tensor]]:
            with precisely(self.device):
                return self.captured.run(part)

        at_once = min(size, images_at_once(self.spec.input_shape))
        outputs, maps = in_parts(run, images, at_once) if self.device.type == "cpu" else run(images)
        return self._batch(outputs, maps, start)

    def _batch(self, outputs: Any, maps: dict[str, Tensor], start: int) -> FeatureBatch:
        activations = {layer: values.float() for layer, values in maps.items()}
        scores, decisions = decide(outputs, activations, start, self.running.decision, self.spec)
        return FeatureBatch(start, activations, scores, decisions)

    def changed(self, change: Change) -> NetworkSource:
        """Return the source of the same images with a copy of the network changed by `change`."""
        network = copy.deepcopy(self.captured.network)
        captured = self.captured.on(network).to(self.device)
        with torch.no_grad():
            change(network, captured.prepare(self.images.batch(0, self.running.batch_size, self.spec.input_shape)))
        network.eval().requires_grad_(False)
        return replace(self, captured=captured, fingerprint=fingerprint(network))


class Rerun:
    """Reruns of the network on consecutive `images`, preprocessed, with edited activations.

    ``len(rerun)`` is the number of images, and `original` their batch without edits.
    """

    def __init__(self, source: NetworkSource, images: Tensor, start: int) -> None:
        self._source, self.images = source, images
        self._device = source.device
        with precisely(self._device):
            self._passed = source.captured.start(images)
        self.original = source._batch(self._passed.outputs, self._passed.maps, start)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def rows(self) -> slice:
        """The numbers of the images."""
        return self.original.rows

    def run(self, edits: Edits) -> FeatureBatch:
        """Run the network with edited layers, with gradients if torch records them.

        Edits are functions by layer that return a new map of equal shape for a float32 map (n, C, H, W), which depends
        on the edits of lower layers.  The activations are the edited maps of the layers that ran.
        """
        return self._source._batch(*self._again(edits), self.original.start)

    def run_images(self, images: Tensor) -> tuple[Any, np.ndarray]:
        """Return outputs and decisions of the network for other preprocessed images."""
        batch = self._source._pass(images, self.original.start, len(images))
        return batch.outputs, batch.decisions

    def map_of(self, layer: str, edits: Edits) -> Tensor:
        """Return the float32 map (n, C, H, W) of a layer in a run with edited layers, which stops there."""
        _, maps = self._again(edits, layer)
        return maps[layer].float() if layer in maps else self.original.activations[layer]

    def _again(self, edits: Edits, until: str | None = None) -> tuple[Any, dict[str, Tensor]]:
        layers = self.original.activations
        for layer in [*edits, *filter(None, [until])]:
            if layer not in layers:
                raise ValueError(f"Layer {layer!r} cannot be edited or read: the modelled layers are {list(layers)}.")
        with precisely(self._device):
            return self._passed.again(edits, until)
