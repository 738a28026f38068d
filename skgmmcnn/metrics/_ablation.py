"""Filling of columns of a map that are taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..dictionary import layer_mean
from ..features import Rerun, replace
from ._parts import Parts

FILLS = ("mean", "zero", "resample")  # the usual one first
_N_DONORS = 32  # images


class Fillings:
    """Fillings of columns: the layer's mean, by its mixture; zeros; or columns of other images, at random locations."""

    def __init__(self, fill: str, parts: Parts, layers: Sequence[str], random: np.random.RandomState) -> None:
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(map(repr, FILLS))}; got {fill!r}.")
        self._fill, self._dictionary, self._random = fill, parts.dictionary, random
        if fill == "resample":
            if len(parts.maps) < 2:
                raise ValueError("fill='resample' takes columns from other images; give at least two.")
            self._donors = random.permutation(len(parts.maps))[:_N_DONORS]
            batches = [batch.activations for batch in parts.maps[self._donors].batches()]
            self._columns = {layer: torch.cat([_columns(each[layer]) for each in batches]) for layer in layers}

    def __call__(self, activations: Mapping[str, Tensor], start: int) -> dict[str, Tensor]:
        """Return by layer what is put into `activations` (n, C, H, W) of the images from `start` on; broadcast it."""
        if self._fill == "zero":
            return {layer: torch.zeros_like(values[:1, :, :1, :1]) for layer, values in activations.items()}
        if self._fill == "mean":
            return {
                layer: layer_mean(self._dictionary.mixtures_[layer], values) for layer, values in activations.items()
            }
        return {layer: self._resampled(layer, values, start) for layer, values in activations.items()}

    def _resampled(self, layer: str, values: Tensor, start: int) -> Tensor:
        """Return for every location a column of any location of another image."""
        n, _, height, width = values.shape
        columns, size = self._columns[layer], height * width
        own = np.arange(start, start + n)[:, None] == self._donors  # (n, donors)
        some = self._random.randint(0, len(self._donors) - own.any(1), size=(size, n)).T
        donors = _past(some, own)
        places = self._random.randint(size, size=(n, size))
        drawn = columns[torch.from_numpy(donors), torch.from_numpy(places)].to(values)
        return drawn.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def outputs_without(part: Rerun, gone: Mapping[str, np.ndarray], filling: Mapping[str, Tensor]) -> Tensor:
    """Return the network's outputs with the filling at the locations that are gone, bool (n, H, W) by layer."""
    edits = {
        layer: replace(torch.from_numpy(where).to(filling[layer].device), filling[layer])
        for layer, where in gone.items()
        if where.any()
    }
    if not edits:
        return part.original.outputs
    with torch.no_grad():
        return part.run(edits).outputs


def at_locations(of_words: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return what words have, (n, K), at the locations that show them, (n, H, W)."""
    return np.take_along_axis(of_words, shown.reshape(len(shown), -1), axis=1).reshape(shown.shape)


def _past(numbers: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return numbers (n, m) of donors, counted without an image's own (n, donors), as numbers of all donors."""
    place = np.where(own.any(1), own.argmax(1), own.shape[1])[:, None]
    return numbers + (numbers >= place)


def _columns(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1).flatten(1, 2)
