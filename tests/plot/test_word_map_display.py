from collections import Counter
from dataclasses import replace

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, LayerHMM, WordMapDisplay
from skgmmcnn.plot._drawing import PALETTE
from tests.graph.random_words import random_words
from tests.plot import pictures
from tests.plot.readable import assert_readable, written


def overlays(display):
    return [part.get_array() for part in display.ax_.collections if isinstance(part, QuadMesh)]


def test_each_location_has_the_colour_of_its_word(digits_dictionary, maps, words):
    display = WordMapDisplay.from_estimator(digits_dictionary, maps, image=7, n_words=3)
    assert_readable(display.figure_)
    texts = written(display)
    for colours, layer in zip(overlays(display), words.layers, strict=True):
        word_map = words.words[layer][7]
        numbers, counts = np.unique(word_map, return_counts=True)
        frequent = [int(numbers[i]) for i in np.argsort(-counts, kind="stable")[:3]]
        assert list(display.selected_words[layer]) == frequent
        for i, j in np.ndindex(word_map.shape):
            is_frequent = word_map[i, j] in frequent
            expected = (*to_rgb(PALETTE[frequent.index(word_map[i, j])]), 0.6) if is_frequent else (0, 0, 0, 0)
            np.testing.assert_allclose(colours[i, j], expected)
        for word in frequent:
            assert f"w{word}\n{(word_map == word).sum()}/{word_map.size}" in texts
        assert f"{word_map.shape[0]} x {word_map.shape[1]} locations, {len(numbers)} words" in texts
    assert str(words.decisions[7]) in texts


def test_words_of_the_caller_and_of_a_graph(digits_dictionary, maps, words, graph):
    (by_influence,) = InferenceGraph(n_nodes=2, n_against=2, evidence="influence").fit(words).explain(words[7])
    for attribute, explained in [("score", graph.explain(words[7])[0]), ("influence", by_influence)]:
        display = WordMapDisplay.from_estimator(digits_dictionary, words, image=7, graph=explained)
        for layer in words.layers:
            nodes = [node for node in explained.nodes.values() if node["layer"] == layer]
            nodes.sort(key=lambda node: -abs(node[attribute]))
            assert display.selected_words[layer] == [node["word"] for node in nodes]
    display = WordMapDisplay.from_estimator(
        digits_dictionary, words, image=7, words=["conv3_w004", ("conv1", 2), ("conv3", 1)]
    )
    assert display.selected_words == {"conv1": [2], "conv3": [4, 1]}
    display = WordMapDisplay.from_estimator(digits_dictionary, words, words=[("conv3", 4)], layers=["conv3", "conv2"])
    assert display.selected_words == {"conv3": [4], "conv2": []}
    assert_readable(display.figure_)
    wide = InferenceGraph(n_nodes=12, fields="whole").fit(words).explain(words[7])[0]
    most = max(Counter(node["layer"] for node in wide.nodes.values()).values())
    with pytest.MonkeyPatch.context() as patch:  # fewer colours than the graph has words
        patch.setattr("skgmmcnn.plot._word_map.PALETTE", PALETTE[: most - 1])
        display = WordMapDisplay.from_estimator(digits_dictionary, words, image=7, graph=wide)
    assert max(map(len, display.selected_words.values())) == most - 1


def test_images_are_counted_from_the_front_or_the_back(digits):
    pipe = make_pipeline(FeatureExtractor(digits.network, ["conv2"]), LayerDictionary(6, random_state=0))
    pipe.fit(digits.images[:100])
    _, ax = plt.subplots()
    display = WordMapDisplay.from_estimator(pipe, digits.test_images, image=-1, ax=ax)
    assert display.ax_ is ax
    np.testing.assert_array_equal(ax.images[0].get_array()[..., 0], (digits.test_images[-1] * 255).round())
    with pytest.raises(IndexError, match="no image 450 in X, which has 450"):
        WordMapDisplay.from_estimator(pipe, digits.test_images, image=450)


def test_one_location_frames_the_image(digits):
    """A fully connected layer is about the whole image: a frame in its word's colour, no tint."""
    pipe = make_pipeline(FeatureExtractor(digits.network, ["mean", "head"]), LayerHMM(8, random_state=0, tol=0.1))
    display = WordMapDisplay.from_estimator(pipe.fit(digits.images[:200]), digits.images[:5], image=1)
    assert overlays(display) == []
    frames = [patch for patch in display.ax_.patches if patch.get_linewidth() == 5]
    assert [patch.get_edgecolor()[:3] for patch in frames] == [to_rgb(PALETTE[0])] * 2
    assert_readable(display.figure_)
    word = int(display.words.words["mean"][0, 0, 0])
    other = WordMapDisplay.from_estimator(pipe, digits.images[:5], image=1, words=[("mean", (word + 1) % 8)])
    assert not [patch for patch in other.ax_.patches if patch.get_linewidth() == 5]


def test_names_and_words_without_images():
    words = pictures.words()[:1]
    display = WordMapDisplay(words, {"mid": [0, 3], "top": [5]}).plot()
    texts = written(display)
    assert any(text.startswith("dark\nw0   ") for text in texts)
    bare = replace(random_words(0)[:1], pictures=None)
    layers = bare.layers
    display = WordMapDisplay(bare, {layer: [0, 1] for layer in layers}).plot()
    assert len(display.ax_.images) == len(layers)
    assert_readable(display.figure_)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"words": [("conv2", word) for word in range(9)]},
            "At most 8 words of a layer can be distinguished; 'conv2' has 9",
        ),
        ({"n_words": 9}, "n_words must be 1 to 8; got 9"),
        ({"words": ["conv2_w000"], "graph": nx.DiGraph()}, "give one of them"),
        ({"layers": ["conv4"]}, "no layer 'conv4'; there is 'conv"),
        ({"words": ["x"]}, "no word 'x'"),
        ({"words": 5}, "no word 5; words are given as"),
    ],
)
def test_bad_options(options, message, digits_dictionary, words):
    with pytest.raises(ValueError, match=message):
        WordMapDisplay.from_estimator(digits_dictionary, words, **options)


def test_estimators_that_do_not_fit(maps, words, graph):
    another = LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=1).fit(maps)
    with pytest.raises(ValueError, match="another dictionary than the estimator's"):
        WordMapDisplay.from_estimator(another, words)
    with pytest.raises(TypeError, match="needs a fitted LayerDictionary or LayerHMM, or a pipeline with one"):
        WordMapDisplay.from_estimator(graph, words)
