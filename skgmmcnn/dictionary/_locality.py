"""How local the words of a layer are: how many an image shows, and whether equal ones lie side by side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._words import WordMaps, check_words, count_words

_IMAGES_AT_ONCE = 256


class Locality(NamedTuple):
    """How the words of a layer are spread over images.

    Parameters
    ----------
    n_distinct : float
        Mean number of different words in an image.
    expected_distinct : float
        What that would be if each location drew its word from the frequencies of the layer.
    largest_share : float
        Mean share of an image's locations that its most frequent word takes.
    autocorrelation : float
        How much more often than by chance neighbouring locations show the same word: 1 where they always do, 0 as if
        the words of each image were shuffled; NaN where a map has one location.
    n_locations : int
        Locations of a map.
    """

    n_distinct: float
    expected_distinct: float
    largest_share: float
    autocorrelation: float
    n_locations: int


def locality(words: WordMaps) -> dict[str, Locality]:
    """Measure for each layer how many different words an image shows, and how they cluster in space.

    With J the share of the joins between horizontal and vertical neighbours that link equal words (the join count of
    [1]_), and E = sum_k n_k (n_k - 1) / (N (N - 1)) its expectation when the N words of the image are shuffled [2]_,
    the autocorrelation is sum (J - E) / sum (1 - E) over the images.

    Parameters
    ----------
    words : WordMaps
        Words of the images.

    Returns
    -------
    found : dict of str to Locality
        By layer.

    Notes
    -----
    Receptive fields of neighbours overlap, so that words cluster somewhat in every layer.

    References
    ----------
    .. [1] Moran, "The interpretation of statistical maps", Journal of the Royal Statistical Society B 10(2), 1948.
    .. [2] Cliff and Ord, "Spatial Processes: Models and Applications", Pion, 1981, chapter 1 (nonfree sampling).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from torch import nn
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.dictionary import locality
    >>> network = nn.Sequential(nn.AvgPool2d(3, 1), nn.Flatten(), nn.Linear(36, 3))
    >>> images = np.random.default_rng(0).random((40, 8, 8)).astype("float32")
    >>> words = make_pipeline(FeatureExtractor(network, ["0"]), LayerDictionary(5)).fit_transform(images)
    >>> found = locality(words)["0"]
    >>> found.n_locations, found.autocorrelation > 0.1
    (36, True)
    """
    check_words(words)
    return {layer: _of_layer(words.words[layer], n_words) for layer, n_words in words.vocabulary.n_words.items()}


def _of_layer(words: np.ndarray, n_words: int) -> Locality:
    n_images, height, width = words.shape
    size = height * width
    distinct = largest = excess = most = 0.0
    total = np.zeros(n_words, dtype=np.int64)
    for start in range(0, n_images, _IMAGES_AT_ONCE):
        part = words[start : start + _IMAGES_AT_ONCE]
        counts = count_words(part, n_words)
        total += counts.sum(0)
        distinct += (counts > 0).sum()
        largest += counts.max(1).sum() / size
        if size > 1:
            expected = (counts * (counts - 1)).sum(1) / (size * (size - 1))
            excess += (_equal_joins(part) - expected).sum()
            most += (1 - expected).sum()
    shares = total / total.sum()
    return Locality(
        n_distinct=float(distinct / n_images),
        expected_distinct=float((1 - (1 - shares) ** size).sum()),
        largest_share=float(largest / n_images),
        autocorrelation=float(excess / most) if most > 0 else np.nan,
        n_locations=size,
    )


def _equal_joins(words: np.ndarray) -> np.ndarray:
    """Return for each image the share of pairs of neighbours that show the same word, shape (n,)."""
    down, right = words[:, 1:] == words[:, :-1], words[:, :, 1:] == words[:, :, :-1]
    return (down.sum((1, 2)) + right.sum((1, 2))) / (down[0].size + right[0].size)
