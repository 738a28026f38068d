"""Words of two dictionaries are paired as they belong together."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.dictionary import align_words
from skgmmcnn.dictionary._alignment import _cosine
from skgmmcnn.mixture._emissions import Parameters


def permuted(dictionary, order):
    """The dictionary with the words of each layer in another order."""
    other = LayerDictionary()
    other.layers_ = dictionary.layers_
    other.mixtures_ = {}
    for layer, mixture in dictionary.mixtures_.items():
        rows = torch.from_numpy(order[layer])
        parameters = Parameters(mixture.parameters.mean[rows], mixture.parameters.variance)  # shared by all words
        other.mixtures_[layer] = replace(mixture, weights=mixture.weights[rows], parameters=parameters)
    return other


def test_permuted_words_are_aligned_by_their_means(dictionary, rng):
    order = {layer: rng.permutation(len(mixture.weights)) for layer, mixture in dictionary.mixtures_.items()}
    alignment = align_words(dictionary, permuted(dictionary, order))
    for layer, pairs in alignment.pairs.items():
        np.testing.assert_array_equal(order[layer][pairs[:, 1]], pairs[:, 0])
        np.testing.assert_allclose(alignment.similarity[layer], 1)
        assert alignment.partner(layer, 3) == order[layer][3]


def test_words_are_aligned_by_cosine(maps, dictionary):
    other = LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=1).fit(maps)
    alignment = align_words(dictionary, other, by="cosine")
    for layer, pairs in alignment.pairs.items():
        means = [fitted.mixtures_[layer].emitted_means_ for fitted in (dictionary, other)]
        units = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in means]
        cosines = [units[0][one] @ units[1][other] for one, other in pairs]
        np.testing.assert_allclose(alignment.similarity[layer], cosines)
        assert sum(cosines) >= np.trace(units[0] @ units[1].T)  # of words as they are numbered


def test_words_of_silence_are_alike():
    some, silent = np.full((2, 3), 2.0), np.zeros((2, 3))
    np.testing.assert_array_equal(_cosine(silent, silent), 1)
    np.testing.assert_array_equal(_cosine(silent, some), 0)


def test_numbers_of_words_may_differ(maps, dictionary):
    small = LayerDictionary(5, random_state=1).fit(maps)
    for alignment in (align_words(dictionary, small), align_words(dictionary.transform(maps), small.transform(maps))):
        pairs = alignment.pairs["conv3"]
        assert len(pairs) <= 5
        assert len(np.unique(pairs[:, 0])) == len(np.unique(pairs[:, 1])) == len(pairs)
        partners = [alignment.partner("conv3", word) for word in range(5)]
        assert sorted(word for word in partners if word is not None) == sorted(pairs[:, 0])
    assert alignment.partner("conv9", 0) is None


def test_overlaps_equal_a_naive_count(maps, dictionary):
    first, second = dictionary.transform(maps), LayerDictionary(6, random_state=3).fit_transform(maps)
    alignment = align_words(first, second)
    for (one, other), similarity in zip(alignment.pairs["conv2"], alignment.similarity["conv2"], strict=True):
        shows = first.words["conv2"] == one, second.words["conv2"] == other
        assert similarity == pytest.approx((shows[0] & shows[1]).sum() / (shows[0] | shows[1]).sum())
    best = sum(alignment.similarity["conv2"])
    rng = np.random.default_rng(0)
    for _ in range(50):
        guess = zip(rng.permutation(12)[:6], range(6), strict=True)
        total = 0
        for one, other in guess:
            shows = first.words["conv2"] == one, second.words["conv2"] == other
            total += (shows[0] & shows[1]).sum() / (shows[0] | shows[1]).sum()
        assert total <= best + 1e-9


def test_words_that_never_meet_are_no_pair(words):
    only = replace(words, words={layer: np.zeros_like(array) for layer, array in words.words.items()})
    assert [len(pairs) for pairs in align_words(words, only).pairs.values()] == [1, 1, 1]


def test_kinds_may_not_be_mixed(words, dictionary):
    with pytest.raises(TypeError, match="takes two WordMaps of the same images, or two fitted LayerDictionaries"):
        align_words(words, dictionary)


def test_unknown_measures_are_named(words, dictionary):
    with pytest.raises(ValueError, match="WordMaps are aligned by 'overlap'; got by='cosine'"):
        align_words(words, words, by="cosine")
    with pytest.raises(ValueError, match="dictionaries are aligned by 'distance' or 'cosine'; got by='overlap'"):
        align_words(dictionary, dictionary, by="overlap")


def test_word_maps_must_be_of_the_same_images(words, digits):
    with pytest.raises(ValueError, match="got 300 and 3 images"):
        align_words(words, words[:3])
    larger = FeatureExtractor(digits.network, ["conv3"]).fit_transform(np.zeros((300, 12, 12), np.float32))
    other = LayerDictionary(2, random_state=0).fit_transform(larger)
    with pytest.raises(ValueError, match=r"maps of layer 'conv3' have sizes \(4, 4\) and \(6, 6\)"):
        align_words(words, other)


def test_dictionaries_must_have_equal_channels():
    narrow, wide = (LayerDictionary(2, random_state=0).fit(np.eye(n)) for n in (6, 5))
    with pytest.raises(ValueError, match="Layer 'dense' has 6 and 5 channels in the two dictionaries"):
        align_words(narrow, wide)
