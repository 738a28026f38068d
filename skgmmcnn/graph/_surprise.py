"""Surprise of the words of images, given the words above them, and typicality of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ._counting import pair_chunks
from ._counts import spread
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
    """Return how unexpected each word is, given the words above it, in bits.

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
        above) over the locations above that see it; NaN where none does.  `layers` : dict of str to float array of
        shape (n,), the means over the locations of a layer; NaN where all of them are.  `images` : float array of shape
        (n,), the sums over the layers, without those that are NaN.

    Notes
    -----
    A lower word that was never counted is taken as seen at one window position.

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
    structure, maps = estimator._structure(X), {}
    for layer, lower in X.words.items():
        total, covers = np.zeros(lower.shape), np.zeros(lower.shape[1:])
        for upper in structure.above[layer]:
            pair, above = (upper, layer), maps_of(X, upper)
            columns = np.maximum(estimator.transition_counts_[pair].sum(0), 1)
            costs = -np.log2(columns / columns.sum()) - estimator.log_ratios_[pair]  # -log2 P(t | s)
            total += _summed(above, lower, structure.fields[pair], costs)
            covers += spread(np.ones(above.shape[1:]), structure.fields[pair])
        maps[layer] = _ratio(total, covers).astype(np.float32)
    layers = {layer: _mean(values.reshape(len(values), -1)) for layer, values in maps.items()}
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
        Words of usual images.  Best are images that were not fitted: fitted ones are less surprising.
    level : float, default=0.05
        Share of usual images that may be called departing.  With m layers this needs at least m / `level` - 1
        reference images of a class.

    Returns
    -------
    typicality : Typicality
        `p_values` : float array of shape (n,), the share of the reference images of the class that are at least as
        surprising (:func:`surprise`), the image itself counted among them: (1 + how many are) / (1 + their number).
        For an image that is like the reference images it is as likely to lie below any a as a says (conformal
        p-values).  NaN without reference images of the class.  `layer_p_values` : the same for each layer, a dict.
        `departs` : list of str or None, for images with some layer's p-value at most `level` divided by the number of
        layers, the layer whose surprise lies the most standard deviations above the mean of the class; None for typical
        images.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.graph import typicality
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> words = make_pipeline(extractor, LayerDictionary(20, random_state=0)).fit_transform(digits.images[:300])
    >>> found = typicality(InferenceGraph().fit(words), words[:100], words[100:])
    >>> float(found.p_values.min()) > 0
    True
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a probability above 0 and below 1; got {level!r}.")
    measured, usual = surprise(estimator, X), surprise(estimator, reference)
    p_values = _p_values(measured.images, X.decisions, usual.images, reference.decisions)
    layers = [
        (values, X.decisions, usual.layers[layer], reference.decisions) for layer, values in measured.layers.items()
    ]
    by_layer = np.array([_p_values(*layer) for layer in layers])
    excess = [_excess(*layer) for layer in layers]
    outlying = np.asarray(by_layer <= level / len(by_layer))
    worst = np.argmax(np.where(outlying, excess, -np.inf), axis=0)
    names = list(measured.layers)
    departs = [names[layer] if some else None for layer, some in zip(worst, np.any(outlying, axis=0), strict=True)]
    return Typicality(p_values, dict(zip(names, by_layer, strict=True)), departs)


def _summed(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, costs: np.ndarray) -> np.ndarray:
    """Return the sum of costs[h_p, h_q] over the locations p that see q, (n, h, w)."""
    total, size = np.zeros(lower.size), lower[0].size
    for first, places, cells in pair_chunks(upper, lower, field, costs.shape[1], _CHUNK):
        where = places + size * np.arange(len(cells))[:, None, None]
        part = slice(first * size, (first + len(cells)) * size)
        total[part] += np.bincount(where.ravel(), costs.ravel()[cells.ravel()], minlength=len(cells) * size)
    return total.reshape(lower.shape)


def _ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return total / number, NaN where there is none."""
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the means of rows without NaN, NaN for rows that are nothing else."""
    return _ratio(np.nansum(values, axis=1, dtype=float), np.isfinite(values).sum(1))


def _p_values(values: np.ndarray, decisions: np.ndarray, usual: np.ndarray, classes: np.ndarray) -> np.ndarray:
    p_values = np.full(len(values), np.nan)
    for output in np.unique(decisions):
        rows, of_class = decisions == output, np.sort(usual[classes == output])
        of_class = of_class[np.isfinite(of_class)]
        if len(of_class):
            above = len(of_class) - np.searchsorted(of_class, values[rows])
            p_values[rows] = np.where(np.isnan(values[rows]), np.nan, (1 + above) / (1 + len(of_class)))
    return p_values


def _excess(values: np.ndarray, decisions: np.ndarray, usual: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the distance of values above the mean of their class, in standard deviations."""
    excess = np.full(len(values), -np.inf)
    for output in np.unique(decisions):
        rows, of_class = decisions == output, usual[classes == output]
        if np.isfinite(of_class).any():
            excess[rows] = (values[rows] - np.nanmean(of_class)) / max(np.nanstd(of_class), 1e-9)
    return excess
