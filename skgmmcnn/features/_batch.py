"""What the network did with consecutive images, and how it is run over them again with changed activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ._rerun import Edits, Run


class FeatureBatch(NamedTuple):
    """What the network did with consecutive images.

    Parameters
    ----------
    start : int
        Number of the first image.
    activations : dict of str to float32 Tensor of shape (n, C, H, W)
        What each layer returned, on the device of the network.
    outputs : object
        What the network returned; probabilities are those of all classes, (n, 2) where it returns a single one.
    decisions : int64 array of shape (n,)
        The outputs that it decided for.
    """

    start: int
    activations: dict[str, Tensor]
    outputs: Any
    decisions: np.ndarray


class Rerun:
    """Consecutive images whose network can be run again with changed activations.

    Given by :meth:`FeatureMaps.rerun` to its work.  ``len(rerun)`` is the number of images.

    Parameters
    ----------
    original : FeatureBatch
        What the network did with the images.
    again : callable
        Runs the network from the lowest edited layer on.
    read : callable
        Makes outputs and decisions of what the network returns.
    images : Tensor of shape (n, ...)
        The images as the network takes them.
    whole : callable
        Runs the network as a whole over images of that shape, without gradients; returns outputs and decisions.

    Examples
    --------
    >>> from skgmmcnn import FeatureExtractor
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> maps = FeatureExtractor(digits.network, ["conv2", "conv3"]).fit_transform(digits.images[:20])
    >>> def silence(rerun):
    ...     return rerun.run({"conv2": lambda values: 0 * values}).decisions
    >>> decisions, = maps.rerun(silence)
    >>> decisions.shape
    (20,)
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
        """Run the network with changed layers.

        Gradients flow through where torch records them.

        Parameters
        ----------
        edits : dict of str to callable
            By layer, what makes of its map, a float32 tensor (n, C, H, W), the map of that shape that the network goes
            on with.  What a layer gets already shows the changes below it.  The network goes on from the lowest of
            these layers.

        Returns
        -------
        batch : FeatureBatch
            What the network did; activations are those that it went on with, of the layers that were run.

        Raises
        ------
        ValueError
            If a layer is to be changed that is not modelled; or if a changed map has another shape.
        """
        self._check(edits)
        outputs, maps = self._again(edits)
        activations = {layer: values.float() for layer, values in maps.items()}
        return FeatureBatch(self.original.start, activations, *self._read(outputs))

    def map_of(self, layer: str, edits: Edits) -> Tensor:
        """Run the network with changed layers up to a layer, and return its map.

        Parameters
        ----------
        layer : str
            A modelled layer.
        edits : dict of str to callable
            As in :meth:`run`.

        Returns
        -------
        values : float32 Tensor of shape (n, C, H, W)
            The map with which the network would go on.
        """
        self._check([layer, *edits])
        _, maps = self._again(edits, layer)
        return maps[layer].float() if layer in maps else self.original.activations[layer]

    def _check(self, layers: Iterable[str]) -> None:
        for layer in layers:
            if layer not in self.original.activations:
                raise ValueError(
                    f"Layer {layer!r} cannot be changed or read: the modelled layers are "
                    f"{list(self.original.activations)}."
                )
