"""Reruns of the network without some words: their columns are filled in its maps, and it goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._progress import progress
from ..dictionary import layer_mean
from ..features import Rerun, margins, replace
from ._parts import Parts

FILLS = ("mean", "zero", "resample")  # the usual one first
_N_DONORS = 32  # images

Gone = Mapping[str, np.ndarray]  # by layer, the locations that are filled: bool (n, H, W)


def log_odds(outputs: Any, decisions: np.ndarray) -> np.ndarray:
    """Return the log-odds of decisions, in nats, shape (n,)."""
    return margins(outputs, decisions).numpy(force=True)


class Ablation:
    """The network without some of the words that images show in `layers`.

    Columns are filled with the layer's mean, by its mixture; with zeros; or with columns of other images, at random
    locations.
    """

    def __init__(self, parts: Parts, layers: Sequence[str], fill: str, random: np.random.RandomState) -> None:
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(map(repr, FILLS))}; got {fill!r}.")
        self._parts, self._layers, self._fill, self._random = parts, tuple(layers), fill, random
        if fill == "resample":
            if len(parts.maps) < 2:
                raise ValueError("fill='resample' takes columns from other images; give at least two.")
            self._donors = random.permutation(len(parts.maps))[:_N_DONORS]
            batches = [batch.activations for batch in parts.maps[self._donors].batches()]
            self._columns = {layer: torch.cat([_columns(each[layer]) for each in batches]) for layer in layers}

    def run(
        self,
        what: str,
        removals: Callable[[slice], Iterable[Gone]],
        score: Callable[[Any, np.ndarray], np.ndarray] = log_odds,
        layers: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Return the score of each decision after each removal, shape (n_removals, n).

        `removals` yields for the images of a slice what is removed from `layers`, all of them where None; `score` is a
        function of the network's outputs and its original decisions, and `what` is the name of the progress bar.
        """
        layers = self._layers if layers is None else layers

        def work(part: Rerun) -> np.ndarray:
            original = part.original
            filling = {layer: self.filling(layer, original.activations[layer], original.start) for layer in layers}
            outputs = (_outputs_without(part, gone, filling) for gone in removals(part.rows))
            return np.stack([score(each, original.decisions) for each in outputs])

        maps, batches = self._parts.maps, []
        with progress(total=len(maps), desc=what, unit="image", shown=self._parts.verbose, leave=False) as bar:
            for scores in maps.rerun(work):
                batches.append(scores)
                bar.update(scores.shape[1])
        return np.concatenate(batches, axis=1)

    def filling(self, layer: str, values: Tensor, start: int) -> Tensor:
        """Return what is put into the map (n, C, H, W) of the images from `start` on; broadcast it."""
        if self._fill == "zero":
            return torch.zeros_like(values[:1, :, :1, :1])
        if self._fill == "mean":
            return layer_mean(self._parts.dictionary.mixtures_[layer], values)
        n, _, height, width = values.shape
        own = np.arange(start, start + n)[:, None] == self._donors
        some = self._random.randint(0, len(self._donors) - own.any(1), size=(height * width, n)).T
        first_after = np.where(own.any(1), own.argmax(1), len(self._donors))[:, None]
        donors = some + (some >= first_after)  # an image is no donor of its own
        places = self._random.randint(height * width, size=(n, height * width))
        drawn = self._columns[layer][torch.from_numpy(donors), torch.from_numpy(places)].to(values)
        return drawn.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def at_locations(of_words: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Return the values of words, (n, K), at the locations that show them, (n, H, W)."""
    return np.take_along_axis(of_words, shown.reshape(len(shown), -1), axis=1).reshape(shown.shape)


def _outputs_without(part: Rerun, gone: Gone, filling: Mapping[str, Tensor]) -> Any:
    edits = {
        layer: replace(torch.from_numpy(where).to(filling[layer].device), filling[layer])
        for layer, where in gone.items()
        if where.any()
    }
    if not edits:
        return part.original.outputs
    with torch.no_grad():
        return part.run(edits).outputs


def _columns(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1).flatten(1, 2)
