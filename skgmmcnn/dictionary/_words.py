"""Word maps: the visual word at each location of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from ..features import NetworkSpec, Pictures
from ._influence import Influence
from ._representatives import Representatives

_CHUNK_BYTES = 2**26
R = TypeVar("R", bound=Any)


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """Frequencies of the K words of a layer by decision for the fitted images; see :class:`Vocabulary`."""

    counts: np.ndarray

    @property
    def share(self) -> np.ndarray:
        return self.counts.sum(1) / max(1, self.counts.sum())

    @property
    def classes(self) -> np.ndarray:
        return self.counts / np.maximum(1, self.counts.sum(1, keepdims=True))

    @property
    def purity(self) -> np.ndarray:
        return self.classes.max(1)

    @property
    def entropy(self) -> np.ndarray:
        fractions = self.classes
        return -(fractions * np.log2(fractions, where=fractions > 0, out=np.zeros_like(fractions))).sum(1)

    @property
    def dead(self) -> np.ndarray:
        return np.flatnonzero(self.counts.sum(1) == 0)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The words of a dictionary.

    Parameters
    ----------
    n_words : dict of str to int
        Number of words of each layer.
    fingerprint : str
        SHA-256 hash of the mixtures, which identifies the dictionary.
    representatives : dict of str to Representatives
        The R most typical locations of each of the K words of a layer, best first: `images` (K, R), indices of the
        fitted images, -1 where there are fewer; `locations` (K, R, 2), row and column in the layer's map; `patches`
        (K, R, height, width, 3) or None, image crops of the effective receptive fields, at most half of the image along
        each axis and 64 pixels a side, or of the whole receptive fields if effective ones were not measured; `marks`
        (K, R, 2), positions of the locations in the patches.  Empty after `partial_fit`.
    statistics : dict of str to WordStatistics
        Frequencies of the K words of a layer in images of each of C classes: `counts` (K, C) of locations; `share`
        (K,), the fraction of all locations that show the word; `classes` (K, C), the fraction of each class among the
        locations of the word, zeros for a dead one; `purity` (K,), the largest of these; `entropy` (K,) in bits;
        `dead`, the words that no location shows.  Empty after `partial_fit`.
    names : dict of (str, int) to str
        Names given to words, by layer and word.
    class_names : tuple of str or None
        Names of the classes.
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
            Index of the word.

        Returns
        -------
        key : str
            For example ``"layer3_w017"``.
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

    Returned by :meth:`LayerDictionary.transform`.  Supports indexing by image (``words[rows]``).

    Parameters
    ----------
    words : dict of str to int array of shape (n, H, W)
        Words by layer, in network order, as the smallest integer type that fits.
    decisions : int array of shape (n,)
        Index of the network output that is the decision for each image.
    spec : NetworkSpec
        Layers, receptive fields and outputs of the network.
    vocabulary : Vocabulary
        Identifiers, examples and statistics of the words.
    pictures : Pictures or None
        The preprocessed images.
    proba : dict of str to float16 array of shape (n, H, W), or None
        Posterior of the word at each location, if ``keep_proba=True``.
    log_density : dict of str to float32 array of shape (n, H, W), or None
        Log-density of each location under its word in nats, if ``keep_proba=True``.
    influence : Influence or None
        Contributions of locations to the decisions, computed on demand: ``influence.of_classes()`` returns `maps`, by
        layer (n, H, W), of contributions in nats to the log-odds of the decision; ``of_classes(classes, contrasts)``
        those to other outputs, or to margins over other outputs.  None without a network.

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
        """Names of the modelled layers, the lowest first."""
        return self.spec.layers

    def __len__(self) -> int:
        return len(self.decisions)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{layer}: {n} words" for layer, n in self.vocabulary.n_words.items())
        return f"WordMaps(n={len(self)}, {sizes})"

    def __getitem__(self, key: Any) -> WordMaps:
        names = ("words", "decisions", "pictures", "proba", "log_density", "influence")
        return select(self, names, key[0] if isinstance(key, tuple) else key)

    def histogram(self) -> np.ndarray:
        """Count the locations of each word in each image.

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
            For example ``"layer3_w017"``.
        """
        return np.asarray(self.vocabulary.keys(), dtype=object)


def select(record: R, names: Sequence[str], key: Any) -> R:
    """Return a dataclass of the rows `key` of the named fields: arrays, dicts of arrays by layer, or None."""
    rows = np.atleast_1d(np.arange(len(record))[key])

    def take(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {layer: array[rows] for layer, array in value.items()}
        return None if value is None else value[rows]

    return replace(record, **{name: take(getattr(record, name)) for name in names})


def count_words(words: np.ndarray, n_words: int) -> np.ndarray:
    """Return the counts (n, n_words) of the words (n, H, W) of a layer in each image."""
    n = len(words)
    cells = words.reshape(n, int(np.prod(words.shape[1:]))) + n_words * np.arange(n)[:, None]
    return np.bincount(cells.ravel(), minlength=n * n_words).reshape(n, n_words)


def count_classes(words: np.ndarray, decisions: np.ndarray, n_words: int, n_outputs: int) -> WordStatistics:
    """Count the words (n, H, W) of a layer by the `decisions` (n,) for the images."""
    return WordStatistics(joint_histogram(words, decisions[:, None, None], (n_words, n_outputs)))


def joint_histogram(first: np.ndarray, second: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the joint histogram, of the given `shape`, of two integer arrays (n, H, W)."""
    counts = np.zeros(shape, dtype=np.int64)
    n_images = max(1, _CHUNK_BYTES // (8 * max(1, first[:1].size)))
    for start in range(0, len(first), n_images):
        chunk = slice(start, start + n_images)
        cells = first[chunk].astype(np.int64) * shape[1] + second[chunk]
        counts += np.bincount(cells.ravel(), minlength=counts.size).reshape(shape)
    return counts
