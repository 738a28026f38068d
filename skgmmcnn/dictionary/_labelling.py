"""One pass over the images that gives every location its word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .._device import exact_float32
from .._distributed import gathered, my_share, n_processes
from .._threads import one_thread
from ..features import FeatureMaps
from ..mixture import Assignment, Mixture, Scorer
from ._representatives import Typical


@dataclass(frozen=True)
class Labels:
    """What the pass found, by layer: words, posteriors and log-densities (n, H, W); and the decisions (n,)."""

    words: dict[str, np.ndarray]
    decisions: np.ndarray
    proba: dict[str, np.ndarray] | None
    log_density: dict[str, np.ndarray] | None


class Labeller(Protocol):
    """Gives words to the locations of feature maps (n, C, H, W), whose layers come by name."""

    def predict(self, activations: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer and the word of each of its locations, shape (n H W,)."""

    def assign(self, activations: Mapping[str, Tensor]) -> Iterator[tuple[str, Assignment]]:
        """Yield each layer and the words of its locations with how likely they are."""


class MixtureLabeller:
    """Gives every location the likeliest component of its layer's mixture."""

    def __init__(self, mixtures: Mapping[str, Mixture]) -> None:
        self._mixtures = mixtures
        self._scorers: dict[str, Scorer] = {}

    def _scored(self, activations: Mapping[str, Tensor]) -> Iterator[tuple[str, Scorer, Tensor]]:
        for layer, values in activations.items():
            rows = as_rows(values)
            if layer not in self._scorers:
                self._scorers[layer] = Scorer(self._mixtures[layer], rows)
            yield layer, self._scorers[layer], rows

    def predict(self, activations: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Yield each layer and the word of each of its locations, shape (n H W,)."""
        return ((layer, scorer.predict(rows)) for layer, scorer, rows in self._scored(activations))

    def assign(self, activations: Mapping[str, Tensor]) -> Iterator[tuple[str, Assignment]]:
        """Yield each layer and the words of its locations with how likely they are."""
        return ((layer, scorer.assign(rows)) for layer, scorer, rows in self._scored(activations))


def label(
    maps: FeatureMaps,
    labeller: Labeller,
    n_words: Mapping[str, int],
    *,
    keep_proba: bool = False,
    typical: Mapping[str, Typical] | None = None,
) -> Labels:
    """Return the words of all images; with `typical`, also let it see how typical each location is.

    With `typical` processes of ``torch.distributed`` divide the images.
    """
    together = typical is not None and n_processes() > 1
    mine = my_share(len(maps)) if together else slice(0, len(maps))
    labels = _empty(maps[mine], n_words, keep_proba)
    with exact_float32(), one_thread():
        for batch in maps[mine].batches():
            labels.decisions[batch.start : batch.start + len(batch.decisions)] = batch.decisions
            if not keep_proba and typical is None:
                for layer, words in labeller.predict(batch.activations):
                    _put(labels.words[layer], batch.start, words)
                continue
            for layer, assigned in labeller.assign(batch.activations):
                _note(labels, layer, batch.start, assigned)
                if typical is not None:
                    seen = labels.words[layer][batch.start : batch.start + len(batch.decisions)]
                    typical[layer].add(
                        mine.start + batch.start, seen.reshape(len(seen), -1), assigned.posterior, assigned.log_density
                    )
    return _joined(labels, typical) if together and typical is not None else labels


def _joined(mine: Labels, typical: Mapping[str, Typical]) -> Labels:
    """Return the labels that all processes have found."""
    parts = gathered(mine)
    for found in typical.values():
        found.merge()

    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        return None if arrays[0] is None else {k: np.concatenate([a[k] for a in arrays]) for k in arrays[0]}

    decisions = np.concatenate([part.decisions for part in parts])
    return Labels(joined("words"), decisions, joined("proba"), joined("log_density"))


def average_posteriors(maps: FeatureMaps, mixtures: Mapping[str, Mixture]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return by layer the posteriors of the words averaged over each image (n, K), and the decisions (n,)."""
    averages = {layer: np.empty((len(maps), len(mixtures[layer].weights)), np.float32) for layer in maps.layers}
    decisions = np.empty(len(maps), np.int64)
    scorers: dict[str, Scorer] = {}
    with exact_float32(), one_thread():
        for batch in maps.batches():
            place = slice(batch.start, batch.start + len(batch.decisions))
            decisions[place] = batch.decisions
            for layer, values in batch.activations.items():
                scorer = scorers.setdefault(layer, Scorer(mixtures[layer], values))
                means = [scorer.predict_proba(as_rows(image[None])).mean(0) for image in values]
                averages[layer][place] = torch.stack(means).numpy(force=True)  # a GPU is waited for once
    return averages, decisions


def as_rows(values: Tensor) -> Tensor:
    """Return the channels at each location of maps (n, C, H, W) as rows (n H W, C)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)


def _empty(maps: FeatureMaps, n_words: Mapping[str, int], keep_proba: bool) -> Labels:
    shapes = {layer: (len(maps), *shape[1:]) for layer, shape in maps.shapes.items()}

    def blank(kind: Any) -> dict[str, np.ndarray]:
        return {layer: np.empty(shape, kind) for layer, shape in shapes.items()}

    return Labels(
        words={layer: np.empty(shape, np.min_scalar_type(n_words[layer] - 1)) for layer, shape in shapes.items()},
        decisions=np.empty(len(maps), np.int64),
        proba=blank(np.float16) if keep_proba else None,
        log_density=blank(np.float32) if keep_proba else None,
    )


def _note(labels: Labels, layer: str, start: int, assigned: Assignment) -> None:
    _put(labels.words[layer], start, assigned.component)
    if labels.proba is not None and labels.log_density is not None:
        _put(labels.proba[layer], start, assigned.posterior)
        _put(labels.log_density[layer], start, assigned.log_density)


def _put(array: np.ndarray, start: int, values: Tensor) -> None:
    """Write the values of consecutive images, the first of which is number `start`, into `array` (n, H, W)."""
    part = values.numpy(force=True).reshape(-1, *array.shape[1:])
    array[start : start + len(part)] = part
