"""Worth of words: the variance of each layer that they keep, and the decisions that they preserve."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._device import exact_float32
from ..features import FeatureMaps, Rerun, put
from ..mixture import Mixture
from ._influence import layer_mean
from ._labelling import Labeller

_FEW_KEPT = 0.5


@dataclass(frozen=True)
class LayerWorth:
    """Use and fidelity of the words of one layer: see :meth:`LayerDictionary.report`."""

    n_words: int
    n_used: int
    r2: float
    kept: float

    def __str__(self) -> str:
        kept = "" if np.isnan(self.kept) else f"; {self.kept:.0%} of the decisions stand on them"
        return f"{self.n_used} of {self.n_words} words in use, which hold {self.r2:.0%} of the variance{kept}"


@dataclass(frozen=True)
class DictionaryReport:
    """Use and fidelity of the words of each layer over some images; as text, one line a layer."""

    layers: Mapping[str, LayerWorth]
    n_images: int

    def __str__(self) -> str:
        return "\n".join(
            [f"Over {self.n_images} images:", *(f"- {layer}: {worth}" for layer, worth in self.layers.items())]
        )


def worth(maps: FeatureMaps, labeller: Labeller, mixtures: Mapping[str, Mixture]) -> DictionaryReport:
    """Return what words are worth over the images of `maps`; warn of layers on whose words few decisions stand."""
    network = maps.of_network()
    found: list[dict[str, _Seen]] = []
    if network is None:
        found = [_seen(labeller, mixtures, batch.activations) for batch in maps.batches()]
    else:
        found = list(network.rerun(lambda part: _rerun(labeller, mixtures, part), "words"))
    layers = {layer: _together([part[layer] for part in found], len(mixtures[layer].weights)) for layer in maps.layers}
    poor = [layer for layer, of_layer in layers.items() if of_layer.kept < _FEW_KEPT]
    if poor:
        warnings.warn(
            f"Fewer than half of the decisions stand when the layers {', '.join(map(repr, poor))} are replaced by the "
            "means of their words: these miss much of what the network uses. More words (n_components), more images, "
            "or a layer further up hold more.",
            stacklevel=3,
        )
    return DictionaryReport(layers, len(maps))


@dataclass(frozen=True)
class _Seen:
    """Words shown by the images of a batch, squared errors and deviations, and whether decisions stand."""

    words: np.ndarray
    residual: float
    spread: float
    stand: np.ndarray


def _rerun(labeller: Labeller, mixtures: Mapping[str, Mixture], part: Rerun) -> dict[str, _Seen]:
    original = part.original

    def stand(layer: str, made: Tensor) -> np.ndarray:
        return part.run({layer: put(made)}).decisions == original.decisions

    return _seen(labeller, mixtures, original.activations, stand)


def _seen(
    labeller: Labeller, mixtures: Mapping[str, Mixture], activations: Mapping[str, Tensor], stand: Any = None
) -> dict[str, _Seen]:
    found = {}
    with exact_float32(), torch.no_grad():
        for layer, words in labeller.predict(activations):
            values = activations[layer]
            made = means_of(mixtures[layer], words, values)
            found[layer] = _Seen(
                np.unique(words.numpy(force=True)),
                (values - made).double().square().sum().item(),
                (values - layer_mean(mixtures[layer], values)).double().square().sum().item(),
                np.empty(0) if stand is None else stand(layer, made),
            )
    return found


def means_of(mixture: Mixture, words: Tensor, like: Tensor) -> Tensor:
    """Return the map (n, C, H, W), of the shape of `like`, of the means of the `words` (n H W,)."""
    means = torch.from_numpy(mixture.emitted_means_).to(like)
    rows = like.permute(0, 2, 3, 1)
    return means[words.long()].view(rows.shape).permute(0, 3, 1, 2)


def _together(parts: list[_Seen], n_words: int) -> LayerWorth:
    residual, spread = sum(part.residual for part in parts), sum(part.spread for part in parts)
    stand = np.concatenate([part.stand for part in parts])
    return LayerWorth(
        n_words,
        len(np.unique(np.concatenate([part.words for part in parts]))),
        1 - residual / spread if spread else np.nan,
        float(stand.mean()) if len(stand) else np.nan,
    )
