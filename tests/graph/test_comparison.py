"""Comparison of graphs and of models."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.dictionary import Alignment, align_words
from skgmmcnn.graph import compare_graphs, compare_models
from tests.graph.random_words import N_WORDS, random_words

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images


def renumbered(words, seed):
    """Return the same words under other numbers, and the new number of each."""
    rng = np.random.default_rng(seed)
    new = {layer: rng.permutation(n) for layer, n in words.vocabulary.n_words.items()}
    vocabulary = replace(words.vocabulary, fingerprint="renumbered")
    moved = {layer: new[layer][array] for layer, array in words.words.items()}
    return replace(words, words=moved, vocabulary=vocabulary), new


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_renumbered_words_make_no_difference(seed):
    words = random_words(seed, 12)
    others, new = renumbered(words, seed)
    alignment = align_words(words, others)
    for layer, pairs in alignment.pairs.items():
        present = np.unique(words.words[layer])
        np.testing.assert_array_equal(pairs[:, 0], present)
        np.testing.assert_array_equal(pairs[:, 1], new[layer][present])
        np.testing.assert_array_equal(alignment.similarity[layer], 1)
    label = int(words.decisions[0])
    # Ties go to the lower number, so each layer keeps all words.
    graphs = [InferenceGraph(n_nodes=99).fit(part).explain_class(part, label) for part in (words, others)]
    comparison = compare_graphs(*graphs, alignment)
    assert comparison.similarity == pytest.approx(1)
    assert {row.status for row in comparison.nodes + comparison.edges} == {"same"}


def naive_jaccard(first, second):
    keys = set(first) | set(second)
    pairs = [(first.get(key, 0), second.get(key, 0)) for key in keys]
    return sum(map(min, pairs)) / sum(map(max, pairs))


def test_similarity_equals_a_naive_version(seed):
    words = random_words(seed, 30)
    estimator = InferenceGraph(n_nodes=4).fit(words)
    graphs = [estimator.explain_class(words, label) for label in (0, 1)]
    comparison = compare_graphs(*graphs)
    n_images = [(words.decisions == label).sum() for label in (0, 1)]
    for layer in N_WORDS:
        scores = [
            {node["word"]: node["score"] / n for _, node in graph.nodes(data=True) if node["layer"] == layer}
            for graph, n in zip(graphs, n_images, strict=True)
        ]
        assert comparison.node_similarity[layer] == pytest.approx(naive_jaccard(*scores))
        bits = [
            {(tail, head.split("_")[0] == "decision" or head): edge["contribution"] / n
             for tail, head, edge in graph.edges(data=True) if graph.nodes[tail]["layer"] == layer}
            for graph, n in zip(graphs, n_images, strict=True)
        ]  # fmt: skip
        assert comparison.edge_similarity[layer] == pytest.approx(naive_jaccard(*bits))
        for row in comparison.nodes:
            assert row.before == pytest.approx(graphs[0].nodes[row.first]["score"] / n_images[0] if row.first else 0)
            assert row.after == pytest.approx(graphs[1].nodes[row.second]["score"] / n_images[1] if row.second else 0)
    assert 0 <= comparison.similarity < 1
    backwards = compare_graphs(*reversed(graphs))
    assert backwards.similarity == pytest.approx(comparison.similarity)


def small_graph(**scores):
    graph = nx.DiGraph(n_images=2, evidence="counts")
    graph.add_node("decision_1", layer="decision", word=1, score=8.0, class_name="x")
    for word, score in scores.items():
        graph.add_node(f"conv_{word}", layer="conv", word=int(word[1:]), score=score)
        graph.add_edge(f"conv_{word}", "decision_1", contribution=score)
    return graph


@pytest.fixture
def comparison():
    return compare_graphs(small_graph(w1=6.0, w2=4.0, w3=2.0), small_graph(w1=6.2, w2=2.0, w4=1.0))


def test_status_and_similarity(comparison):
    assert {row.first or row.second: row.status for row in comparison.nodes} == {
        "conv_w1": "same",
        "conv_w2": "changed",
        "conv_w3": "removed",
        "conv_w4": "added",
    }
    assert comparison.node_similarity == {"conv": pytest.approx((6 + 2) / (6.2 + 4 + 2 + 1))}


def test_text_and_table(comparison):
    assert comparison.to_text().splitlines() == [
        "similarity 0.61",
        "conv: words 0.61, edges 0.61",
        "  = conv_w1: 3.1 bits",
        "  ~ conv_w2: 2.0 -> 1.0 bits",
        "  - conv_w3: 1.0 bits",
        "  + conv_w4: 0.5 bits",
        "    = conv_w1 -> decision_1: 3.1 bits",
        "    ~ conv_w2 -> decision_1: 2.0 -> 1.0 bits",
    ]
    table = comparison.to_frame()
    assert list(table.query("kind == 'edge' and status == 'added'").second) == ["conv_w4 -> decision_1"]


def test_text_of_aligned_words():
    shifted = {"conv": np.array([[1, 2], [2, 1]])}
    aligned = compare_graphs(small_graph(w1=6.0, w3=1.0), small_graph(w2=6.0, w4=1.0), Alignment(shifted, {}))
    assert aligned.to_text().splitlines()[2:5] == [
        "  = conv_w1 (conv_w2): 3.0 bits",
        "  - conv_w3: 0.5 bits",
        "  + (conv_w4): 0.5 bits",
    ]


def test_tolerance():
    strict = compare_graphs(small_graph(w1=6.0), small_graph(w1=6.2), tolerance=0.01)
    assert [row.status for row in strict.nodes] == ["changed"]


@pytest.mark.parametrize(("first", "similarity"), [({}, 1), ({"w1": 1.0}, 0)])
def test_similarity_to_a_graph_without_words(first, similarity):
    assert compare_graphs(small_graph(**first), small_graph()).similarity == similarity


@pytest.mark.parametrize("evidence", ["influence", "counts"])
def test_graphs_of_words_compare(evidence, words):
    """The word that is explained is one of the nodes."""
    estimator = InferenceGraph(evidence=evidence).fit(words)
    first, second = (estimator.explain_together(words, ("conv3", word)) for word in (1, 2))
    assert compare_graphs(first, first).similarity == 1
    assert {row.status for row in compare_graphs(first, second).nodes if row.layer == "conv3"} == {"added", "removed"}


def test_influence_is_compared_as_it_is_and_never_with_counts(influence_graph, graph, words):
    """Over images influences are means already; words against the class weigh nothing."""
    against = InferenceGraph(2, n_against=2).fit(words).explain_class(words, 3)
    plain = influence_graph.explain_class(words, 3)
    comparison = compare_graphs(against, plain)
    for layer in words.layers:
        weights = [
            {key: max(0, node["influence"]) for key, node in each.nodes(data=True) if node["layer"] == layer}
            for each in (against, plain)
        ]
        assert comparison.node_similarity[layer] == pytest.approx(naive_jaccard(*weights))
    assert any(node["influence"] < 0 for node in against.nodes.values() if "influence" in node)
    flows = {(tail, head): edge["flow"] for tail, head, edge in plain.edges(data=True)}
    for row in comparison.edges:
        assert row.second is None or row.after == flows[tuple(row.second.split(" -> "))]
    assert " nats" in comparison.to_text()
    with pytest.raises(ValueError, match="One graph shows influence, the other counts"):
        compare_graphs(plain, graph.explain_class(words, 3))


@pytest.fixture(scope="module")
def pipes(pipe, maps):
    """The shared pipeline, and one with words of another seed."""
    words = clone(pipe[1]).set_params(random_state=1).fit(maps)
    return pipe, make_pipeline(pipe[0], words, InferenceGraph().fit(words.transform(maps)))


def test_models(pipes, digits):
    images = digits.test_images[:200]
    same = compare_models(pipes[0], pipes[0], images)
    assert same.similarity == 1
    assert set(same.classes) == set(digits.class_names)
    assert set(same.transitions.values()) == {1}
    other = compare_models(pipes[0], pipes[1], images)
    assert 0.1 < other.similarity < 0.9
    text = other.to_text()
    assert f"similarity of class graphs {other.similarity:.2f}" in text
    assert "conv2 in conv3: " in text
    assert "conv3 in decision: " in text


def test_layers_that_only_one_model_has(pipes, digits):
    single = make_pipeline(FeatureExtractor(digits.network, ["conv3"]), LayerDictionary(12), InferenceGraph())
    actual = compare_models(pipes[0], single.fit(digits.images[:300]), digits.test_images[:100])
    assert set(actual.alignment.pairs) == {"conv3"}
    assert set(actual.transitions) == {("decision", "conv3")}
    assert actual.classes["3"].node_similarity["conv2"] == 0


def test_models_without_a_class_in_common_are_refused(pipes, digits):
    extractor = FeatureExtractor(digits.network, ["conv3"], class_names=[f"digit {name}" for name in range(10)])
    other = make_pipeline(extractor, LayerDictionary(4), InferenceGraph()).fit(digits.images[:50])
    with pytest.raises(ValueError, match=r"decide for no class in common: \['0'"):
        compare_models(pipes[0], other, digits.test_images[:20])


def test_networks_of_two_seeds(digits, benchmark):
    """Other weights, other channels: words are aligned by their locations."""
    networks = [
        digits.network,
        benchmark("train_digits").train(digits, seed=1, n_epochs=10),
        nn.Sequential(digits.network),
    ]
    layers = [["conv3"], ["conv3"], ["0.conv3"]]
    first, second, third = (
        make_pipeline(FeatureExtractor(n, names), LayerDictionary(12, random_state=0), InferenceGraph()).fit(
            digits.images[:300]
        )
        for n, names in zip(networks, layers, strict=True)
    )
    actual = compare_models(first, second, digits.test_images[:200])
    assert 0 < actual.similarity < 1
    with pytest.raises(ValueError, match=r"There is no common layer: \['conv3'\] and \['0.conv3'\]"):
        compare_models(first, third, digits.test_images[:10])
