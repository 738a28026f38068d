"""Assignment of words to all locations, in one pass over the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from .._distributed import all_gather, local_slice, n_processes
from .._threads import reproducible
from ..features import FeatureMaps
from ..mixture import Assignment, Mixture, Scorer
from ._representatives import Typical

# Each layer, and the words of its locations (n H W,).
Assigned = Iterator[tuple[str, Assignment]]
# Assigns words to activations (n, C, H, W), and posteriors and log-densities if the second argument is true.
Assign = Callable[[Mapping[str, Tensor], bool], Assigned]


def label(
    maps: FeatureMaps,
    assign: Assign,
    n_words: Mapping[str, int],
    *,
    keep_proba: bool = False,
    typical: Mapping[str, Typical] | None = None,
) -> tuple[dict[str, list[np.ndarray]], np.ndarray]:
    """Return the words by layer and the decisions (n,) of all images; update `typical` with each location.

    The words of a layer are a list of one array (n, H, W), with `keep_proba` followed by posteriors and log-densities.
    With `typical`, processes of ``torch.distributed`` divide the images.
    """
    local = slice(0, len(maps)) if typical is None else local_slice(len(maps))
    n_images = local.stop - local.start
    decisions = np.empty(n_images, np.int64)
    labels = {}
    for layer, (_, *size) in maps.shapes.items():
        dtypes = [np.min_scalar_type(n_words[layer] - 1), *([np.float16, np.float32] if keep_proba else [])]
        labels[layer] = [np.empty((n_images, *size), dtype) for dtype in dtypes]
    with reproducible():
        for batch in maps[local].batches():
            decisions[batch.rows] = batch.decisions
            for layer, assigned in assign(batch.activations, keep_proba or typical is not None):
                for array, values in zip(labels[layer], assigned, strict=False):
                    array[batch.rows] = values.numpy(force=True).reshape(-1, *array.shape[1:])
                if typical is not None:
                    words = labels[layer][0][batch.rows].reshape(len(batch.decisions), -1)
                    typical[layer].add(local.start + batch.start, words, assigned.posterior, assigned.log_density)
    if typical is not None and n_processes() > 1:
        for selection in typical.values():
            selection.merge()
        parts = all_gather(labels)
        labels = {
            layer: [np.concatenate(arrays) for arrays in zip(*(part[layer] for part in parts), strict=True)]
            for layer in labels
        }
        decisions = np.concatenate(all_gather(decisions))
    return labels, decisions


def average_posteriors(maps: FeatureMaps, mixtures: Mapping[str, Mixture]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return by layer the posteriors of the words averaged over each image (n, K), and the decisions (n,)."""
    averages = {layer: np.empty((len(maps), len(mixtures[layer].weights)), np.float32) for layer in maps.layers}
    decisions = np.empty(len(maps), np.int64)
    scorers: dict[str, Scorer] = {}
    with reproducible():
        for batch in maps.batches():
            decisions[batch.rows] = batch.decisions
            for layer, values in batch.activations.items():
                if layer not in scorers:
                    scorers[layer] = mixtures[layer].scorer(values)
                means = [scorers[layer].predict_proba(as_rows(image[None])).mean(0) for image in values]
                averages[layer][batch.rows] = torch.stack(means).numpy(force=True)  # one wait for the GPU
    return averages, decisions


def as_rows(values: Tensor) -> Tensor:
    """Return the channels at each location of maps (n, C, H, W) as rows (n H W, C)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)
