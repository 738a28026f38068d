"""Batches of activations, outputs and decisions, and reruns with edited activations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ._rerun import Edits, Run


class FeatureBatch(NamedTuple):
    """Activations, outputs and decisions of consecutive images.

    Parameters
    ----------
    start : int
        Number of the first image.
    activations : dict of str to float32 Tensor of shape (n, C, H, W)
        Maps of the layers, on the device of the network.
    outputs : object
        Output of the network; probabilities of all classes, (n, 2) for a network that returns a single one.
    decisions : int64 array of shape (n,)
        Output numbers.
    """

    start: int
    activations: dict[str, Tensor]
    outputs: Any
    decisions: np.ndarray


class Rerun:
    """Reruns of the network on consecutive images with edited activations, made by `FeatureMaps.rerun`.

    ``len(rerun)`` is the number of images.

    Parameters
    ----------
    original : FeatureBatch
        The batch without edits.
    again : callable
        Function that runs the network from the lowest edited layer on.
    read : callable
        Function of the output of the network that returns outputs and decisions.
    images : Tensor of shape (n, ...)
        The preprocessed images.
    whole : callable
        Function of preprocessed images that returns outputs and decisions, without gradients.

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
        """Run the network with edited layers, with gradients if torch records them.

        Parameters
        ----------
        edits : dict of str to callable
            By layer, a function of its map, a float32 tensor (n, C, H, W), that returns a map of equal shape.  The map
            depends on the edits of lower layers.

        Returns
        -------
        batch : FeatureBatch
            The result, with the edited maps of the layers that ran.

        Raises
        ------
        ValueError
            If an edited layer is not modelled, or an edited map has another shape.
        """
        self._check(edits)
        outputs, maps = self._again(edits)
        activations = {layer: values.float() for layer, values in maps.items()}
        return FeatureBatch(self.original.start, activations, *self._read(outputs))

    def map_of(self, layer: str, edits: Edits) -> Tensor:
        """Return the map of a layer in a run with edited layers, which stops there.

        Parameters
        ----------
        layer : str
            A modelled layer.
        edits : dict of str to callable
            As in :meth:`run`.

        Returns
        -------
        values : float32 Tensor of shape (n, C, H, W)
            The map, after edits.
        """
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
