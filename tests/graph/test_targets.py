"""Targets and contrasts of explanations."""

import networkx as nx
import numpy as np
import pytest
from sklearn.base import clone

from skgmmcnn import InferenceGraph, to_text
from tests.graph.random_words import random_words

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images


def test_words_are_targets_by_key_and_by_name():
    words = random_words(0, names={("top", 1): "loop", ("top", 2): "arc", ("middle", 2): "arc"})
    graph = InferenceGraph().fit(words)
    by_number, *others = (graph.explain_together(words, word) for word in (("top", 1), "top_w001", "loop"))
    assert all(nx.utils.graphs_equal(by_number, other) for other in others)
    with pytest.raises(ValueError, match="'arc' is the name of several words"):
        graph.explain(words, "arc")


@pytest.mark.parametrize("call", ["explain", "explain_together"])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (("conv", 1), r"there is no layer 'conv'; there is 'conv\d'"),
        (("conv3", 16), "layer 'conv3' has words 0 to 15"),
        (("conv3", 0, 4), "layer 'conv3' has a map of 4 x 4 locations"),
        (("conv3",), "neither a class, nor a word"),
        (("conv3", "a"), "neither a class, nor a word"),
        ("ten", "no class 'ten'"),
        (11, "there is no output 11"),
    ],
)
def test_bad_targets_are_named(graph, words, call, target, message):
    with pytest.raises(ValueError, match=message):
        getattr(graph, call)(words[:1], target)


def test_a_location_is_no_target_of_several_images(graph, words):
    with pytest.raises(ValueError, match="belongs to one image"):
        graph.explain_together(words, ("conv3", 0, 0))


def test_a_word_that_no_image_shows_is_no_target(graph, words):
    absent = int(np.setdiff1d(np.arange(16), words.words["conv3"][0])[0])
    with pytest.raises(ValueError, match=f"None of these 1 images shows the word conv3_w{absent:03}"):
        graph.explain_together(words[:1], ("conv3", absent))


def test_no_images_are_refused(graph, words):
    with pytest.raises(ValueError, match="no images"):
        graph.explain_together(words[[]], 3)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (10, r"There is no|there is no output 10"),
        ("ten", "no class 'ten'"),
        (3, r"has the decision '3' \(3\)"),
    ],
)
def test_classes_without_images_are_named(graph, words, target, message):
    with pytest.raises(ValueError, match=message):
        graph.explain_class(words[words.decisions != 3], target)


@pytest.mark.parametrize("evidence", ["influence", "counts"])
def test_a_word_without_a_layer_below_is_explained_in_all_images(words, evidence):
    explained = InferenceGraph(evidence=evidence).fit(words).explain_together(words, ("conv1", 1))
    assert list(explained) == ["conv1_w001"]
    assert explained.graph["n_images"] == len(words)
    assert explained.nodes["conv1_w001"]["count"] == (words.words["conv1"] == 1).sum()


def test_a_class_is_explained_by_its_decisions(graph, words, digits):
    labels = digits.labels[: len(words)]
    label = int(words.decisions[0])
    right = (words.decisions == label) & (labels == label)
    explained = graph.explain_together(words[right], label)
    assert explained.graph["n_images"] == right.sum()
    assert to_text(graph.explain_class(words[right], label)) == to_text(explained)


def test_a_contrast_for_each_image(graph, words):
    others = (words.decisions[:3] + np.arange(1, 4)) % 10
    together = graph.explain(words[:3], contrast=others)
    for i, actual in enumerate(together):
        (alone,) = graph.explain(words[i : i + 1], contrast=words.spec.class_name(others[i]))
        assert nx.utils.graphs_equal(actual, alone)


@pytest.mark.parametrize(
    ("target", "contrast", "message"),
    [
        (None, [1, 2], "one class, or one for each of 3 images; got 2"),
        (("conv3", 0), 1, "is for decisions"),
        (1, 1, r"the class that is explained.*words\[words.decisions != 1\]"),
    ],
)
def test_bad_contrasts_are_named(graph, influence_graph, words, target, contrast, message):
    for estimator in (graph, influence_graph):
        with pytest.raises(ValueError, match=message):
            estimator.explain(words[:3], target, contrast=contrast)


def test_contrasts_need_fitted_images_of_the_class(graph, words):
    few = clone(graph).fit(words[words.decisions != 5])
    with pytest.raises(ValueError, match="No fitted image has the decision '5'"):
        few.explain(words[:1], 1, contrast=5)
