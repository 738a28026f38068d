"""Use and fidelity of words: the variance that they explain and the decisions that they preserve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._device import exact_float32
from .._warnings import warn
from ..features import FeatureMaps, Rerun, put
from ..mixture import Mixture
from ._influence import layer_mean
from ._labelling import Assign

_FEW_KEPT = 0.5


@dataclass(frozen=True)
class LayerWorth:
    """Use and fidelity of the words of one layer: see :meth:`LayerDictionary.report`."""

    n_words: int
    n_used: int
    r2: float
    kept: float

    def __str__(self) -> str:
        kept = "" if np.isnan(self.kept) else f"; {self.kept:.0%} of the decisions preserved"
        return f"{self.n_used} of {self.n_words} words in use; {self.r2:.0%} of the variance explained{kept}"


@dataclass(frozen=True)
class DictionaryReport:
    """Use and fidelity of the words of each layer over some images; one line of text per layer."""

    layers: Mapping[str, LayerWorth]
    n_images: int

    def __str__(self) -> str:
        return "\n".join(
            [f"Over {self.n_images} images:", *(f"- {layer}: {worth}" for layer, worth in self.layers.items())]
        )


def worth(maps: FeatureMaps, assign: Assign, mixtures: Mapping[str, Mixture]) -> DictionaryReport:
    """Return the use and fidelity of words over the images of `maps`; warn where few decisions are preserved."""
    network = maps.of_network()
    if network is None:
        parts = [_measure(assign, mixtures, batch.activations) for batch in maps.batches()]
    else:
        parts = list(network.rerun(lambda part: _measure(assign, mixtures, part.original.activations, part), "words"))
    layers = {layer: _pooled([part[layer] for part in parts], len(mixtures[layer].weights)) for layer in maps.layers}
    poor = [layer for layer, measured in layers.items() if measured.kept < _FEW_KEPT]
    if poor:
        warn(
            f"Fewer than half of the decisions are preserved when each location of {', '.join(map(repr, poor))} is "
            "replaced by the mean of its word. Use more words (n_components), more images, or a higher layer."
        )
    return DictionaryReport(layers, len(maps))


class _Measured(NamedTuple):
    """Words of a batch, sums of squared errors and of squared deviations, and whether each decision is preserved."""

    words: np.ndarray
    residual: float
    spread: float
    kept: np.ndarray


def _measure(
    assign: Assign, mixtures: Mapping[str, Mixture], activations: Mapping[str, Tensor], part: Rerun | None = None
) -> dict[str, _Measured]:
    measured = {}
    with exact_float32(), torch.no_grad():
        for layer, assigned in assign(activations, False):
            rebuilt = rebuild(mixtures[layer], assigned.component, activations[layer])
            kept = np.empty(0)
            if part is not None:
                kept = part.run({layer: put(rebuilt.maps)}).decisions == part.original.decisions
            words = np.unique(assigned.component.numpy(force=True))
            measured[layer] = _Measured(words, rebuilt.residual.sum(), rebuilt.total.sum(), kept)
    return measured


class Rebuilt(NamedTuple):
    """A map (n, C, H, W) rebuilt from words, the mean map, and sums over each image of squared errors of both, (n,)."""

    maps: Tensor
    mean: Tensor
    residual: np.ndarray
    total: np.ndarray


def rebuild(mixture: Mixture, words: Tensor, values: Tensor) -> Rebuilt:
    """Replace the columns of a map (n, C, H, W) by the means of their words (n H W,), and by the mean of the layer."""
    means = torch.from_numpy(mixture.emitted_means_).to(values)
    n, _, height, width = values.shape
    maps = means[words.long()].view(n, height, width, -1).permute(0, 3, 1, 2)
    mean = layer_mean(mixture, values)
    residual, total = ((values - each).square().sum((1, 2, 3)).double().numpy(force=True) for each in (maps, mean))
    return Rebuilt(maps, mean, residual, total)


def share_explained(residual: float, total: float) -> float:
    """Return the share of variance that words explain, R2; NaN without variance."""
    return float(1 - residual / total) if total > 0 else np.nan


def _pooled(parts: list[_Measured], n_words: int) -> LayerWorth:
    words, residuals, spreads, kept = zip(*parts, strict=True)
    used = np.unique(np.concatenate(words))
    preserved = np.concatenate(kept)
    r2 = share_explained(sum(residuals), sum(spreads))
    return LayerWorth(n_words, len(used), r2, float(preserved.mean()) if len(preserved) else np.nan)
