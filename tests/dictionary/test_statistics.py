"""Counts of words by class."""

import numpy as np
import pytest

from skgmmcnn import LayerDictionary
from skgmmcnn.dictionary._statistics import count_classes


def test_statistics_of_words_equal_a_loop(words):
    for layer, n_words in words.vocabulary.n_words.items():
        statistics = words.vocabulary.statistics[layer]
        for word in range(n_words):
            shown = (words.words[layer] == word).reshape(300, -1).sum(1)
            classes = np.array([shown[words.decisions == c].sum() for c in range(10)])
            np.testing.assert_array_equal(statistics.counts[word], classes)
            assert statistics.share[word] == pytest.approx(shown.sum() / words.words[layer].size)
            fractions = classes[classes > 0] / classes.sum()
            assert statistics.purity[word] == pytest.approx(fractions.max())
            assert statistics.entropy[word] == pytest.approx(-(fractions * np.log2(fractions)).sum())


def test_dead_words_are_reported(maps):
    dictionary = LayerDictionary(5, random_state=0).fit(maps)
    assert all(len(dead) == 0 for dead in dictionary.dead_words_.values())
    statistics = count_classes(np.array([[[0, 3, 3]]]), np.array([1]), 4, 2)
    assert statistics.dead.tolist() == [1, 2]
    assert statistics.purity.tolist() == [1, 0, 0, 1]
    assert statistics.entropy.tolist() == [0, 0, 0, 0]
