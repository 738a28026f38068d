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
from tests.features.test_receptive_field import Fork
from tests.graph.test_counting import naive_count, naive_log_ratio, random_axis

SIZES = {"low": (5, 6), "middle": (4, 4), "top": (2, 3)}
N_WORDS = {"low": 7, "middle": 6, "top": 5}


def random_words(seed, n_images=8, fingerprint="a", n_outputs=3, names=None):
    """Word maps of three layers with windows of any size and place."""
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


def naive_graph(fitted, words, target, n_nodes, smoothing):
    """Return the selected words by layer and the edges, written from the formulas."""
    tables = {("decision", "top"): np.zeros((3, 5), int)}
    for decision, top in zip(fitted.decisions, fitted.words["top"], strict=True):
        for word in top.ravel():
            tables["decision", "top"][decision, word] += 1
    for upper, lower in [("top", "middle"), ("middle", "low")]:
        tables[upper, lower] = naive_count(
            fitted.words[upper],
            fitted.words[lower],
            fitted.spec.receptive_fields[upper, lower],
            *map(N_WORDS.get, (upper, lower)),
        )
    chosen, edges, upper, above = {}, {}, "decision", [target]
    for lower in ("top", "middle", "low"):
        counts = np.zeros((max(3, *N_WORDS.values()), N_WORDS[lower]), int)
        if upper == "decision":
            counts[target] = np.bincount(words.words[lower].ravel(), minlength=N_WORDS[lower])
        else:
            field = words.spec.receptive_fields[upper, lower]
            counts[: N_WORDS[upper]] = naive_count(
                words.words[upper], words.words[lower], field, N_WORDS[upper], N_WORDS[lower]
            )
        table = tables[upper, lower].tolist()
        ratio = {(s, t): naive_log_ratio(table, s, t, smoothing) for s in above for t in range(N_WORDS[lower])}
        score = {t: sum(counts[s, t] * ratio[s, t] for s in above) for t in range(N_WORDS[lower])}
        best = sorted((t for t in score if score[t] > 1e-9), key=lambda t: (-round(score[t], 9), t))[:n_nodes]
        chosen[lower] = [(t, score[t]) for t in best]
        for s in above:
            for t in best:
                if ratio[s, t] > 1e-9 and counts[s, t]:
                    edges[(lower, t), (upper, s)] = counts[s, t], ratio[s, t], counts[s, t] / counts[s].sum()
        upper, above = lower, best
    return chosen, edges


def assert_equal_graphs(graph, chosen, edges):
    words = {layer: [] for layer in SIZES}
    for _, node in list(graph.nodes(data=True))[1:]:
        words[node["layer"]].append((node["word"], node["score"]))
    for layer in SIZES:
        assert [word for word, _ in words[layer]] == [word for word, _ in chosen[layer]]
        np.testing.assert_allclose([s for _, s in words[layer]], [s for _, s in chosen[layer]], rtol=1e-9)
    place = {key: (node["layer"], node["word"]) for key, node in graph.nodes(data=True)}
    found = {(place[tail], place[head]): edge for tail, head, edge in graph.edges(data=True)}
    assert set(found) == set(edges)
    for key, (count, ratio, frequency) in edges.items():
        assert found[key]["count"] == count
        assert found[key]["log_ratio"] == pytest.approx(ratio)
        assert found[key]["frequency"] == pytest.approx(frequency)
        assert found[key]["contribution"] == pytest.approx(ratio * count)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), n_nodes=st.integers(1, 4), smoothing=st.sampled_from([0.1, 1.0, 20.0]))
def test_graphs_equal_a_naive_version(seed, n_nodes, smoothing):
    fitted, words = random_words(seed), random_words(seed + 1, 3)
    estimator = InferenceGraph(n_nodes=n_nodes, smoothing=smoothing).fit(fitted)
    for i, graph in enumerate(estimator.explain(words)):
        assert_equal_graphs(graph, *naive_graph(fitted, words[i], int(words.decisions[i]), n_nodes, smoothing))
    label = int(words.decisions[0])
    of_class = words[words.decisions == label]
    graph = estimator.explain_class(words, label)
    assert_equal_graphs(graph, *naive_graph(fitted, of_class, label, n_nodes, smoothing))
    assert graph.graph["n_images"] == len(of_class)


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
        chosen, _ = naive_graph(fitted, words[i], int(decision), 3, estimator.smoothing)
        named = dict(zip(estimator.get_feature_names_out(), evidence[i], strict=True))
        for layer, selected in chosen.items():
            for word, score in selected:
                assert named[f"{layer}_w{word:03d}"] == pytest.approx(score)
    agreement = (estimator.predict(words) == words.decisions).mean()
    assert estimator.score(words) == agreement
    names = np.array(["cat", "dog", "layer3"])
    assert estimator.score(words, names[words.decisions]) == agreement
    assert estimator.score(words, estimator.predict(words)) == 1


def test_class_without_images_is_never_predicted():
    fitted = random_words(0)
    seen = fitted[fitted.decisions != 1]
    assert 1 not in InferenceGraph().fit(seen).predict(random_words(3, 50))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(1, 11), max_size=3))
def test_counts_add_up_under_any_split(seed, cuts):
    words = random_words(seed, 12)
    whole = InferenceGraph().fit(words)
    parts = InferenceGraph()
    for rows in np.split(np.random.default_rng(seed).permutation(12), sorted(set(cuts))):
        parts.partial_fit(words[rows])
    for pair, counts in whole.transition_counts_.items():
        np.testing.assert_array_equal(parts.transition_counts_[pair], counts)
        np.testing.assert_array_equal(parts.log_ratios_[pair], whole.log_ratios_[pair])
    np.testing.assert_array_equal(parts.class_counts_, whole.class_counts_)
    assert whole.fit(words[:3]).class_counts_.sum() == 3


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


def test_bad_input_is_named(graph, words):
    other = random_words(0)
    with pytest.raises(ValueError, match="come from another dictionary"):
        graph.explain(other)
    with pytest.raises(ValueError, match="come from another dictionary"):
        clone(graph).fit(words).partial_fit(other)
    with pytest.raises(TypeError, match=r"reads WordMaps.*got a ndarray"):
        InferenceGraph().fit(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="no images"):
        InferenceGraph().fit(words[[]])
    with pytest.raises(ValueError, match=r"There is no|there is no output 10"):
        graph.explain_class(words, 10)
    with pytest.raises(ValueError, match="no class 'ten'"):
        graph.explain_class(words, "ten")
    with pytest.raises(ValueError, match=r"decides for class '3' \(3\) in none of"):
        graph.explain_class(words[words.decisions != 3], 3)
    with pytest.raises(NotFittedError):
        InferenceGraph().explain(words)
    with pytest.raises(ValueError, match="'smoothing' parameter"):
        InferenceGraph(smoothing=0).fit(words)
    with pytest.raises(ValueError, match="one label per image"):
        graph.score(words, [1, 2])


def test_layers_in_parallel_branches_are_refused():
    maps = FeatureExtractor(Fork(), ["left", "right"]).fit_transform(torch.rand(9, 1, 7, 7))
    with pytest.raises(ValueError, match="'right' does not depend on layer 'left'"):
        InferenceGraph().fit(LayerDictionary(3, random_state=0).fit_transform(maps))
