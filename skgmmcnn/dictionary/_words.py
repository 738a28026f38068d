"""WordMaps: which visual word each location of each layer shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..features import NetworkSpec, Pictures
from ._influence import Influence
from ._representatives import Representatives
from ._statistics import WordStatistics


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a dictionary.

    Parameters
    ----------
    n_words : dict of str to int
        Number of words of each layer.
    fingerprint : str
        SHA-256 of the mixtures, by which words of different dictionaries are told apart.
    representatives : dict of str to Representatives
        The most typical locations of each layer's K words, at most R each, best first: `images` (K, R), their numbers
        among those fitted, -1 where there are fewer; `locations` (K, R, 2), row and column in the layer's map;
        `patches` (K, R, height, width, 3), or None: the pieces of image from which they get most of their activity, at
        most half of the image along each axis and 64 pixels a side, or the whole fields where effective fields were not
        measured; `marks` (K, R, 2), the places of the locations in their patches.  Empty after `partial_fit`.
    statistics : dict of str to WordStatistics
        Frequencies of each layer's K words in images of each class, of C: `counts` (K, C) of locations; `share` (K,),
        the fraction of all locations that show the word; `classes` (K, C), the fraction of each class among the
        locations of the word; `purity` (K,), the largest of them; `entropy` (K,) in bits; `dead`, the words that no
        location shows.  Empty after `partial_fit`.
    names : dict of (str, int) to str
        Names that a person gave to words, by layer and word.
    class_names : tuple of str or None
        Names of the classes that `statistics` count.
    """

    n_words: Mapping[str, int]
    fingerprint: str
    representatives: Mapping[str, Representatives] = field(default_factory=dict)
    statistics: Mapping[str, WordStatistics] = field(default_factory=dict)
    names: Mapping[tuple[str, int], str] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None

    def key(self, layer: str, word: int) -> str:
        """Return the identifier of a word.

        Parameters
        ----------
        layer : str
            Name of the layer.
        word : int
            Number of the word.

        Returns
        -------
        key : str
            As ``"layer3_w017"``.
        """
        return f"{layer}_w{word:0{max(3, len(str(self.n_words[layer] - 1)))}d}"

    def keys(self) -> list[str]:
        """Return the identifiers of all words.

        Returns
        -------
        keys : list of str
            Layer by layer, in network order.
        """
        return [self.key(layer, word) for layer, n_words in self.n_words.items() for word in range(n_words)]


@dataclass(frozen=True, eq=False)
class WordMaps:
    """The visual word at every location of the modelled layers, for n images.

    Made by :meth:`LayerDictionary.transform`.  It can be indexed by rows as arrays are (``words[rows]``).

    Parameters
    ----------
    words : dict of str to int array of shape (n, H, W)
        Words by layer, in network order, in the smallest integers that fit.
    decisions : int array of shape (n,)
        The network output that was decided for.
    spec : NetworkSpec
        The layers, their receptive fields and the outputs.
    vocabulary : Vocabulary
        The words that the numbers stand for.
    pictures : Pictures or None
        The images as the network sees them.
    proba : dict of str to float16 array of shape (n, H, W), or None
        Posterior of the word at each location, where asked for.
    log_density : dict of str to float32 array of shape (n, H, W), or None
        Log-density of the location under its word in nats, where asked for.
    influence : Influence or None
        Contributions of locations to the decisions, computed on demand: ``influence.of_classes()`` returns `maps`, by
        layer (n, H, W), in nats of the log-odds of the class decided for; ``of_classes(classes, contrasts)`` those of
        other outputs, and of leads over others.  None for words that were made without a network.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv3"])
    >>> words = make_pipeline(extractor, LayerDictionary(5, random_state=0)).fit_transform(digits.images[:50])
    >>> words.words["conv3"].shape, words.histogram().shape
    ((50, 4, 4), (50, 5))
    """

    words: Mapping[str, np.ndarray]
    decisions: np.ndarray
    spec: NetworkSpec
    vocabulary: Vocabulary
    pictures: Pictures | None = None
    proba: Mapping[str, np.ndarray] | None = None
    log_density: Mapping[str, np.ndarray] | None = None
    influence: Influence | None = None

    @property
    def shape(self) -> tuple[int]:
        """The number of images, as a tuple."""
        return self.decisions.shape

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modelled layers in network order, the lowest first."""
        return self.spec.layers

    def __len__(self) -> int:
        return len(self.decisions)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{layer}: {n} words" for layer, n in self.vocabulary.n_words.items())
        return f"WordMaps(n={len(self)}, {sizes})"

    def __getitem__(self, key: Any) -> WordMaps:
        rows = np.atleast_1d(np.arange(len(self))[key[0] if isinstance(key, tuple) else key])
        return replace(
            self,
            words=_rows(self.words, rows),
            decisions=self.decisions[rows],
            pictures=None if self.pictures is None else self.pictures[rows],
            proba=None if self.proba is None else _rows(self.proba, rows),
            log_density=None if self.log_density is None else _rows(self.log_density, rows),
            influence=None if self.influence is None else self.influence[rows],
        )

    def histogram(self) -> np.ndarray:
        """Count how often each word occurs in each image.

        Returns
        -------
        counts : int array of shape (n, sum of K over the layers)
            Columns as in :meth:`get_feature_names_out`.
        """
        return np.concatenate(
            [count_words(self.words[layer], n) for layer, n in self.vocabulary.n_words.items()], axis=1
        )

    def get_feature_names_out(self) -> np.ndarray:
        """Return the identifiers of all words, layer by layer.

        Returns
        -------
        names : array of str, shape (sum of K over the layers,)
            Layer and word, as ``"layer3_w017"``.
        """
        return np.asarray(self.vocabulary.keys(), dtype=object)


def _rows(arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {layer: array[rows] for layer, array in arrays.items()}


def count_words(words: np.ndarray, n_words: int) -> np.ndarray:
    """Count the words (n, H, W) of a layer by image, (n, n_words)."""
    n = len(words)
    cells = words.reshape(n, int(np.prod(words.shape[1:]))) + n_words * np.arange(n)[:, None]
    return np.bincount(cells.ravel(), minlength=n * n_words).reshape(n, n_words)
