"""Which word of one dictionary is which of another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ._similarity import mean_cosine, mean_distance
from ._words import WordMaps

_IMAGES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Alignment:
    """Pairs of words of two dictionaries that stand for the same.

    Parameters
    ----------
    pairs : dict of str to int array of shape (n_pairs, 2)
        By layer, numbers of a word of the first dictionary and of its partner in the second.  Some words may have none.
    similarity : dict of str to float array of shape (n_pairs,)
        How alike the two are; 1 for equal ones.
    """

    pairs: Mapping[str, np.ndarray]
    similarity: Mapping[str, np.ndarray]

    def partner(self, layer: str, word: int) -> int | None:
        """Return the first dictionary's word for a word of the second.

        Parameters
        ----------
        layer : str
            Name of the layer.
        word : int
            Number of the word in the second dictionary.

        Returns
        -------
        word : int or None
            Number of its partner; None where it has none.
        """
        pairs = self.pairs.get(layer, np.empty((0, 2), int)).tolist()
        return next((mine for mine, its in pairs if its == word), None)


def align_words(first: Any, second: Any, *, by: str | None = None) -> Alignment:
    """Pair the words of two dictionaries, so that they are as alike as can be in sum (the Hungarian method).

    Word maps of the same images are compared by where their words are: two words are as alike as the locations that
    show both, as a share of those that show either (the Jaccard index); what is never seen together is no pair.  This
    also compares dictionaries of different networks, as long as layers are called alike and their maps have one size.

    Dictionaries are compared by the words' means: by their distance, similarity being 1 less the distance in units of
    the average one, or by their cosine.  This needs no images, but one network: channels of another network have other
    meanings.

    Parameters
    ----------
    first, second : WordMaps or LayerDictionary
        Words of the same images, in the same order; or fitted dictionaries.
    by : {"overlap", "distance", "cosine"}, default=None
        What makes words alike.  None is "overlap" for word maps, which know nothing else, and "distance" for
        dictionaries.

    Returns
    -------
    alignment : Alignment
        Pairs by layer, for the layers that both have.

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
    """Return by layer how alike the words of two dictionaries are, (K_first, K_second), for the layers of both."""
    compare, layers = _BY_MEANS[by], _shared(first.layers_, second.layers_)
    return {layer: compare(first.mixtures_[layer], second.mixtures_[layer]) for layer in layers}


def nearness(distance: np.ndarray) -> np.ndarray:
    """Return 1 - distance / average distance: 1 for equal words, 0 for average ones."""
    average = distance.mean()
    return 1 - distance / average if average > 0 else np.ones_like(distance)


_BY_MEANS = {"distance": lambda first, second: nearness(mean_distance(first, second)), "cosine": mean_cosine}


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
    cells = np.zeros(n_first * n_second, dtype=np.int64)
    for start in range(0, len(first), _IMAGES_AT_ONCE):
        mine, its = (words.words[layer][start : start + _IMAGES_AT_ONCE] for words in (first, second))
        cells += np.bincount((mine.astype(np.int64) * n_second + its).ravel(), minlength=len(cells))
    both = cells.reshape(n_first, n_second)
    either = both.sum(1, keepdims=True) + both.sum(0) - both
    return both / np.maximum(1, either)
