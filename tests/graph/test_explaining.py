"""Graphs of random networks with branches, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, to_text
from skgmmcnn.graph import surprise
from skgmmcnn.graph._hierarchy import Hierarchy
from skgmmcnn.plot._edge_maps import edge_maps
from tests.features.test_receptive_field import Fork
from tests.graph.naive import (
    naive_above,
    naive_surprise,
    naive_walk,
    random_case,
    random_spec,
)

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images

SEEDS = st.integers(0, 2**31)


def place(key):
    layer, word = key.rsplit("_", 1)
    return layer, int(word.lstrip("w"))


def assert_same(graph, chosen, scores, edges):
    actual = {layer: [] for layer in chosen}
    for node in list(graph.nodes.values()):
        actual[node["layer"]].append(node["word"])
    assert actual == chosen
    for node in list(graph.nodes.values())[1:]:
        assert node["score"] == pytest.approx(scores[node["layer"]][node["word"]], abs=1e-9)
    assert {(place(tail), place(head)) for tail, head in graph.edges} == set(edges)
    for tail, head, edge in graph.edges(data=True):
        count, ratio, frequency = edges[place(tail), place(head)]
        assert edge["count"] == count
        assert edge["log_ratio"] == pytest.approx(ratio)
        assert edge["frequency"] == pytest.approx(frequency)
        assert edge["contribution"] == pytest.approx(count * ratio)


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.sampled_from(["effective", "whole"]))
def test_hierarchy_is_the_transitive_reduction(seed, fields):
    spec, depends = random_spec(np.random.default_rng(seed))
    actual = Hierarchy.of(spec, spec.effective_fields if fields == "effective" else {})
    assert set(actual.fields) == {(upper, layer) for layer in spec.layers for upper in naive_above(layer, depends)}
    for upper, lowers in actual.below.items():
        assert all((upper, lower) in actual.fields for lower in lowers)
        assert all(actual.depths[lower] > actual.depths[upper] for lower in lowers)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 4), st.sampled_from([0.1, 1.0, 20.0]), st.data())
def test_graphs_equal_loops(seed, n_nodes, smoothing, data):
    depends, fitted, words = random_case(seed)
    n_nodes = {layer: max(1, n_nodes - i) for i, layer in enumerate(fitted.layers)}
    estimator = InferenceGraph(n_nodes, smoothing=smoothing).fit(fitted)
    how = n_nodes, smoothing
    for image, graph in enumerate(estimator.explain(words)):
        start = "decision", int(words.decisions[image])
        assert_same(graph, *naive_walk(fitted, words[image], depends, start, how))
    target, other = data.draw(st.permutations(range(3)))[:2]
    assert_same(estimator.explain(words, target)[0], *naive_walk(fitted, words[0], depends, ("decision", target), how))
    together = estimator.explain_together(words, target)
    assert_same(together, *naive_walk(fitted, words, depends, ("decision", target), how))
    if {target, other} <= set(fitted.decisions.tolist()):
        contrast = estimator.explain_together(words, target, contrast=other)
        assert_same(contrast, *naive_walk(fitted, words, depends, ("decision", target), how, against=other))
        assert f"{words.spec.class_name(target)} rather than {words.spec.class_name(other)}" in to_text(contrast)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.data())
def test_graphs_of_words_and_locations_equal_loops(seed, data):
    depends, fitted, words = random_case(seed)
    estimator = InferenceGraph(2).fit(fitted)
    how = dict.fromkeys(fitted.layers, 2), 1.0
    layer = data.draw(st.sampled_from(fitted.layers))
    maps = words.words[layer]
    i, j = data.draw(st.tuples(*(st.integers(0, n - 1) for n in maps.shape[1:])))
    word = int(maps[0, i, j])
    graph = estimator.explain_together(words, (layer, word))
    assert_same(graph, *naive_walk(fitted, words, depends, (layer, word), how))
    assert graph.graph["root"] == words.vocabulary.key(layer, word)
    graph = estimator.explain(words[:1], (layer, i, j))[0]
    assert_same(graph, *naive_walk(fitted, words[:1], depends, (layer, word, i, j), how))
    root = graph.nodes[graph.graph["root"]]
    assert (root["row"], root["column"]) == (i, j)
    assert f"here at row {i}, column {j}" in to_text(graph)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_whole_fields_equal_loops(seed):
    """Asked for, or taken since no effective ones were measured; to the loops they are the effective ones."""
    depends, fitted, words = random_case(seed)
    as_effective, unmeasured = (
        [replace(part, spec=replace(part.spec, effective_fields=fields)) for part in (fitted, words)]
        for fields in (fitted.spec.receptive_fields, {})
    )
    how = dict.fromkeys(fitted.layers, 2), 1.0
    target = "decision", int(words.decisions[0])
    chosen, scores, edges = naive_walk(as_effective[0], as_effective[1][0], depends, target, how)
    for estimator, part in [
        (InferenceGraph(2, fields="whole").fit(fitted), words),
        (InferenceGraph(2).fit(unmeasured[0]), unmeasured[1]),
    ]:
        (graph,) = estimator.explain(part[:1])
        assert_same(graph, chosen, scores, edges)
        assert estimator.fields_ == "whole" or not fitted.spec.effective_fields
        for layer, maps in naive_surprise(as_effective[0], as_effective[1], depends, 1.0).items():
            np.testing.assert_allclose(surprise(estimator, part).maps[layer], maps, rtol=1e-5)
        for (tail, head), where in edge_maps(estimator, part[:1], graph).items():
            if graph.nodes[head]["layer"] != "decision":
                field = fitted.spec.receptive_fields[graph.nodes[head]["layer"], graph.nodes[tail]["layer"]]
                longest = [int((stop - start).max()) for start, stop in (field.rows, field.columns)]
                assert (np.array(where.shape) >= longest).all()


def test_branches_of_a_real_network():
    """Both branches explain the decision; neither explains the other."""
    maps = FeatureExtractor(Fork(), ["left", "right"]).fit_transform(torch.rand(9, 1, 7, 7))
    words = LayerDictionary(3, random_state=0).fit_transform(maps)
    estimator = InferenceGraph().fit(words)
    assert estimator.explained_by_ == {"decision": ("right", "left"), "right": (), "left": ()}
    assert set(estimator.transition_counts_) == {("decision", "right"), ("decision", "left")}


def test_layers_that_the_network_does_not_order_so_are_refused(words):
    spec = replace(words.spec, layers=words.layers[::-1])
    with pytest.raises(ValueError, match=r"order of the network, the lowest first: 'conv2' depends on 'conv1'"):
        InferenceGraph().fit(replace(words, spec=spec))
    spec = replace(words.spec, layers=("decision", "conv2", "conv3"))
    with pytest.raises(ValueError, match="A layer is called 'decision'"):
        InferenceGraph().fit(replace(words, spec=spec))
