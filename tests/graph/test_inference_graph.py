"""The estimator: counts, prediction, targets, errors, and the walk of explain."""

import itertools
import sys
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, to_text
from skgmmcnn.dictionary import Vocabulary, WordMaps
from skgmmcnn.features import NetworkSpec, ReceptiveField
from skgmmcnn.plot._edge_maps import edge_maps
from tests.graph.naive import naive_log_ratio, naive_walk, random_axis

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images

SIZES = {"low": (5, 6), "middle": (4, 4), "top": (2, 3)}
N_WORDS = {"low": 7, "middle": 6, "top": 5}


def random_words(seed, n_images=8, fingerprint="a", n_outputs=3, names=None):
    """Return word maps of three layers with windows of any size and place."""
    rng = np.random.default_rng(0)
    fields = {}
    for upper, lower in [("top", "middle"), ("middle", "low")]:
        axes = (random_axis(rng, u, v) for u, v in zip(SIZES[upper], SIZES[lower], strict=True))
        fields[upper, lower] = ReceptiveField(*axes, SIZES[lower])
    shapes = {layer: (2, *size) for layer, size in SIZES.items()}
    spec = NetworkSpec(tuple(SIZES), shapes, (1, 9, 9), fields, n_outputs, ("cat", "dog", "layer3")[:n_outputs])
    rng = np.random.default_rng(seed)
    return WordMaps(
        words={layer: rng.integers(0, N_WORDS[layer], (n_images, *size)) for layer, size in SIZES.items()},
        decisions=rng.integers(0, n_outputs, n_images),
        spec=spec,
        vocabulary=Vocabulary(N_WORDS, fingerprint, names=names or {}),
    )


def test_prediction_and_evidence_equal_a_naive_version(seed):
    fitted, words = random_words(seed, 30), random_words(seed + 1)
    estimator = InferenceGraph().fit(fitted)
    table = estimator.transition_counts_["decision", "top"].tolist()
    evidence = estimator.transform(words)
    for i, decision in enumerate(words.decisions):
        totals = [
            np.log2((fitted.decisions == c).mean())
            + sum(naive_log_ratio(table, c, t, estimator.smoothing) for t in words.words["top"][i].ravel())
            for c in range(3)
        ]
        assert estimator.predict(words)[i] == np.argmax(totals)
        depends = {"low": set(), "middle": {"low"}, "top": {"low", "middle"}}
        how = dict.fromkeys(SIZES, 3), estimator.smoothing
        _, scores, _ = naive_walk(fitted, words[i], depends, ("decision", int(decision)), how)
        expected = np.concatenate([scores[layer] for layer in SIZES])
        np.testing.assert_allclose(evidence[i], expected, atol=1e-9)
        assert len(estimator.get_feature_names_out()) == len(expected)
    agreement = (estimator.predict(words) == words.decisions).mean()
    assert estimator.score(words) == agreement
    names = np.array(["cat", "dog", "layer3"])
    assert estimator.score(words, names[words.decisions]) == agreement
    assert estimator.score(words, estimator.predict(words)) == 1


def test_class_without_images_is_never_predicted():
    fitted = random_words(0)
    seen = fitted[fitted.decisions != 1]
    assert 1 not in InferenceGraph().fit(seen).predict(random_words(3, 50))


def assert_equal_fits(first, second):
    np.testing.assert_array_equal(first.class_counts_, second.class_counts_)
    for name in ("transition_counts_", "log_ratios_"):
        tables = getattr(first, name), getattr(second, name)
        assert tables[0].keys() == tables[1].keys()
        for pair in tables[0]:
            np.testing.assert_array_equal(tables[0][pair], tables[1][pair])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(1, 11), max_size=3))
def test_counts_add_up_under_any_split(seed, cuts):
    words = random_words(seed, 12)
    graph = InferenceGraph()
    whole, stepwise = clone(graph).fit(words), clone(graph)
    parts = np.split(np.arange(12), sorted(set(cuts)))
    for rows in parts:
        stepwise.partial_fit(words[rows])
    assert_equal_fits(whole, stepwise)
    first, *others = (clone(graph).partial_fit(words[rows]) for rows in reversed(parts))
    assert_equal_fits(whole, first.merge(*others))
    bare, unordered = InferenceGraph().fit(words), InferenceGraph()
    for rows in np.split(np.random.default_rng(seed).permutation(12), sorted(set(cuts))):
        unordered.partial_fit(words[rows])
    assert_equal_fits(bare, unordered)
    assert whole.fit(words[:3]).class_counts_.sum() == 3


def test_fields_stay_those_that_were_counted(words):
    estimator = InferenceGraph().fit(words[:100])
    assert estimator.fields_ == "effective"
    whole = InferenceGraph(fields="whole").fit(words[:100])
    pair = "conv3", "conv2"
    assert whole.transition_counts_[pair].sum() > estimator.transition_counts_[pair].sum()
    np.testing.assert_array_equal(
        whole.transition_counts_["decision", "conv3"], estimator.transition_counts_["decision", "conv3"]
    )
    before = estimator.transform(words[:3])
    estimator.set_params(fields="whole")
    np.testing.assert_array_equal(estimator.transform(words[:3]), before)
    with pytest.raises(ValueError, match="this cannot change in partial_fit"):
        estimator.partial_fit(words[100:])
    with pytest.raises(ValueError, match="do not add up: here effective ones, there whole ones"):
        estimator.merge(whole)
    np.testing.assert_array_equal(estimator.transform(words[:3]), before)
    unmeasured = replace(words, spec=replace(words.spec, effective_fields={}))
    np.testing.assert_array_equal(estimator.transform(unmeasured[:3]), before)
    elsewhere = replace(words, spec=replace(words.spec, effective_fields=words.spec.receptive_fields))
    np.testing.assert_array_equal(estimator.transform(elsewhere[:3]), before)
    with pytest.raises(ValueError, match="do not add up: here effective ones, there effective ones, or others"):
        estimator.merge(InferenceGraph().fit(elsewhere))
    small = replace(words, words={**words.words, "conv3": words.words["conv3"][:, :2]})
    with pytest.raises(ValueError, match=r"measured in maps of sizes .*\(4, 4\).*; these have .*\(2, 4\)"):
        estimator.explain(small[:1])
    assert InferenceGraph().fit(unmeasured).fields_ == "whole"
    np.testing.assert_array_equal(whole.transform(unmeasured[:3]), whole.transform(words[:3]))


def test_bits_per_location(graph, words):
    """A word of the decision gives as many bits at each location as its edge says."""
    (explained,) = graph.explain(words[:1])
    each = graph.transform(words[:1])[0] / np.maximum(words[:1].histogram()[0], 1)
    each = dict(zip(graph.get_feature_names_out(), each, strict=True))
    for key, node in list(explained.nodes.items())[1:]:
        assert each[key] == pytest.approx(node["score"] / node["count"])
        if node["layer"] == "conv3":
            assert each[key] == pytest.approx(explained.edges[key, explained.graph["root"]]["log_ratio"])


def test_graph_is_plain_and_travels(graph, words, tmp_path):
    explained = graph.explain(words[:2])[1]
    assert nx.is_directed_acyclic_graph(explained)
    for attributes in [*dict(explained.nodes(data=True)).values(), *(edge for *_, edge in explained.edges(data=True))]:
        assert {type(value) for value in attributes.values()} <= {int, float, str}
        assert not {"label", "name", "id", "value"} & set(attributes)
    for edge in explained.edges(data="frequency"):
        assert 0 < edge[2] <= 1
    nx.write_graphml(explained, tmp_path / "graph.graphml")
    assert nx.read_graphml(tmp_path / "graph.graphml").nodes.keys() == explained.nodes.keys()


def test_text_names_everything(graph, words):
    named = random_words(1, names={("top", 3): "whisker"})
    text = to_text(InferenceGraph(n_nodes=5).fit(named).explain_class(named, "layer3"))
    assert text.startswith("decision_2 layer3: the decision for")
    assert "top_w003 whisker: " in text
    assert f"learnt from {(named.decisions == 2).sum()} images" in text
    explained = graph.explain(words[:1])[0]
    assert all(key in to_text(explained) for key in explained)


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
        chosen = [node["word"] for _, node in graph.nodes(data=True) if node["layer"] == "1"]
        ours = labels == (name == "cross")
        best = words.words["1"] == chosen[0]
        centre = np.zeros_like(best)
        centre[np.arange(len(images)), places[:, 0], places[:, 1]] = True
        assert best[ours].any()
        assert not best[~ours].any()
        assert (best & centre).sum() > 0.95 * best.sum()
        assert (np.isin(words.words["1"], chosen) & centre)[ours].any((1, 2)).mean() > 0.95
    assert estimator.score(words) > 0.95


def test_right_and_wrong_decisions(graph, words, digits):
    labels = digits.labels[: len(words)]
    label = int(words.decisions[0])
    right = (words.decisions == label) & (labels == label)
    explained = graph.explain_together(words[right], label)
    assert explained.graph["n_images"] == right.sum()
    assert to_text(graph.explain_class(words[right], label)) == to_text(explained)


def test_edge_maps_equal_loops(words):
    """The share of the fields of the upper word that show the lower one, place by place in a whole field."""
    graph = InferenceGraph(fields="whole", evidence="counts").fit(words)
    some = words[:20]
    explained = graph.explain_together(some, int(some.decisions[0]))
    maps = edge_maps(graph, some, explained)
    assert maps.keys() == set(explained.edges)
    for (tail, head), actual in maps.items():
        lower, upper = explained.nodes[tail], explained.nodes[head]
        shown = some.words[lower["layer"]] == lower["word"]
        if upper["layer"] == "decision":
            np.testing.assert_allclose(actual, shown.mean(0))
            continue
        step, size, before = {"conv3": (2, 6, 2), "conv2": (1, 3, 1)}[upper["layer"]]  # of 3, behind pooling and not
        padded = np.pad(shown.astype(float), ((0, 0), (4, 4), (4, 4)), constant_values=np.nan)
        windows = [
            padded[n, 4 - before + step * i :, 4 - before + step * j :][:size, :size]
            for n, i, j in zip(*np.nonzero(some.words[upper["layer"]] == upper["word"]), strict=True)
        ]
        there = np.isfinite(windows).sum(0)
        np.testing.assert_allclose(actual, np.where(there, np.nansum(windows, 0) / np.maximum(there, 1), np.nan))
        assert explained.edges[tail, head]["count"] == np.nansum(windows)


def test_words_of_another_dictionary_are_refused(graph, words):
    other = random_words(0)
    first = InferenceGraph().fit(words[:50])
    before = first.class_counts_
    for call in (
        lambda: graph.explain(other),
        lambda: clone(graph).fit(words).partial_fit(other),
        lambda: first.merge(InferenceGraph().fit(other)),
    ):
        with pytest.raises(ValueError, match="come from another dictionary"):
            call()
    assert first.class_counts_ is before


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [(np.zeros((3, 4)), TypeError, r"reads WordMaps.*got a ndarray"), (random_words(0)[[]], ValueError, "no images")],
)
def test_other_input_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        InferenceGraph().fit(X)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (10, r"There is no|there is no output 10"),
        ("ten", "no class 'ten'"),
        (3, r"decides for class '3' \(3\) in none of"),
    ],
)
def test_classes_without_images_are_named(graph, words, target, message):
    with pytest.raises(ValueError, match=message):
        graph.explain_class(words[words.decisions != 3], target)


def test_unfitted():
    with pytest.raises(NotFittedError):
        InferenceGraph().explain(random_words(0))


def test_labels_of_other_images_are_refused(graph, words):
    with pytest.raises(ValueError, match="one label per image"):
        graph.score(words, [1, 2])


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
    ],
)
def test_bad_targets_are_named(graph, words, call, target, message):
    with pytest.raises(ValueError, match=message):
        getattr(graph, call)(words[:1], target)


def test_targets_that_images_do_not_share(graph, words):
    with pytest.raises(ValueError, match="belongs to one image"):
        graph.explain_together(words, ("conv3", 0, 0))
    absent = int(np.setdiff1d(np.arange(16), words.words["conv3"][0])[0])
    with pytest.raises(ValueError, match=f"None of these 1 images shows the word conv3_w{absent:03}"):
        graph.explain_together(words[:1], ("conv3", absent))
    with pytest.raises(ValueError, match="no images"):
        graph.explain_together(words[[]], 3)


@pytest.mark.parametrize("evidence", ["influence", "counts"])
def test_a_word_without_a_layer_below_is_explained_in_all_images(words, evidence):
    explained = InferenceGraph(evidence=evidence).fit(words).explain_together(words, ("conv1", 1))
    assert list(explained) == ["conv1_w001"]
    assert explained.graph["n_images"] == len(words)
    assert explained.nodes["conv1_w001"]["count"] == (words.words["conv1"] == 1).sum()


def test_a_contrast_for_each_image(graph, words):
    others = (words.decisions[:3] + np.arange(1, 4)) % 10
    together = graph.explain(words[:3], contrast=others)
    for i, actual in enumerate(together):
        (alone,) = graph.explain(words[i : i + 1], contrast=words.spec.class_name(others[i]))
        assert nx.utils.graphs_equal(actual, alone)


def test_bad_contrasts_are_named(graph, words):
    with pytest.raises(ValueError, match="one class, or one for each of 3 images; got 2"):
        graph.explain(words[:3], contrast=[1, 2])
    with pytest.raises(ValueError, match="is for decisions"):
        graph.explain(words[:1], ("conv3", 0), contrast=1)
    with pytest.raises(ValueError, match=r"the class that is explained.*words\[words.decisions != \d\]"):
        graph.explain(words[:1], contrast=int(words.decisions[0]))
    few = clone(graph).fit(words[words.decisions != 5])
    with pytest.raises(ValueError, match="No fitted image has the decision '5'"):
        few.explain(words[:1], 1, contrast=5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_nodes": {"conv3": 3}}, r"n_nodes names layers \['conv3'\]; the layers are"),
        ({"n_nodes": {"conv1": 1, "conv2": 0, "conv3": 3}}, "at least one word of every layer"),
        ({"smoothing": 0}, "'smoothing' parameter"),
        ({"fields": "narrow"}, "'fields' parameter of InferenceGraph"),
        ({"n_steps": 0}, "'n_steps' parameter"),
        ({"evidence": "causal"}, "'evidence' parameter"),
        ({"n_nodes": "enough", "evidence": "counts"}, "never does; give a number"),
    ],
)
def test_bad_settings_are_named(words, parameters, message):
    with pytest.raises(ValueError, match=message):
        InferenceGraph(**parameters).fit(words)


def test_smoothing_is_that_of_the_counts(words):
    fitted = InferenceGraph(evidence="counts").fit(words)
    expected = [dict(graph.edges) for graph in fitted.explain(words[:3])]
    fitted.set_params(smoothing=100.0)
    assert [dict(graph.edges) for graph in fitted.explain(words[:3])] == expected


def test_evidence_for_each_output_is_that_of_its_locations(graph, words):
    """Plain loops over the locations of the top layer."""
    evidence = graph.decision_function(words[:5])
    shares = graph.class_counts_ / graph.class_counts_.sum()
    for image, output in itertools.product(range(5), range(10)):
        ratios = [graph.log_ratios_["decision", "conv3"][output, word] for word in words.words["conv3"][image].flat]
        assert evidence[image, output] == pytest.approx(np.log2(shares[output]) + sum(ratios))
    np.testing.assert_array_equal(evidence.argmax(1), graph.predict(words[:5]))


@pytest.mark.parametrize("evidence", ["influence", "counts"])
@pytest.mark.parametrize("by", ["image", "class"])
def test_select_returns_the_words_of_the_graphs(words, evidence, by):
    estimator, some = InferenceGraph(evidence=evidence, random_state=0).fit(words), words[:40]
    kept = estimator.select(some, by=by)
    for image, graph in enumerate(estimator.explain(some)):
        explained = graph if by == "image" else estimator.explain_class(some, some.decisions[image])
        actual = {(layer, int(word)) for layer in kept for word in np.flatnonzero(kept[layer][image])}
        assert actual == {(node["layer"], node["word"]) for node in list(explained.nodes.values())[1:]}
    with pytest.raises(ValueError, match="'image' or 'class'"):
        estimator.select(some, by="all")


@pytest.mark.parametrize("evidence", ["influence", "counts"])
def test_a_call_of_explain_visits_each_file_once(words, evidence):
    """In the order of the architecture page."""
    estimator, visited = InferenceGraph(evidence=evidence).fit(words), []

    def note(frame, event, arg):
        folder, _, name = frame.f_code.co_filename.rpartition("/")
        if event == "call" and folder.endswith("skgmmcnn/graph") and visited[-1:] != [name]:
            visited.append(name)

    sys.setprofile(note)
    try:
        estimator.explain(words[:1])
    finally:
        sys.setprofile(None)
    kinds = {"influence": ["_influence.py", "_tracing.py", "_summary.py"], "counts": ["_counts.py"]}
    first = ["_inference_graph.py", "_targets.py", "_hierarchy.py", "_evidence.py"]
    assert visited == [*first, *kinds[evidence], "_building.py"]
