"""Similarity of words by class, and their spread over images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import squareform
from sklearn.utils import check_random_state, gen_batches

from ..dictionary import WordMaps, WordStatistics, count_classes, count_words

_BATCH_SIZE = 256


class Cohesion(NamedTuple):
    """Mean similarities of words of a layer, as `WordSimilarityDisplay` documents them."""

    within: float
    between: float
    null: np.ndarray

    @property
    def p_value(self) -> float:
        """Fraction of the permutations, the identity included, with at least the similarity within classes."""
        return float((1 + (self.null >= self.within - 1e-12).sum()) / (1 + len(self.null)))


class Locality(NamedTuple):
    """Spread of the words of a layer over images, as `WordSimilarityDisplay` documents it."""

    n_distinct: float
    expected_distinct: float
    largest_share: float
    autocorrelation: float
    n_locations: int


def class_profiles(words: WordMaps, layer: str) -> np.ndarray:
    """Return the class histograms of a layer's words, of length 1, (K, n_outputs).

    Classes are the network's decisions, and each has the same weight.  NaN for words absent from these images.
    """
    n_words, n_outputs = words.vocabulary.n_words[layer], max(1, words.spec.n_outputs)
    fractions = _by_class(count_classes(words.words[layer], words.decisions, n_words, n_outputs))
    length = np.linalg.norm(fractions, axis=1, keepdims=True)
    return fractions / np.where(length > 0, length, np.nan)


def class_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosines of profiles (K_first, n_outputs) and (K_second, n_outputs), (K_first, K_second)."""
    return np.clip(first @ second.T, 0, 1)


def word_classes(statistics: WordStatistics) -> np.ndarray:
    """Return the class with the largest fraction of locations that show each word, (K,); -1 for absent words."""
    fractions = _by_class(statistics)
    return np.where(fractions.any(1), fractions.argmax(1), -1)


def _by_class(statistics: WordStatistics) -> np.ndarray:
    """Return the fraction of each class's locations that show each word, (K, n_outputs)."""
    return statistics.counts / np.maximum(1, statistics.counts.sum(0))


def class_cohesion(
    similarity: np.ndarray,
    classes: np.ndarray,
    n_permutations: int = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> Cohesion:
    """Compare the similarities (K, K) of words of the same of the `classes` (K,) with those of different ones.

    Words of class -1, and those whose similarities are NaN, are omitted.  NaN unless there are pairs of both kinds.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1; got {n_permutations}.")
    valid = (classes >= 0) & ~np.isnan(np.diag(similarity).astype(float))
    similarity = similarity[np.ix_(valid, valid)].astype(float)
    classes = classes[valid]
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


def locality(words: np.ndarray, n_words: int) -> Locality:
    """Return the spread of the words (n, H, W) of a layer.

    With J the fraction of the joins between horizontal and vertical neighbours that link equal words (the join count of
    Moran, "The interpretation of statistical maps", JRSS B 10(2), 1948), and E = sum_k n_k (n_k - 1) / (N (N - 1)) its
    expectation when the N words of the image are shuffled (Cliff and Ord, "Spatial Processes", Pion, 1981, chapter 1,
    nonfree sampling), the autocorrelation is sum (J - E) / sum (1 - E) over the images: 1 where neighbours are always
    equal, 0 as if words were shuffled, NaN where a map has one location.
    """
    n_images = len(words)
    size = words[0].size
    distinct = largest = excess = most = 0.0
    total = np.zeros(n_words, dtype=np.int64)
    for part in gen_batches(n_images, _BATCH_SIZE):
        counts = count_words(words[part], n_words)
        total += counts.sum(0)
        distinct += (counts > 0).sum()
        largest += counts.max(1).sum() / size
        if size > 1:
            expected = (counts * (counts - 1)).sum(1) / (size * (size - 1))
            excess += (_equal_joins(words[part]) - expected).sum()
            most += (1 - expected).sum()
    return Locality(
        n_distinct=float(distinct / n_images),
        expected_distinct=float((1 - (1 - total / total.sum()) ** size).sum()),
        largest_share=float(largest / n_images),
        autocorrelation=float(excess / most) if most > 0 else np.nan,
        n_locations=size,
    )


def _equal_joins(words: np.ndarray) -> np.ndarray:
    """Return for each image the fraction of pairs of neighbours that show the same word, shape (n,)."""
    down = words[:, 1:] == words[:, :-1]
    right = words[:, :, 1:] == words[:, :, :-1]
    return (down.sum((1, 2)) + right.sum((1, 2))) / (down[0].size + right[0].size)
