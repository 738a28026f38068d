"""How alike words are, within a layer and across layers, by the classes that they occur in and by their means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist, squareform
from sklearn.utils import check_random_state

from ..mixture import Mixture
from ._statistics import WordStatistics, count_classes
from ._words import WordMaps, check_words

_TINY = np.finfo(float).tiny


def class_similarity(words: WordMaps, first: str, second: str | None = None) -> np.ndarray:
    """Compare words by the classes of the images that they occur in: the cosine of their class histograms.

    Classes are the network's decisions, and each counts alike, however many images have it.  The classes are the same
    for all layers, so that words of different layers can be compared.

    Parameters
    ----------
    words : WordMaps
        Words of the images to count in.
    first, second : str
        Layers; without a second one, words of the first are compared with each other.

    Returns
    -------
    similarity : float array of shape (K_first, K_second)
        Between 0 and 1; NaN for words that these images do not show.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from torch import nn
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.dictionary import class_similarity
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    >>> images = np.random.default_rng(0).random((40, 8, 8)).astype("float32")
    >>> words = make_pipeline(FeatureExtractor(network, ["1", "2"]), LayerDictionary(5)).fit_transform(images)
    >>> class_similarity(words, "2", "1").shape
    (5, 5)
    """
    check_words(words)
    profiles = [_profiles(_count(words, layer)) for layer in (first, second or first)]
    return np.clip(profiles[0] @ profiles[1].T, 0, 1)


def mean_distance(first: Mixture, second: Mixture | None = None) -> np.ndarray:
    """Compare words by what the layer does where they are: the Euclidean distance of their mean activities.

    Parameters
    ----------
    first, second : Mixture
        Words of a layer, ``LayerDictionary.mixtures_[layer]``; without a second one, words of the first are compared
        with each other.  The channels of both must be the same ones, as in two dictionaries of one layer, or in
        blocks of a residual stage.

    Returns
    -------
    distance : float array of shape (K_first, K_second)
        In units of the activity; means are those behind the ReLU where that is modelled.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn import LayerDictionary
    >>> from skgmmcnn.dictionary import mean_distance
    >>> rows = np.random.default_rng(0).normal([[[0, 0]], [[3, 4]]], 0.1, (2, 50, 2)).reshape(100, 2)
    >>> mean_distance(LayerDictionary(2, random_state=0).fit(rows).mixtures_["dense"]).round(1)
    array([[0., 5.],
           [5., 0.]])
    """
    return cdist(*_means(first, second))


def mean_cosine(first: Mixture, second: Mixture | None = None) -> np.ndarray:
    """Compare words by the direction of their mean activities: the cosine of the angle between them.

    Behind a ReLU all means point into one quadrant, so that also words of no relation have cosines well above 0.

    Parameters
    ----------
    first, second : Mixture
        As in :func:`mean_distance`.

    Returns
    -------
    cosine : float array of shape (K_first, K_second)
        At most 1, for means of the same direction.  Means of zero length are alike, and unlike all others: 1 and 0.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn import LayerDictionary
    >>> from skgmmcnn.dictionary import mean_cosine
    >>> rows = np.random.default_rng(0).normal([[[0, 5]], [[3, 3]]], 0.1, (2, 50, 2)).reshape(100, 2)
    >>> mean_cosine(LayerDictionary(2, random_state=0).fit(rows).mixtures_["dense"]).round(1)
    array([[1. , 0.7],
           [0.7, 1. ]])
    """
    mine, its = _means(first, second)
    lengths = [np.linalg.norm(means, axis=1) for means in (mine, its)]
    units = [means / np.maximum(length, _TINY)[:, None] for means, length in zip((mine, its), lengths, strict=True)]
    return np.clip(units[0] @ units[1].T, -1, 1) + np.logical_and.outer(*(length < _TINY for length in lengths))


def _means(first: Mixture, second: Mixture | None) -> list[np.ndarray]:
    for mixture in (first, second or first):
        if not hasattr(mixture, "emitted_means_"):
            raise TypeError(f"Mixtures are needed, as in LayerDictionary.mixtures_; got {type(mixture).__name__}.")
    means = [mixture.emitted_means_ for mixture in (first, second or first)]
    if means[0].shape[1] != means[1].shape[1]:
        raise ValueError(
            f"Words of {means[0].shape[1]} and of {means[1].shape[1]} channels cannot be compared by their means; "
            "compare them by class_similarity."
        )
    return means


def word_classes(statistics: WordStatistics) -> np.ndarray:
    """Return the class that each word represents: the one whose locations show it most often.

    Parameters
    ----------
    statistics : WordStatistics
        Of the words of a layer, ``vocabulary.statistics[layer]``.

    Returns
    -------
    classes : int array of shape (K,)
        Output numbers; -1 for words that occur nowhere.
    """
    shares = _class_shares(statistics)
    return np.where(shares.any(1), shares.argmax(1), -1)


@dataclass(frozen=True, eq=False)
class Cohesion:
    """Whether words of one class are more alike than words of different classes.

    Parameters
    ----------
    within, between : float
        Mean similarity over the pairs of words of the same class, and of different classes.
    null : float array of shape (n_permutations,)
        What ``within`` is when the classes are dealt out to the words at random.
    """

    within: float
    between: float
    null: np.ndarray

    @property
    def p_value(self) -> float:
        """Share of the permutations, this one among them, in which words of one class are at least as alike."""
        return float((1 + (self.null >= self.within - 1e-12).sum()) / (1 + len(self.null)))


def class_cohesion(
    similarity: np.ndarray,
    classes: np.ndarray,
    *,
    n_permutations: int = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> Cohesion:
    """Compare the similarity of words that represent one class with that of words of different classes.

    Parameters
    ----------
    similarity : float array of shape (K, K)
        Of the words of a layer; more is more alike.  Symmetric.
    classes : int array of shape (K,)
        What each word represents; words of class -1, and those whose similarities are NaN, are left out.  Taken from
        other images than the similarity, chance does not make them agree.
    n_permutations : int, default=1000
        How often the classes are dealt out anew.
    random_state : int, RandomState instance or None, default=None
        Deals.

    Returns
    -------
    cohesion : Cohesion
        NaN where no two words share a class, or all do.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn.dictionary import class_cohesion
    >>> classes = np.repeat([0, 1], 4)
    >>> found = class_cohesion(classes[:, None] == classes, classes, random_state=0)
    >>> found.within, found.between, found.p_value < 0.1
    (1.0, 0.0, True)
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1; got {n_permutations}.")
    kept = (classes >= 0) & ~np.isnan(np.diag(similarity).astype(float))
    similarity, classes = similarity[np.ix_(kept, kept)].astype(float), classes[kept]
    first, second = np.nonzero(np.triu(classes[:, None] == classes, 1))
    pairs = squareform(similarity, checks=False)
    n_between = len(pairs) - len(first)
    if not len(first) or not n_between:
        return Cohesion(np.nan, np.nan, np.full(n_permutations, np.nan))
    random = check_random_state(random_state)

    def within(order: np.ndarray) -> float:
        return float(similarity[order[first], order[second]].mean())

    observed = within(np.arange(len(classes)))
    between = (pairs.sum() - observed * len(first)) / n_between
    null = np.array([within(random.permutation(len(classes))) for _ in range(n_permutations)])
    return Cohesion(observed, float(between), null)


def _count(words: WordMaps, layer: str) -> WordStatistics:
    if layer not in words.words:
        raise ValueError(f"There are no words of a layer {layer!r}; the layers are {list(words.layers)}.")
    n_words = words.vocabulary.n_words[layer]
    return count_classes(words.words[layer], words.decisions, n_words, max(1, words.spec.n_outputs))


def _class_shares(statistics: WordStatistics) -> np.ndarray:
    """Return for each word the share of every class's locations that show it, (K, n_outputs)."""
    return statistics.counts / np.maximum(1, statistics.counts.sum(0))


def _profiles(statistics: WordStatistics) -> np.ndarray:
    """Return the class histograms as vectors of length 1, NaN for words that occur nowhere."""
    shares = _class_shares(statistics)
    length = np.linalg.norm(shares, axis=1, keepdims=True)
    return shares / np.where(length > 0, length, np.nan)
