"""Batches of activations, outputs and decisions, and reruns with edited activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ._rerun import Edits, Run


class FeatureBatch(NamedTuple):
    """Activations, outputs and decisions of consecutive images, the first of which has the number `start`.

    Activations are float32 maps (n, C, H, W) by layer on the device of the network, and decisions an int64 array (n,).
    Outputs are those of the network; probabilities are those of all classes, also for a network that returns one.
    """

    start: int
    activations: dict[str, Tensor]
    outputs: Any
    decisions: np.ndarray


class Rerun:
    """Reruns of the network on the images of `original` with edited activations; ``len(rerun)`` is their number.

    `again` runs the network from the lowest edited layer on, `read` converts its output to outputs and decisions, and
    `whole` returns these for preprocessed `images`.
    """

    def __init__(
        self,
        original: FeatureBatch,
        again: Run,
        read: Callable[[Any], tuple[Any, np.ndarray]],
        images: Tensor,
        whole: Callable[[Tensor], tuple[Any, np.ndarray]],
    ) -> None:
        self.original, self.images, self.run_images = original, images, whole
        self._again, self._read = again, read

    def __len__(self) -> int:
        return len(self.original.decisions)

    @property
    def rows(self) -> slice:
        """The numbers of the images."""
        return slice(self.original.start, self.original.start + len(self))

    def run(self, edits: Edits) -> FeatureBatch:
        """Run the network with edited layers, with gradients if torch records them.

        Edits are functions by layer that return a new map of equal shape for a float32 map (n, C, H, W), which depends
        on the edits of lower layers.  The activations are the edited maps of the layers that ran.
        """
        self._check(edits)
        outputs, maps = self._again(edits, None)
        activations = {layer: values.float() for layer, values in maps.items()}
        return FeatureBatch(self.original.start, activations, *self._read(outputs))

    def map_of(self, layer: str, edits: Edits) -> Tensor:
        """Return the float32 map (n, C, H, W) of a layer in a run with edited layers, which stops there."""
        self._check([layer, *edits])
        _, maps = self._again(edits, layer)
        return maps[layer].float() if layer in maps else self.original.activations[layer]

    def _check(self, layers: Iterable[str]) -> None:
        for layer in layers:
            if layer not in self.original.activations:
                raise ValueError(
                    f"Layer {layer!r} cannot be edited or read: the modelled layers are "
                    f"{list(self.original.activations)}."
                )
