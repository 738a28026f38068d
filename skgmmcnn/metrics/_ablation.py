"""Columns of a map, taken away: which, and what stands in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from ..dictionary._base import WordModel

FILLS = ("mean", "zero", "resample")


def fillings(
    fill: str, dictionary: WordModel, activations: Mapping[str, Tensor], random: np.random.RandomState
) -> dict[str, Tensor]:
    """Return by layer what stands in the place of columns of `activations` (n, C, H, W), in a shape that broadcasts.

    Parameters
    ----------
    fill : {"mean", "zero", "resample"}
        The layer's mean, by its mixture; zeros; or columns of other images of the batch, drawn for each location.
    dictionary : LayerDictionary or LayerHMM
        Knows the means.
    activations : dict of str to Tensor of shape (n, C, H, W)
        Maps by layer.
    random : RandomState instance
        Draws columns.
    """
    if fill not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(map(repr, FILLS))}; got {fill!r}.")
    if fill == "resample":
        return {layer: _resampled(values, random) for layer, values in activations.items()}
    return {
        layer: torch.zeros_like(values[:1, :, :1, :1]) if fill == "zero" else layer_mean(dictionary, layer, values)
        for layer, values in activations.items()
    }


def layer_mean(dictionary: WordModel, layer: str, like: Tensor) -> Tensor:
    """Return the mean column of a layer as its mixture has it, shape (1, C, 1, 1)."""
    mixture = dictionary.mixtures_[layer]
    mean = torch.from_numpy(mixture.weights_ @ mixture.emitted_means_)
    return mean.to(like)[None, :, None, None]


def _resampled(values: Tensor, random: np.random.RandomState) -> Tensor:
    """Return for every location a column of any location of another image."""
    n, _, height, width = values.shape
    if n < 2:
        raise ValueError("fill='resample' takes columns from other images; give more, and batch_size of at least 2.")
    donors = (np.arange(n)[:, None] + random.randint(1, n, (n, height * width))) % n
    places = random.randint(height * width, size=(n, height * width))
    columns = values.permute(0, 2, 3, 1).flatten(1, 2)
    drawn = columns[torch.from_numpy(donors), torch.from_numpy(places)]
    return drawn.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def replace(where: Tensor, filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that puts `filling` (broadcast to n, C, H, W) to the locations `where` (n, H, W)."""
    return lambda maps: torch.where(where[:, None], filling, maps)


def put(filling: Tensor) -> Callable[[Tensor], Tensor]:
    """Return an edit that puts `filling` (broadcast to n, C, H, W) in the place of a whole map."""
    return filling.expand_as
