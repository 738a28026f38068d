"""Reruns of the network with the columns of some words replaced in its maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._progress import progress
from ..dictionary import layer_mean
from ..features import Rerun, margins, replace
from ._parts import Parts, Table

FILLS = ("mean", "zero", "resample")  # the default first
_N_DONORS = 32  # images

Locations = Mapping[str, np.ndarray]  # by layer, bool (n, H, W)


def log_odds(outputs: Any, decisions: np.ndarray) -> np.ndarray:
    """Return the log-odds of decisions, in nats, shape (n,)."""
    return margins(outputs, decisions).numpy(force=True)


class Ablation:
    """Ablation of words in `layers` of the network.

    Columns are replaced by the layer's mean under its mixture, by zeros, or by columns of other images, from random
    locations.
    """

    def __init__(self, parts: Parts, layers: Sequence[str], fill: str, random: np.random.RandomState) -> None:
        if fill not in FILLS:
            raise ValueError(f"fill must be one of {', '.join(map(repr, FILLS))}; got {fill!r}.")
        self._parts = parts
        self._fill = fill
        self._random = random
        if fill == "resample":
            if len(parts.maps) < 2:
                raise ValueError("fill='resample' takes columns from other images; pass at least two.")
            self._donors = random.permutation(len(parts.maps))[:_N_DONORS]
            batches = [batch.activations for batch in parts.maps[self._donors].batches()]
            self._columns = {layer: torch.cat([_columns(each[layer]) for each in batches]) for layer in layers}

    def run(
        self,
        what: str,
        layers: Sequence[str],
        removals: Callable[[slice], Iterable[Locations]],
        score: Callable[[Any, np.ndarray], np.ndarray] = log_odds,
    ) -> np.ndarray:
        """Return the score of each decision after each removal, shape (n_removals, n).

        `removals` yields the locations that are removed from `layers` in the images of a slice; `score` is a function
        of outputs and decisions of the network; `what` is the name of the progress bar.
        """

        def work(part: Rerun) -> np.ndarray:
            original = part.original
            filling = {layer: self.filling(layer, original.activations[layer], original.start) for layer in layers}
            outputs = (_outputs_without(part, locations, filling) for locations in removals(part.rows))
            return np.stack([score(each, original.decisions) for each in outputs])

        maps = self._parts.maps
        batches = []
        with progress(total=len(maps), desc=what, unit="image", shown=self._parts.verbose, leave=False) as bar:
            for scores in maps.rerun(work):
                batches.append(scores)
                bar.update(scores.shape[1])
        return np.concatenate(batches, axis=1)

    def run_words(
        self,
        what: str,
        layers: Sequence[str],
        removals: Mapping[str, Sequence[Table]],
        score: Callable[[Any, np.ndarray], np.ndarray] = log_odds,
    ) -> dict[str, np.ndarray]:
        """Return by name the scores after each of several removals of words, shape (n_removals, n).

        Removals are tables of words, bool (n, K) by layer.
        """
        tables = [table for each in removals.values() for table in each]
        words = self._parts.words.words

        def locations(rows: slice) -> Iterator[Locations]:
            for table in tables:
                yield {layer: at_locations(mask[rows], words[layer][rows]) for layer, mask in table.items()}

        scores = self.run(what, layers, locations, score)
        ends = np.cumsum([len(each) for each in removals.values()])[:-1]
        return dict(zip(removals, np.split(scores, ends), strict=True))

    def filling(self, layer: str, values: Tensor, start: int) -> Tensor:
        """Return the filling of the map (n, C, H, W) of the images from `start` on, to be broadcast."""
        if self._fill == "zero":
            return torch.zeros_like(values[:1, :, :1, :1])
        if self._fill == "mean":
            return layer_mean(self._parts.dictionary.mixtures_[layer], values)
        n, _, height, width = values.shape
        is_own = np.arange(start, start + n)[:, None] == self._donors
        others = self._random.randint(0, len(self._donors) - is_own.any(1), size=(height * width, n)).T
        own = np.where(is_own.any(1), is_own.argmax(1), len(self._donors))[:, None]
        donors = others + (others >= own)  # no image is a donor of its own
        places = self._random.randint(height * width, size=(n, height * width))
        columns = self._columns[layer][torch.from_numpy(donors), torch.from_numpy(places)].to(values)
        return columns.unflatten(1, (height, width)).permute(0, 3, 1, 2)


def at_locations(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the values of words, (n, K), at their locations, (n, H, W)."""
    return np.take_along_axis(values, words.reshape(len(words), -1), axis=1).reshape(words.shape)


def _outputs_without(part: Rerun, locations: Locations, filling: Mapping[str, Tensor]) -> Any:
    edits = {
        layer: replace(torch.from_numpy(where).to(filling[layer].device), filling[layer])
        for layer, where in locations.items()
        if where.any()
    }
    if not edits:
        return part.original.outputs
    with torch.no_grad():
        return part.run(edits).outputs


def _columns(values: Tensor) -> Tensor:
    return values.permute(0, 2, 3, 1).flatten(1, 2)
