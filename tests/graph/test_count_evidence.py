"""Evidence of counts against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, to_text
from skgmmcnn.dictionary import Influence
from skgmmcnn.graph import surprise
from skgmmcnn.plot._edge_maps import edge_maps
from tests.graph.naive import naive_surprise, naive_walk
from tests.graph.random_words import random_case

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images
SEEDS = st.integers(0, 2**31)


def place(key):
    layer, word = key.rsplit("_", 1)
    return layer, int(word.lstrip("w"))


def assert_same(graph, selected, scores, edges):
    actual = {layer: [] for layer in selected}
    for node in list(graph.nodes.values()):
        actual[node["layer"]].append(node["word"])
    assert actual == selected
    for node in list(graph.nodes.values())[1:]:
        assert node["score"] == pytest.approx(scores[node["layer"]][node["word"]], abs=1e-9)
    assert {(place(tail), place(head)) for tail, head in graph.edges} == set(edges)
    for tail, head, edge in graph.edges(data=True):
        count, ratio, frequency = edges[place(tail), place(head)]
        assert edge["count"] == count
        assert edge["log_ratio"] == pytest.approx(ratio)
        assert edge["frequency"] == pytest.approx(frequency)
        assert edge["contribution"] == pytest.approx(count * ratio)


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 4), st.sampled_from([0.1, 1.0, 20.0]), st.data())
def test_graphs_equal_loops(seed, n_nodes, smoothing, data):
    depends, fitted, words = random_case(seed)
    n_nodes = {layer: max(1, n_nodes - i) for i, layer in enumerate(fitted.layers)}
    estimator = InferenceGraph(n_nodes, smoothing=smoothing).fit(fitted)
    parameters = n_nodes, smoothing
    for image, graph in enumerate(estimator.explain(words)):
        start = "decision", int(words.decisions[image])
        assert_same(graph, *naive_walk(fitted, words[image], depends, start, parameters))
    target, other = data.draw(st.permutations(range(3)))[:2]
    assert_same(
        estimator.explain(words, target)[0], *naive_walk(fitted, words[0], depends, ("decision", target), parameters)
    )
    together = estimator.explain_together(words, target)
    assert_same(together, *naive_walk(fitted, words, depends, ("decision", target), parameters))
    if {target, other} <= set(fitted.decisions.tolist()):
        contrast = estimator.explain_together(words, target, contrast=other)
        assert_same(contrast, *naive_walk(fitted, words, depends, ("decision", target), parameters, against=other))
        assert f"{words.spec.class_name(target)} rather than {words.spec.class_name(other)}" in to_text(contrast)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.data())
def test_graphs_of_words_and_locations_equal_loops(seed, data):
    depends, fitted, words = random_case(seed)
    estimator = InferenceGraph(2).fit(fitted)
    parameters = dict.fromkeys(fitted.layers, 2), 1.0
    layer = data.draw(st.sampled_from(fitted.layers))
    maps = words.words[layer]
    i, j = data.draw(st.tuples(*(st.integers(0, n - 1) for n in maps.shape[1:])))
    word = int(maps[0, i, j])
    graph = estimator.explain_together(words, (layer, word))
    assert_same(graph, *naive_walk(fitted, words, depends, (layer, word), parameters))
    assert graph.graph["root"] == words.vocabulary.key(layer, word)
    graph = estimator.explain(words[:1], (layer, i, j))[0]
    assert_same(graph, *naive_walk(fitted, words[:1], depends, (layer, word, i, j), parameters))
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
    parameters = dict.fromkeys(fitted.layers, 2), 1.0
    target = "decision", int(words.decisions[0])
    selected, scores, edges = naive_walk(as_effective[0], as_effective[1][0], depends, target, parameters)
    for estimator, part in [
        (InferenceGraph(2, fields="whole").fit(fitted), words),
        (InferenceGraph(2).fit(unmeasured[0]), unmeasured[1]),
    ]:
        (graph,) = estimator.explain(part[:1])
        assert_same(graph, selected, scores, edges)
        assert estimator.fields_ == "whole" or not fitted.spec.effective_fields
        for layer, maps in naive_surprise(as_effective[0], as_effective[1], depends, 1.0).items():
            np.testing.assert_allclose(surprise(estimator, part).maps[layer], maps, rtol=1e-5)
        for (tail, head), where in edge_maps(estimator, part[:1], graph).items():
            if graph.nodes[head]["layer"] != "decision":
                field = fitted.spec.receptive_fields[graph.nodes[head]["layer"], graph.nodes[tail]["layer"]]
                longest = [int((stop - start).max()) for start, stop in (field.rows, field.columns)]
                assert (np.array(where.shape) >= longest).all()


def test_bits_per_location(graph, words):
    """A word of the decision gives as many bits at each location as its edge says."""
    (explained,) = graph.explain(words[:1])
    each = graph.transform(words[:1])[0] / np.maximum(words[:1].histogram()[0], 1)
    each = dict(zip(graph.get_feature_names_out(), each, strict=True))
    for key, node in list(explained.nodes.items())[1:]:
        assert each[key] == pytest.approx(node["score"] / node["count"])
        if node["layer"] == "conv3":
            assert each[key] == pytest.approx(explained.edges[key, explained.graph["root"]]["log_ratio"])


def planted(n_images=240, seed=0):
    """Noise with a cross at a random place (class 1) or a bar (class 0), and a network that answers by the cross."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.2, (n_images, 12, 12)).astype(np.float32)
    cross, bar = np.float32([[1, 0, 1], [0, 1, 0], [1, 0, 1]]), np.float32([[0, 0, 0], [1, 1, 1], [0, 0, 0]])
    places = rng.integers(1, 9, (n_images, 2))
    labels = np.arange(n_images) % 2
    for image, (row, column), label in zip(images, places, labels, strict=True):
        image[row : row + 3, column : column + 3] += cross if label else bar
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 1)
    )
    with torch.no_grad():
        for channel, (pattern, most) in enumerate([(cross, 5), (bar, 3)]):
            network[0].weight[channel] = torch.from_numpy(pattern * 2 - 1)
            network[0].bias[channel] = 1.2 - most
        network[4].weight.copy_(torch.tensor([[4.0, -4.0]]))
        network[4].bias.fill_(0)
    return network, images, places + 1, labels


def test_planted_pattern_is_found():
    """The network decides by a cross; the words that speak for it must sit on the crosses and nowhere else."""
    network, images, places, labels = planted()
    maps = FeatureExtractor(network, ["1"], class_names=["bar", "cross"]).fit_transform(images)
    words = LayerDictionary(6, random_state=0).fit_transform(maps)
    np.testing.assert_array_equal(words.decisions, labels)
    estimator = InferenceGraph(n_nodes=5).fit(words)
    for name in ("cross", "bar"):
        graph = estimator.explain_class(words, name)
        selected = [node["word"] for _, node in graph.nodes(data=True) if node["layer"] == "1"]
        ours = labels == (name == "cross")
        best = words.words["1"] == selected[0]
        centre = np.zeros_like(best)
        centre[np.arange(len(images)), places[:, 0], places[:, 1]] = True
        assert best[ours].any()
        assert not best[~ours].any()
        assert (best & centre).sum() > 0.95 * best.sum()
        assert (np.isin(words.words["1"], selected) & centre)[ours].any((1, 2)).mean() > 0.95
    assert estimator.score(words) > 0.95


def test_evidence_counts_never_runs_the_network(words, graph, monkeypatch):
    def refuse(*args):
        raise AssertionError("the network ran")

    monkeypatch.setattr(Influence, "rerun", refuse)
    graph.explain(words[:2])
    InferenceGraph(evidence="influence").fit(words).predict(words)


def test_counts_warn_where_they_know_little(words):
    rows = np.concatenate([np.flatnonzero(words.decisions != 3), np.flatnonzero(words.decisions == 3)[:4]])
    rare = words[words.decisions == 3]
    counts = InferenceGraph(evidence="counts").fit(words[rows])
    for call in (lambda: counts.explain(rare[:2]), lambda: counts.explain_class(rare, 3)):
        with pytest.warns(UserWarning, match=r"fewer than 10 fitted images: '3' \(4\)"):
            call()
    counts.explain(words[words.decisions != 3][:3])
    InferenceGraph(evidence="influence").fit(words[rows]).explain(rare[:2])


def test_counts_warn_of_contrasts_that_they_deny(words, graph):
    one = words[:1]
    decided = int(one.decisions[0])
    with pytest.warns(UserWarning, match="speak against 1 of 1 contrasts"):
        graph.explain(one, (decided + 1) % 10, contrast=decided)
