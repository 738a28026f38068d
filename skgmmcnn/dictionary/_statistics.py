"""Counts of words by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_CHUNK_BYTES = 2**26


@dataclass(frozen=True, eq=False)
class WordStatistics:
    """Frequencies of the K words of a layer by class; `counts` (K, n_outputs) are numbers of locations.

    The classes are the network's decisions for the fitted images.
    """

    counts: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Fraction of all locations that show the word, shape (K,)."""
        return self.counts.sum(1) / max(1, self.counts.sum())

    @property
    def classes(self) -> np.ndarray:
        """Fraction of each class among the locations of the word, shape (K, n_outputs); zeros for a dead word."""
        return self.counts / np.maximum(1, self.counts.sum(1, keepdims=True))

    @property
    def purity(self) -> np.ndarray:
        """Fraction of the most frequent class among the locations of the word, shape (K,); 0 for a dead word."""
        return self.classes.max(1)

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of the classes of the word in bits, shape (K,); 0 for a dead word."""
        fractions = self.classes
        return -(fractions * np.log2(fractions, where=fractions > 0, out=np.zeros_like(fractions))).sum(1)

    @property
    def dead(self) -> np.ndarray:
        """Words that no location shows."""
        return np.flatnonzero(self.counts.sum(1) == 0)


def count_classes(words: np.ndarray, decisions: np.ndarray, n_words: int, n_outputs: int) -> WordStatistics:
    """Count the words (n, H, W) of a layer by the `decisions` (n,) for the images."""
    return WordStatistics(count_pairs(words, decisions[:, None, None], (n_words, n_outputs)))


def count_pairs(first: np.ndarray, second: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return the joint histogram, of the given `shape`, of two integer arrays (n, H, W)."""
    counts = np.zeros(shape, dtype=np.int64)
    n_images = max(1, _CHUNK_BYTES // (8 * max(1, first[:1].size)))
    for start in range(0, len(first), n_images):
        chunk = slice(start, start + n_images)
        cells = first[chunk].astype(np.int64) * shape[1] + second[chunk]
        counts += np.bincount(cells.ravel(), minlength=counts.size).reshape(shape)
    return counts
