"""Representatives are the most typical locations, with their patches."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.dictionary._representatives import Typical


def naive_choice(words, proba, density, word, n_best):
    """The best location of each image first, then each image's second best, and so on."""
    chosen = []
    for image in range(len(words)):
        own = [
            (-proba[image, q], -density[image, q], image, q) for q in range(words.shape[1]) if words[image, q] == word
        ]
        chosen += [(turn, *entry) for turn, entry in enumerate(sorted(own))]
    return [entry[3:] for entry in sorted(chosen)[:n_best]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), n_best=st.integers(1, 6), images_at_once=st.integers(1, 9))
def test_representatives_equal_a_naive_choice(seed, n_best, images_at_once):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 4, (9, 5))
    proba, density = rng.choice([0.5, 1], words.shape), rng.choice(4, words.shape).astype(float)
    typical = Typical(5, n_best)
    for first in range(0, 9, images_at_once):
        part = slice(first, first + images_at_once)
        typical.add(first, words[part], *(torch.from_numpy(values[part].ravel()) for values in (proba, density)))
    images, locations = typical.selection()
    for word in range(5):
        selection = [pair for pair in zip(images[word], locations[word], strict=True) if pair[0] >= 0]
        assert selection == naive_choice(words, proba, density, word, n_best)


def test_representatives_show_their_word(maps, words):
    for layer in maps.layers:
        representatives = words.vocabulary.representatives[layer]
        for word in range(words.vocabulary.n_words[layer]):
            places = np.argwhere(words.words[layer] == word)
            images = representatives.images[word][representatives.images[word] >= 0]
            assert len(images) == min(9, len(places))
            assert len(np.unique(images)) == min(9, len(np.unique(places[:, 0])))
            assert (words.words[layer][images, *representatives.locations[word][: len(images)].T] == word).all()


def test_patches_show_where_activity_comes_from(maps, words):
    """Pieces of one size around the locations, inside the image."""
    representatives = words.vocabulary.representatives["conv2"]
    size = np.array(representatives.patches.shape[2:4])
    assert (size >= 3).all()
    assert (size <= 5).all()
    for word, place in np.argwhere(representatives.images >= 0):
        at = representatives.locations[word, place] + 0.5
        row, column = begin = np.clip(np.floor(at - size / 2 + 0.5).astype(int), 0, 8 - size)
        picture = maps.pictures()[representatives.images[word, place]]
        expected = picture[row : row + size[0], column : column + size[1]]
        np.testing.assert_array_equal(representatives.patches[word, place], expected)
        np.testing.assert_allclose(representatives.marks[word, place], (at - begin) / size)


def test_patches_of_deep_layers_are_parts_of_the_image():
    """At most half of it, although a location sees nearly all; whole fields, with marks, where asked for."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 5, padding=2), *(nn.Conv2d(4, 4, 9, padding=4) for _ in range(3))]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 32 * 32, 3))
    images = np.random.default_rng(0).random((12, 3, 32, 32), dtype=np.float32)
    maps = FeatureExtractor(network, ["0", "3"], preprocess=None).fit_transform(images)
    all_of_it = {("3", "0"): maps.spec.receptive_fields["3", "0"]}
    for fields, side in ((all_of_it, 16), ({}, 29)):
        maps._source.spec = replace(maps.spec, effective_fields=fields)
        representatives = LayerDictionary(3, random_state=0).fit(maps).vocabulary_.representatives["3"]
        assert representatives.patches.shape[2:4] == (side, side)
        assert representatives.whole == (not fields)


def test_whole_fields_reach_outside_the_image(digits):
    maps = FeatureExtractor(digits.network, ["conv2", "conv3"]).fit_transform(digits.images[:100])
    maps._source.spec = replace(maps.spec, effective_fields={})
    vocabulary = LayerDictionary(12, random_state=0).fit(maps).vocabulary_
    representatives = vocabulary.representatives["conv2"]
    assert representatives.patches.shape[2:] == (5, 5, 3)
    word, place = np.argwhere((representatives.locations == 0).any(2) & (representatives.images >= 0))[0]
    axis = int(representatives.locations[word, place, 0] != 0)
    assert (np.moveaxis(representatives.patches[word, place], axis, 0)[:2] == 225).all()
    assert not representatives.whole
    assert vocabulary.representatives["conv3"].whole


def test_patches_need_not_be_kept(maps):
    dictionary = LayerDictionary(4, keep_patches=False, random_state=0).fit(maps)
    representatives = dictionary.vocabulary_.representatives["conv3"]
    assert representatives.patches is None
    assert (representatives.images[:, 0] >= 0).any()
