"""Decisions of the network on activations rebuilt from words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .._device import exact_float32
from ..dictionary import rebuild, share_explained
from ..features import Rerun, check_layers, put
from ._intervals import share_of
from ._parts import take_apart
from ._results import BASELINE, Measurement, Result, Thresholds, Verdict, axes_for

_COMPLETE = Thresholds(0.8, 0.5)


@dataclass(frozen=True, eq=False)
class Completeness(Result):
    """The result of :func:`completeness`."""

    layers: tuple[str, ...]
    right: np.ndarray
    right_null: np.ndarray
    right_full: np.ndarray
    r2: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right decisions with each layer rebuilt from words, shape (L,)."""
        return self.right.mean(1)

    @property
    def accuracy_null(self) -> np.ndarray:
        """Share of right decisions with the mean of each layer at all locations, shape (L,)."""
        return self.right_null.mean(1)

    @property
    def completeness(self) -> np.ndarray:
        """Completeness of each layer, shape (L,); NaN if decisions do not depend on the layer."""
        gain = self.right_full.mean() - self.accuracy_null
        return np.where(gain > 0, (self.accuracy - self.accuracy_null) / np.where(gain > 0, gain, 1), np.nan)

    def measurements(self) -> list[Measurement]:
        measurements = []
        for i, layer in enumerate(self.layers):
            measurements += [
                Measurement("right with words' means", layer, *share_of(self.right[i]), "near 1"),
                Measurement("right with the layer's mean", layer, *share_of(self.right_null[i]), BASELINE),
                Measurement("completeness", layer, float(self.completeness[i]), good="near 1"),
                Measurement("R2", layer, float(self.r2[i])),
            ]
        return measurements

    def verdicts(self) -> list[Verdict]:
        verdicts = []
        for layer, value in zip(self.layers, self.completeness.tolist(), strict=True):
            question = f"Do words contain what the network needs of {layer}?"
            why = f"they preserve {value:.0%} of the decisions that depend on this layer"
            coarse = "; they describe it only roughly"
            verdicts.append(_COMPLETE.verdict(question, value, why, no=coarse))
        return verdicts

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the accuracies of the layers."""
        ax = axes_for(ax)
        places = np.arange(len(self.layers))
        low, high = np.transpose([share_of(right)[1:] for right in self.right])
        errors = np.maximum(0, [self.accuracy - low, high - self.accuracy])
        ax.bar(places, self.accuracy, 0.6, yerr=errors, color="#4477aa", label="words' means", capsize=3)
        ax.plot(places, self.accuracy_null, "_", color="#bb5566", ms=22, mew=2, label="layer's mean everywhere")
        ax.axhline(self.right_full.mean(), color="0.4", ls=":", label="the network itself")
        ax.set_xticks(
            places, self.layers, fontsize="small", rotation=15 if len(self.layers) > 3 else 0, parse_math=False
        )
        ax.set(ylim=(0, 1.05), ylabel="share of images right", title="Layers rebuilt from words")
        ax.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.25 if len(self.layers) > 3 else -0.1))
        return ax


def completeness(estimator: Any, X: Any, y: Any = None, *, layers: Sequence[str] | None = None) -> Completeness:
    """Rebuild the activations of one layer at a time from words, and run the rest of the network.

    The column at each location is replaced by the mean of its word (after the ReLU, for rectified Gaussians).
    Completeness is (acc_words - acc_null) / (acc_full - acc_null), where acc_null is the accuracy with the layer's mean
    at all locations [1]_: 1 if words contain all that the network needs of a layer, 0 if they contain nothing.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, with words, as in the example of :func:`trust_report`; a graph is not needed.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    y : array-like of shape (n,), default=None
        True classes, as output numbers or class names; the decisions of the network if None.
    layers : sequence of str, default=None
        The layers to rebuild, all if None.

    Returns
    -------
    completeness : Completeness
        Of the L `layers`: `completeness` : array of shape (L,), NaN if decisions do not depend on the layer; `right`,
        `right_null` : bool arrays of shape (L, n), whether the network decides right with the layer rebuilt, and with
        its mean at all locations; `accuracy`, `accuracy_null` : their means; `r2` : array of shape (L,), share of the
        variance of the columns that words explain.  `right_full` : bool array of shape (n,), for the unchanged network.
        ``plot(ax=None)`` draws the accuracies, with 95 % intervals by Wilson's method.

    References
    ----------
    .. [1] Yeh, Kim, Arik, Li, Pfister and Ravikumar, "On completeness-aware concept-based explanations in deep neural
       networks", NeurIPS 2020.
    """
    parts = take_apart(estimator, X, with_graph=False)
    layers = check_layers(layers, parts.maps.layers)
    parts.check_scores()
    labels = None if y is None else parts.maps.spec.encode(y, len(parts.maps))
    dictionary, assign = parts.dictionary, parts.dictionary._assigner()

    def work(part: Rerun) -> list[np.ndarray]:
        original = part.original
        targets = original.decisions if labels is None else labels[part.rows]
        with exact_float32(), torch.no_grad():
            words = dict(assign(original.activations, False))
        right, right_null, residual, total = [], [], [], []
        for layer in layers:
            rebuilt = rebuild(dictionary.mixtures_[layer], words[layer].component, original.activations[layer])
            right.append(part.run({layer: put(rebuilt.maps)}).decisions == targets)
            right_null.append(part.run({layer: put(rebuilt.mean)}).decisions == targets)
            residual.append(rebuilt.residual)
            total.append(rebuilt.total)
        return [np.stack(rows) for rows in (right, right_null, residual, total, [original.decisions == targets])]

    batches = zip(*parts.maps.rerun(work), strict=True)
    right, right_null, residual, total, right_full = (np.concatenate(rows, axis=1) for rows in batches)
    return Completeness(
        layers=layers,
        right=right,
        right_null=right_null,
        right_full=right_full[0],
        r2=np.array(list(map(share_explained, residual.sum(1), total.sum(1)))),
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
        1 if words contain all that the network needs; layers without effect are left out.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import completeness_score
    >>> digits = load_digits_network()
    >>> maps = FeatureExtractor(digits.network, layers=["conv3"]).fit_transform(digits.images[:300])
    >>> pipe, grid = make_pipeline(LayerDictionary(random_state=0)), {"layerdictionary__n_components": [2, 20]}
    >>> GridSearchCV(pipe, grid, scoring=completeness_score, cv=2).fit(maps).best_params_
    {'layerdictionary__n_components': 20}
    """
    values = completeness(estimator, X, y).completeness
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan
