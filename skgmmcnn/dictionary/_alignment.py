"""Alignment of the words of two dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ._statistics import count_pairs
from ._words import WordMaps

_TINY = np.finfo(float).tiny


@dataclass(frozen=True, eq=False)
class Alignment:
    """Pairs of words of two dictionaries, by layer, (n_pairs, 2), and the similarity of each pair, (n_pairs,)."""

    pairs: Mapping[str, np.ndarray]
    similarity: Mapping[str, np.ndarray]

    def partner(self, layer: str, word: int) -> int | None:
        """Return the first dictionary's word for a word of the second, None where it has none."""
        pairs = self.pairs.get(layer, np.empty((0, 2), int)).tolist()
        return next((partner for partner, other in pairs if other == word), None)


def align_words(first: Any, second: Any, *, by: str | None = None) -> Alignment:
    """Pair the words of two dictionaries such that the sum of their similarities is largest (the Hungarian method).

    Word maps of the same images are compared by the locations of words: the similarity of two words is the number of
    locations that show both, divided by the number of those that show either (the Jaccard index); words that are never
    seen together are no pair.  This also compares dictionaries of different networks, if layers have the same names and
    sizes of maps.

    Dictionaries are compared by the words' means: by their distance, where similarity is 1 less the distance in units
    of the average one, or by their cosine.  This needs no images, but one network: channels of another network have
    other meanings.

    Parameters
    ----------
    first, second : WordMaps or LayerDictionary
        Words of the same images, in the same order; or fitted dictionaries.
    by : {"overlap", "distance", "cosine"}, default=None
        The similarity.  None is "overlap" for word maps, which have no other, and "distance" for dictionaries.

    Returns
    -------
    alignment : Alignment
        For the layers that both have: `pairs`, by layer an int array (n_pairs, 2) of a word of the first and its
        partner in the second; `similarity`, by layer (n_pairs,), 1 for equal words; ``partner(layer, word)``, the
        first's word for a word of the second, or None.

    References
    ----------
    .. [1] Kuhn, "The Hungarian method for the assignment problem", Naval Research Logistics Quarterly 2, 1955.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn import LayerDictionary
    >>> from skgmmcnn.dictionary import align_words
    >>> rows = np.random.default_rng(0).random((200, 2))
    >>> first, second = (LayerDictionary(n, random_state=0).fit(rows) for n in (5, 3))
    >>> align_words(first, second).pairs["dense"].shape
    (3, 2)
    """
    if isinstance(first, WordMaps) and isinstance(second, WordMaps):
        _check_by(by, ("overlap",), "WordMaps")
        _check_same_images(first, second)
        found = {layer: _jaccard(first, second, layer) for layer in _shared(first.layers, second.layers)}
        return assign(found, least=np.finfo(float).tiny)
    if all(hasattr(dictionary, "mixtures_") for dictionary in (first, second)):
        _check_by(by, tuple(_BY_MEANS), "dictionaries")
        return assign(similarity_of_means(first, second, by or "distance"))
    raise TypeError(
        "align_words takes two WordMaps of the same images, or two fitted LayerDictionaries; got a "
        f"{type(first).__name__} and a {type(second).__name__}."
    )


def _check_by(by: str | None, known: tuple[str, ...], what: str) -> None:
    if by is not None and by not in known:
        raise ValueError(f"{what} are aligned by {' or '.join(map(repr, known))}; got by={by!r}.")


def similarity_of_means(first: Any, second: Any, by: str) -> dict[str, np.ndarray]:
    """Return by layer the similarity of the words of two dictionaries, (K_first, K_second), for the layers of both."""
    found = {}
    for layer in _shared(first.layers_, second.layers_):
        means = [dictionary.mixtures_[layer].emitted_means_ for dictionary in (first, second)]
        if means[0].shape[1] != means[1].shape[1]:
            raise ValueError(
                f"Layer {layer!r} has {means[0].shape[1]} and {means[1].shape[1]} channels in the two dictionaries, so "
                "means of their words cannot be compared; align word maps of the same images."
            )
        found[layer] = _BY_MEANS[by](*means)
    return found


def _nearness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1 - distance / average distance of rows: 1 for equal ones, 0 for average ones."""
    distance = cdist(first, second)
    average = distance.mean()
    return 1 - distance / average if average > 0 else np.ones_like(distance)


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosines of the angles between rows; rows of length zero are alike, and unlike all others."""
    lengths = [np.linalg.norm(rows, axis=1) for rows in (first, second)]
    units = [rows / np.maximum(n, _TINY)[:, None] for rows, n in zip((first, second), lengths, strict=True)]
    return np.clip(units[0] @ units[1].T, -1, 1) + np.logical_and.outer(*(length < _TINY for length in lengths))


_BY_MEANS = {"distance": _nearness, "cosine": _cosine}


def assign(similarity: Mapping[str, np.ndarray], least: float = -np.inf) -> Alignment:
    """Return the pairs that have the greatest sum of similarities, without those that have less than `least`."""
    pairs, values = {}, {}
    for layer, table in similarity.items():
        rows = np.stack(linear_sum_assignment(table, maximize=True), axis=1)
        found = table[rows[:, 0], rows[:, 1]]
        pairs[layer], values[layer] = rows[found >= least], found[found >= least]
    return Alignment(pairs, values)


def _shared(first: tuple[str, ...], second: tuple[str, ...]) -> list[str]:
    layers = [layer for layer in first if layer in second]
    if not layers:
        raise ValueError(f"No layer has the same name in both: {list(first)} and {list(second)}.")
    return layers


def _check_same_images(first: WordMaps, second: WordMaps) -> None:
    if len(first) != len(second):
        raise ValueError(f"Words are aligned over the same images; here are words of {len(first)} and {len(second)}.")
    for layer in _shared(first.layers, second.layers):
        sizes = [words.words[layer].shape[1:] for words in (first, second)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"The maps of layer {layer!r} have sizes {sizes[0]} and {sizes[1]}; they must be equal.")


def _jaccard(first: WordMaps, second: WordMaps, layer: str) -> np.ndarray:
    """Return |both| / |either| of the locations that show each pair of words, shape (K_first, K_second)."""
    n_first, n_second = (words.vocabulary.n_words[layer] for words in (first, second))
    both = count_pairs(first.words[layer], second.words[layer], (n_first, n_second))
    either = both.sum(1, keepdims=True) + both.sum(0) - both
    return both / np.maximum(1, either)
