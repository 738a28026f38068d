"""Decisions of the network on activations that are rebuilt from words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._device import exact_float32
from ..dictionary import WordModel, layer_mean, means_of
from ..features import Rerun, put
from ._intervals import Interval, interval_of_share
from ._measured import Figure, Measured, axes_for
from ._parts import Parts, check_scores, take_apart

OWN = "the network's own decision"


@dataclass(frozen=True, eq=False)
class Completeness(Measured):
    """The result of :func:`completeness`."""

    layers: tuple[str, ...]
    right: np.ndarray
    right_null: np.ndarray
    right_full: np.ndarray
    intervals: tuple[Interval, ...]
    r2: np.ndarray
    against: str

    @property
    def accuracy(self) -> np.ndarray:
        """Share of images decided right with each layer rebuilt, shape (L,)."""
        return self.right.mean(1)

    @property
    def accuracy_null(self) -> np.ndarray:
        """The same with the layer's mean everywhere, shape (L,)."""
        return self.right_null.mean(1)

    @property
    def completeness(self) -> np.ndarray:
        """Share of the accuracy that the layer is worth which words keep, shape (L,); NaN where it is worth nothing."""
        gain = self.right_full.mean() - self.accuracy_null
        return np.where(gain > 0, (self.accuracy - self.accuracy_null) / np.where(gain > 0, gain, 1), np.nan)

    def figures(self) -> list[Figure]:
        figures = []
        for i, layer in enumerate(self.layers):
            figures += [
                Figure("right with words' means", layer, float(self.accuracy[i]), *self.intervals[i], "near 1"),
                Figure("completeness", layer, float(self.completeness[i]), good="near 1"),
                Figure("R2", layer, float(self.r2[i])),
            ]
        return figures

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the accuracies, layer by layer."""
        ax, places = axes_for(ax), np.arange(len(self.layers))
        low, high = np.transpose(self.intervals)
        reach = np.maximum(0, [self.accuracy - low, high - self.accuracy])
        ax.bar(places, self.accuracy, 0.6, yerr=reach, color="#4477aa", label="words' means", capsize=3)
        ax.plot(places, self.accuracy_null, "_", color="#bb5566", ms=22, mew=2, label="layer's mean everywhere")
        ax.axhline(self.right_full.mean(), color="0.4", ls=":", label="the network itself")
        ax.set_xticks(
            places, self.layers, fontsize="small", rotation=15 if len(self.layers) > 3 else 0, parse_math=False
        )
        ax.set(ylim=(0, 1.05), ylabel="share of images right", title="Layers rebuilt from words")
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.25 if len(self.layers) > 3 else -0.1))
        return ax

    def __str__(self) -> str:
        same = "decides the same" if self.against == OWN else f"agrees with {self.against}"
        lines = [
            f"With {layer} replaced by its words the network {same} for {self.accuracy[i]:.1%} of "
            f"{self.right.shape[1]} images ({low:.1%} to {high:.1%}), by its mean for {self.accuracy_null[i]:.1%}: "
            f"completeness {self.completeness[i]:.2f}; 1 is best.  Words explain {self.r2[i]:.0%} of its variance."
            for i, (layer, (low, high)) in enumerate(zip(self.layers, self.intervals, strict=True))
        ]
        return "\n".join(lines)


def completeness(estimator: Any, X: Any, y: Any = None, *, layers: Sequence[str] | None = None) -> Completeness:
    """Run the rest of the network on activations that are rebuilt from words, one layer at a time.

    The column at each location is replaced by the mean of its word (behind the ReLU, where rectified Gaussians are
    modelled).  Completeness is (acc_words - acc_null) / (acc_full - acc_null), where acc_null has the layer's mean
    everywhere [1]_: 1 where words hold all that the network needs of a layer, 0 where they hold nothing.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, with words; a graph is not needed.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    y : array-like of shape (n,), default=None
        Right classes, as output numbers or class names.  The network's own decisions where None, so that accuracy is
        agreement.
    layers : sequence of str, default=None
        The layers to rebuild; all where None.

    Returns
    -------
    completeness : Completeness
        Arrays over the L `layers` and n images: `right`, `right_null`, `right_full` : bool arrays of shape (L, n), (L,
        n) and (n,), whether the network decides right with this layer rebuilt, with the layer's mean everywhere, and
        untouched.  `accuracy`, `accuracy_null`, `completeness` : arrays of shape (L,); completeness is NaN where a
        layer makes no difference.  `intervals` : 95 % intervals of the accuracy, by Wilson's method.  `r2` : array of
        shape (L,), the share of the variance of the activations around the layer's mean, over locations, that words
        explain. ``plot(ax=None)`` draws the accuracies.

    References
    ----------
    .. [1] Yeh, Kim, Arik, Li, Pfister and Ravikumar, "On completeness-aware concept-based explanations in deep neural
       networks", NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import completeness
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> pipe = make_pipeline(extractor, LayerDictionary(30, random_state=0)).fit(digits.images)
    >>> result = completeness(pipe, digits.test_images)
    >>> result.layers
    ('conv2', 'conv3')
    >>> bool(result.accuracy[1] > result.accuracy_null[1])
    True
    """
    parts = take_apart(estimator, X)
    chosen = check_layers(parts, layers)
    check_scores(parts)
    right = None if y is None else parts.maps.spec.encode(y, len(parts.maps))
    rows = zip(*(_rebuilt(parts, layer, right) for layer in chosen), strict=True)
    rebuilt, right_null, right_full, residual, spread = map(np.stack, rows)
    total = spread.sum(1)
    return Completeness(
        layers=chosen,
        right=rebuilt,
        right_null=right_null,
        right_full=right_full[0],
        intervals=tuple(map(interval_of_share, rebuilt)),
        r2=np.where(total > 0, 1 - residual.sum(1) / np.where(total > 0, total, 1), np.nan),
        against=OWN if y is None else "y",
    )


def completeness_score(estimator: Any, X: Any, y: Any = None) -> float:
    """Return the mean completeness of the layers, a scorer for grid searches.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, with words.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    y : array-like of shape (n,), default=None
        As in :func:`completeness`.

    Returns
    -------
    completeness : float
        1 where nothing is lost; layers that do not matter are left out.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import completeness_score
    >>> digits = load_digits_network()
    >>> maps = FeatureExtractor(digits.network, layers=["conv3"]).fit_transform(digits.images[:300])
    >>> pipe = make_pipeline(LayerDictionary(random_state=0))
    >>> grid = {"layerdictionary__n_components": [2, 20]}
    >>> GridSearchCV(pipe, grid, scoring=completeness_score, cv=2).fit(maps).best_params_
    {'layerdictionary__n_components': 20}
    """
    values = completeness(estimator, X, y).completeness
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan


def check_layers(parts: Parts, layers: Sequence[str] | None) -> tuple[str, ...]:
    """Return the layers that are meant, all of them where None."""
    if isinstance(layers, str):
        layers = [layers]
    for layer in layers or ():
        if layer not in parts.maps.layers:
            raise ValueError(f"There is no layer {layer!r}; there is {', '.join(map(repr, parts.maps.layers))}.")
    return parts.maps.layers if layers is None else tuple(layers)


def _rebuilt(parts: Parts, layer: str, labels: np.ndarray | None) -> list[np.ndarray]:
    """Return whether the network decides right with a layer rebuilt, with its mean everywhere, and by itself, (n,).

    Then the squared distances of each image's columns from those that were rebuilt, and from the mean, (n,).
    """

    def work(part: Rerun) -> tuple[np.ndarray, ...]:
        original, model = part.original, parts.dictionary
        values, right = original.activations[layer], original.decisions if labels is None else labels[part.rows]
        made, mean = from_words(model, layer, original.activations), layer_mean(model.mixtures_[layer], values)
        runs = [part.run({layer: put(to)}) for to in (made, mean)]
        distances = ((values - other).square().sum((1, 2, 3)).double().numpy(force=True) for other in (made, mean))
        return *(run.decisions == right for run in (*runs, original)), *distances

    return list(map(np.concatenate, zip(*parts.maps.rerun(work), strict=True)))


def from_words(model: WordModel, layer: str, activations: dict[str, Tensor]) -> Tensor:
    """Return a layer's map (n, C, H, W) with the mean of its word at each location."""
    with exact_float32(), torch.no_grad():
        words = dict(model._labeller()(activations, False))[layer].component
        return means_of(model.mixtures_[layer], words, activations[layer])
