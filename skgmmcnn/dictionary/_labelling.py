"""Assignment of words to all locations, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from .._device import exact_float32
from .._distributed import all_gather, local_slice, n_processes
from .._threads import one_thread
from ..features import FeatureMaps
from ..mixture import Assignment, Mixture, Scorer
from ._representatives import Typical

# Yields each layer of activations (n, C, H, W) and the words of its locations (n H W,), scored or not.
Labeller = Callable[[Mapping[str, Tensor], bool], Iterator[tuple[str, Assignment]]]


class MixtureLabeller:
    """Assigns to each location the likeliest component of the layer's mixture."""

    def __init__(self, mixtures: Mapping[str, Mixture]) -> None:
        self._mixtures = mixtures
        self._scorers: dict[str, Scorer] = {}

    def __call__(self, activations: Mapping[str, Tensor], scored: bool) -> Iterator[tuple[str, Assignment]]:
        for layer, values in activations.items():
            rows = as_rows(values)
            if layer not in self._scorers:
                self._scorers[layer] = Scorer(self._mixtures[layer], rows)
            scorer = self._scorers[layer]
            yield layer, scorer.assign(rows) if scored else Assignment(scorer.predict(rows))


def label(
    maps: FeatureMaps,
    labeller: Labeller,
    n_words: Mapping[str, int],
    *,
    keep_proba: bool = False,
    typical: Mapping[str, Typical] | None = None,
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray]:
    """Return the words of all images and the decisions (n,); update `typical` with each location.

    Words are under "component", by layer (n, H, W); with `keep_proba` there are also "posterior" and "log_density".
    With `typical`, processes of ``torch.distributed`` divide the images.
    """
    local = slice(0, len(maps)) if typical is None else local_slice(len(maps))
    labels, decisions = _empty(maps[local], n_words, keep_proba), np.empty(local.stop - local.start, np.int64)
    with exact_float32(), one_thread():
        for batch in maps[local].batches():
            place = slice(batch.start, batch.start + len(batch.decisions))
            decisions[place] = batch.decisions
            for layer, assigned in labeller(batch.activations, keep_proba or typical is not None):
                for name, arrays in labels.items():
                    values = getattr(assigned, name).numpy(force=True)
                    arrays[layer][place] = values.reshape(arrays[layer][place].shape)
                if typical is not None:
                    words = labels["component"][layer][place].reshape(len(batch.decisions), -1)
                    typical[layer].add(local.start + batch.start, words, assigned.posterior, assigned.log_density)
    if typical is not None and n_processes() > 1:
        for choice in typical.values():
            choice.merge()
        parts = all_gather(labels)
        labels = {
            name: {layer: np.concatenate([part[name][layer] for part in parts]) for layer in arrays}
            for name, arrays in labels.items()
        }
        decisions = np.concatenate(all_gather(decisions))
    return labels, decisions


def _empty(maps: FeatureMaps, n_words: Mapping[str, int], keep_proba: bool) -> dict[str, dict[str, np.ndarray]]:
    shapes = {layer: (len(maps), *shape[1:]) for layer, shape in maps.shapes.items()}
    words = {layer: np.empty(shape, np.min_scalar_type(n_words[layer] - 1)) for layer, shape in shapes.items()}
    kinds = {"posterior": np.float16, "log_density": np.float32} if keep_proba else {}
    others = {name: {layer: np.empty(shape, kind) for layer, shape in shapes.items()} for name, kind in kinds.items()}
    return {"component": words, **others}


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
                averages[layer][place] = torch.stack(means).numpy(force=True)  # one wait for the GPU
    return averages, decisions


def as_rows(values: Tensor) -> Tensor:
    """Return the channels at each location of maps (n, C, H, W) as rows (n H W, C)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)
