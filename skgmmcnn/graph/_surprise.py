"""Surprise of the words of images, given the words above them, and typicality of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ._count_evidence import sum_over_fields
from ._count_tables import pair_chunks
from ._hierarchy import maps_of

if TYPE_CHECKING:
    from ._inference_graph import InferenceGraph

_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class Surprise:
    """The result of :func:`surprise`."""

    maps: Mapping[str, np.ndarray]
    layers: Mapping[str, np.ndarray]
    images: np.ndarray


@dataclass(frozen=True, eq=False)
class Typicality:
    """The result of :func:`typicality`."""

    p_values: np.ndarray
    layer_p_values: Mapping[str, np.ndarray]
    departs: list[str | None]


def surprise(estimator: InferenceGraph, X: WordMaps) -> Surprise:
    """Return the surprise of each word, given the words above it, in bits.

    Parameters
    ----------
    estimator : InferenceGraph
        Fitted.
    X : WordMaps
        Words of n images.  Those of the uppermost layers are compared with the network's decision.

    Returns
    -------
    surprise : Surprise
        `maps` : dict of str to float32 array of shape (n, H, W), at each location the mean of -log2 P(word | word
        above) over the locations above that see it; NaN where none does.  A word that was never counted is taken as
        seen at one window position.  `layers` : dict of str to float array of shape (n,), the means over the locations
        of a layer, without NaN.  `images` : float array of shape (n,), the sums over the layers, without NaN.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.graph import surprise
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> words = make_pipeline(extractor, LayerDictionary(20, random_state=0)).fit_transform(digits.images[:300])
    >>> surprise(InferenceGraph().fit(words), words).maps["conv2"].shape
    (300, 8, 8)
    """
    estimator._check_words(X)
    hierarchy = estimator._hierarchy(X)
    maps, layers = {}, {}
    for layer, lower in X.words.items():
        total, covers = np.zeros(lower.shape), np.zeros(lower.shape[1:])
        for upper in hierarchy.above[layer]:
            pair, above = (upper, layer), maps_of(X, upper)
            counts = np.maximum(estimator.transition_counts_[pair].sum(0), 1)
            costs = -np.log2(counts / counts.sum()) - estimator.log_ratios_[pair]  # -log2 P(t | s)
            total += _sum_costs(above, lower, hierarchy.fields[pair], costs)
            covers += sum_over_fields(np.ones(above.shape[1:]), hierarchy.fields[pair])
        maps[layer] = _ratio(total, covers).astype(np.float32)
        values = maps[layer].reshape(len(lower), -1)
        layers[layer] = _ratio(np.nansum(values, axis=1, dtype=float), np.isfinite(values).sum(1))
    return Surprise(maps, layers, np.nansum(list(layers.values()), axis=0))


def typicality(estimator: InferenceGraph, X: WordMaps, reference: WordMaps, *, level: float = 0.05) -> Typicality:
    """Compare images with others that the network gives the same class, and name the layer at which they depart.

    Parameters
    ----------
    estimator : InferenceGraph
        Fitted.
    X : WordMaps
        Words of n images.
    reference : WordMaps
        Words of usual images, preferably not fitted ones, which are less surprising.
    level : float, default=0.05
        Share of usual images that may depart.  With m layers this needs at least m / `level` - 1 reference images of a
        class.

    Returns
    -------
    typicality : Typicality
        `p_values` : float array of shape (n,), (1 + number of reference images of the class that are at least as
        surprising (:func:`surprise`)) / (1 + number of reference images of the class): for an image like these, at most
        a with probability a (conformal p-values).  NaN without reference images of the class.  `layer_p_values` : the
        same for each layer, a dict.  `departs` : list of str or None, for images with some layer's p-value at most
        `level` divided by the number of layers, the layer whose surprise lies the most standard deviations above the
        mean of the class; None for typical images.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability above 0 and below 1; got {level!r}.")
    values, references = (_table(surprise(estimator, words)) for words in (X, reference))
    p_values, excess = np.full(values.shape, np.nan), np.full(values.shape, -np.inf)
    for output in np.unique(X.decisions):
        images = X.decisions == output
        for row, sample in enumerate(references[:, reference.decisions == output]):
            p_values[row, images], excess[row, images] = _compare(values[row, images], sample[np.isfinite(sample)])
    outliers = p_values[1:] <= level / len(X.layers)
    most_unusual = np.argmax(np.where(outliers, excess[1:], -np.inf), axis=0)
    departs = [X.layers[layer] if outliers[layer, i] else None for i, layer in enumerate(most_unusual)]
    return Typicality(p_values[0], dict(zip(X.layers, p_values[1:], strict=True)), departs)


def _table(surprise: Surprise) -> np.ndarray:
    """Return the surprise of the images and, below it, of each layer, shape (1 + L, n)."""
    return np.stack([surprise.images, *surprise.layers.values()])


def _compare(values: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the p-values of values in a sample, and their distance above its mean in standard deviations."""
    if not len(sample):
        return np.full_like(values, np.nan), np.full_like(values, -np.inf)
    n_above = len(sample) - np.searchsorted(np.sort(sample), values)
    p_values = np.where(np.isnan(values), np.nan, (1 + n_above) / (1 + len(sample)))
    return p_values, (values - sample.mean()) / max(sample.std(), 1e-9)


def _sum_costs(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, costs: np.ndarray) -> np.ndarray:
    """Return the sum of costs[h_p, h_q] over the locations p that see q, (n, h, w)."""
    total, size = np.zeros(lower.size), lower[0].size
    for first, places, cells in pair_chunks(upper, lower, field, costs.shape[1], _CHUNK):
        where = places + size * np.arange(len(cells))[:, None, None]
        part = slice(first * size, (first + len(cells)) * size)
        total[part] += np.bincount(where.ravel(), costs.ravel()[cells.ravel()], minlength=len(cells) * size)
    return total.reshape(lower.shape)


def _ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return total / number, NaN for 0 / 0."""
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
