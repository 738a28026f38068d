"""Alignment of the words of two dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from ._words import WordMaps, joint_histogram

_TINY = np.finfo(float).tiny


@dataclass(frozen=True, eq=False)
class Alignment:
    """Pairs of words of two dictionaries, by layer (n_pairs, 2), and their similarities, by layer (n_pairs,)."""

    pairs: Mapping[str, np.ndarray]
    similarity: Mapping[str, np.ndarray]

    def partner(self, layer: str, word: int) -> int | None:
        """Return the word of the first dictionary that is paired with a word of the second, or None."""
        pairs = self.pairs.get(layer, np.empty((0, 2), int)).tolist()
        return next((first for first, second in pairs if second == word), None)


def align_words(first: Any, second: Any, *, by: str | None = None) -> Alignment:
    """Pair the words of two dictionaries such that the sum of similarities is largest (Hungarian method [1]_).

    Word maps of the same images are compared by location.  The similarity of two words is the number of locations with
    both words divided by the number of locations with either (Jaccard index).  Words that never occur together are not
    paired.  The dictionaries may belong to different networks if the layers have equal names and map sizes.

    Dictionaries are compared by the means of their words.  The similarity is the cosine, or 1 minus the distance
    divided by the mean distance.  No images are needed, but both dictionaries must belong to one network.

    Parameters
    ----------
    first, second : WordMaps or LayerDictionary
        Words of the same images, in the same order; or fitted dictionaries.
    by : {"overlap", "distance", "cosine"}, default=None
        Similarity measure.  None means "overlap" for word maps and "distance" for dictionaries.

    Returns
    -------
    alignment : Alignment
        For the common layers: `pairs`, by layer an int array (n_pairs, 2) of words of the first and of the second;
        `similarity`, by layer (n_pairs,), 1 for equal words; ``partner(layer, word)``, the word of the first that is
        paired with a word of the second, or None.

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
        overlaps = {layer: _jaccard(first, second, layer) for layer in _common(first.layers, second.layers)}
        return assign(overlaps, least=_TINY)
    if all(hasattr(dictionary, "mixtures_") for dictionary in (first, second)):
        _check_by(by, tuple(_BY_MEANS), "dictionaries")
        return assign(similarity_of_means(first, second, by or "distance"))
    raise TypeError(
        "align_words takes two WordMaps of the same images, or two fitted LayerDictionaries; got a "
        f"{type(first).__name__} and a {type(second).__name__}."
    )


def _check_by(by: str | None, measures: tuple[str, ...], what: str) -> None:
    if by not in (None, *measures):
        raise ValueError(f"{what} are aligned by {' or '.join(map(repr, measures))}; got by={by!r}.")


def similarity_of_means(first: Any, second: Any, by: str) -> dict[str, np.ndarray]:
    """Return the similarities of the words of two dictionaries, by common layer (K_first, K_second)."""
    similarities = {}
    for layer in _common(first.layers_, second.layers_):
        means = [dictionary.mixtures_[layer].emitted_means_ for dictionary in (first, second)]
        if means[0].shape[1] != means[1].shape[1]:
            raise ValueError(
                f"Layer {layer!r} has {means[0].shape[1]} and {means[1].shape[1]} channels in the two dictionaries, so "
                "the means of the words cannot be compared; align word maps of the same images."
            )
        similarities[layer] = _BY_MEANS[by](*means)
    return similarities


def _nearness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return 1 - distance / mean distance of rows."""
    distance = cdist(first, second)
    average = distance.mean()
    return 1 - distance / average if average > 0 else np.ones_like(distance)


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosines between rows; rows of length zero have cosine 1 with each other and 0 with others."""
    lengths = [np.linalg.norm(rows, axis=1) for rows in (first, second)]
    units = [rows / np.maximum(n, _TINY)[:, None] for rows, n in zip((first, second), lengths, strict=True)]
    both_zero = np.logical_and.outer(lengths[0] < _TINY, lengths[1] < _TINY)
    return np.clip(units[0] @ units[1].T, -1, 1) + both_zero


_BY_MEANS = {"distance": _nearness, "cosine": _cosine}


def assign(similarity: Mapping[str, np.ndarray], least: float = -np.inf) -> Alignment:
    """Return the pairs with the largest sum of similarities; pairs below `least` are dropped."""
    pairs, values = {}, {}
    for layer, table in similarity.items():
        rows, columns = linear_sum_assignment(table, maximize=True)
        similarities = table[rows, columns]
        mask = similarities >= least
        pairs[layer] = np.stack([rows, columns], axis=1)[mask]
        values[layer] = similarities[mask]
    return Alignment(pairs, values)


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> list[str]:
    layers = [layer for layer in first if layer in second]
    if not layers:
        raise ValueError(f"There is no common layer: {list(first)} and {list(second)}.")
    return layers


def _check_same_images(first: WordMaps, second: WordMaps) -> None:
    if len(first) != len(second):
        raise ValueError(f"The word maps must be of the same images; got {len(first)} and {len(second)} images.")
    for layer in _common(first.layers, second.layers):
        sizes = [words.words[layer].shape[1:] for words in (first, second)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"The maps of layer {layer!r} have sizes {sizes[0]} and {sizes[1]}; they must be equal.")


def _jaccard(first: WordMaps, second: WordMaps, layer: str) -> np.ndarray:
    """Return the Jaccard index of the locations of each pair of words, shape (K_first, K_second)."""
    n_first, n_second = (words.vocabulary.n_words[layer] for words in (first, second))
    both = joint_histogram(first.words[layer], second.words[layer], (n_first, n_second))
    either = both.sum(1, keepdims=True) + both.sum(0) - both
    return both / np.maximum(1, either)
