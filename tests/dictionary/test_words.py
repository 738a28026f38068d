"""Word maps: words, counts and names."""

import copy
import json

import numpy as np
import pytest
from sklearn.base import clone

from skgmmcnn import LayerDictionary
from skgmmcnn.dictionary._words import count_classes


def test_word_maps(maps, words):
    assert words.shape == (300,)
    assert words.words["conv1"].dtype == np.uint8
    np.testing.assert_array_equal(words.decisions, maps.outputs.argmax(1))
    histogram = words.histogram()
    assert histogram.shape == (300, 36) == (300, len(words.get_feature_names_out()))
    assert words.get_feature_names_out()[8] == "conv2_w000"
    assert histogram[5, 8 + 3] == (words.words["conv2"][5] == 3).sum()
    part = words[[4, 2]]
    np.testing.assert_array_equal(part.words["conv3"], words.words["conv3"][[4, 2]])
    np.testing.assert_array_equal(part.pictures[0], maps.pictures()[4])
    np.testing.assert_array_equal(part.decisions, words.decisions[[4, 2]])


def test_word_names(maps, dictionary):
    named = copy.copy(dictionary).set_params(word_names={("conv3", 2): "loop"})
    assert named.transform(maps[:1]).vocabulary.names == {("conv3", 2): "loop"}


@pytest.mark.parametrize("key", [("conv9", 2), ("conv3", 16), "conv3_w016", "conv3", 5])
def test_names_of_words_that_do_not_exist_are_refused(maps, dictionary, key):
    with pytest.raises(ValueError, match=r"word_names has key .* keys are .layer, number."):
        copy.copy(dictionary).set_params(word_names={key: "loop"}).transform(maps[:1])


def test_names_of_words_by_their_keys(maps, dictionary):
    """As a page writes them to a JSON file."""
    names = json.loads('{"conv3_w002": "loop", "conv1_w000": "edge"}')
    named = copy.copy(dictionary).set_params(word_names=names)
    assert named.transform(maps[:1]).vocabulary.names == {("conv3", 2): "loop", ("conv1", 0): "edge"}
    assert clone(named).word_names == names
    with pytest.raises(ValueError, match="word_names"):  # no file is read, neither now nor when it is loaded
        clone(dictionary).set_params(word_names="names.json").fit(maps)


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
