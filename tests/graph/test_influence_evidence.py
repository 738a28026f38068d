"""Graphs of influence against passes of the whole network with hooks."""

import numpy as np
import pytest
import torch
from torch import nn

from skgmmcnn import InferenceGraph
from tests.networks import (
    BRANCHES,
    NETWORK,
    Branching,
    Net,
    NoGradient,
    Tuple,
    baseline,
    images_of,
    log_odds,
    run_edited,
    without_network,
    words_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images


def without(words, layer, image, word):
    mask = torch.from_numpy(words.words[layer][image].astype(int) == word)
    return lambda maps: torch.where(mask, baseline(words, layer), maps)


@pytest.mark.parametrize("contrast", [None, 1])
def test_effects_of_nodes_equal_a_loop_with_hooks(branched, contrast):
    images = images_of()
    some = branched[:6]
    targets = some.decisions if contrast is None else np.full(6, 2)
    graphs = (
        InferenceGraph(n_nodes=2, n_against=1)
        .fit(branched)
        .explain(some, None if contrast is None else 2, contrast=contrast)
    )
    n_nodes = 0
    for i, graph in enumerate(graphs):
        full, _ = run_edited(NETWORK, images[i : i + 1], {})
        m = log_odds(full, targets[i], contrast)
        assert graph.graph["margin"] == pytest.approx(float(m), abs=1e-4)
        assert graph.graph["probability"] == pytest.approx(float(full.softmax(1)[0, targets[i]]), abs=1e-5)
        assert graph.graph["decision"] == int(full.argmax())
        for node in (node for _, node in graph.nodes(data=True) if node["layer"] != "decision"):
            outputs, _ = run_edited(
                NETWORK, images[i : i + 1], {node["layer"]: without(some, node["layer"], i, node["word"])}
            )
            assert node["effect"] == pytest.approx(float(m - log_odds(outputs, targets[i], contrast)), abs=1e-4)
            assert node["probability_without"] == pytest.approx(float(outputs.softmax(1)[0, targets[i]]), abs=1e-5)
            assert node["decision_without"] == int(outputs.argmax())
            assert node["effect"] * node["influence"] > 0
            n_nodes += 1
    assert n_nodes > 40


def test_effects_of_edges_equal_path_patching_with_hooks(branched):
    images = images_of()
    some = branched[:4]
    n_edges = 0
    for i, graph in enumerate(InferenceGraph(n_nodes=2).fit(branched).explain(some)):
        one, target = images[i : i + 1], some.decisions[i]
        m = float(log_odds(run_edited(NETWORK, one, {})[0], target))
        clean = run_edited(NETWORK, one, {layer: lambda maps: maps for layer in BRANCHES})[1]
        for tail, head, edge in graph.edges(data=True):
            lower, upper = graph.nodes[tail], graph.nodes[head]
            if upper["layer"] == "decision":
                assert edge["effect"] == lower["effect"]
                assert edge["flow"] == lower["influence"]
                continue
            between = BRANCHES[BRANCHES.index(lower["layer"]) + 1 : BRANCHES.index(upper["layer"])]
            edits = {lower["layer"]: without(some, lower["layer"], i, lower["word"])}
            edits |= {layer: lambda _, held=clean[layer]: held for layer in between}
            patched = run_edited(NETWORK, one, edits | {upper["layer"]: lambda maps: maps})[1][upper["layer"]]
            at = torch.from_numpy(some.words[upper["layer"]][i].astype(int) == upper["word"])
            edits = {upper["layer"]: lambda maps, at=at, patched=patched: torch.where(at, patched, maps)}
            outputs, _ = run_edited(NETWORK, one, edits)
            assert edge["effect"] == pytest.approx(m - float(log_odds(outputs, target)), abs=1e-4)
            assert edge["effect"] * edge["flow"] > 0
            assert abs(edge["effect"]) > 0.02 * abs(upper["influence"])
            n_edges += 1
    assert n_edges > 20


@pytest.mark.parametrize("target", [("top", 2, 1), ("top", 0)])
def test_words_are_explained_by_their_log_odds(branched, target):
    images = images_of()
    some = branched[:8]
    graphs = InferenceGraph(n_nodes=2).fit(branched).explain(some, target)
    mixture = some.influence.mixtures["top"]
    n_effects = 0
    for i, graph in enumerate(graphs):
        labels = some.words["top"][i].astype(int)
        word = labels[2, 1] if len(target) == 3 else 0
        at = np.zeros(labels.shape, bool) if len(target) == 3 else labels == 0
        if len(target) == 3:
            at[2, 1] = True

        def measured(edits, i=i, at=at, word=word):
            values = run_edited(NETWORK, images[i : i + 1], {"top": lambda maps: maps, **edits})[1]["top"][0]
            rows = values[:, torch.from_numpy(at)].T.double()
            variances = torch.from_numpy(mixture.covariances_)
            means, weights = torch.from_numpy(mixture.means_), torch.from_numpy(mixture.weights_)
            log_p = -0.5 * (((rows[:, None] - means) ** 2) / variances + variances.log()).sum(2) + weights.log()
            log_p = log_p.log_softmax(1)
            others = log_p[:, [k for k in range(5) if k != word]].logsumexp(1)
            return float((log_p[:, word] - others).mean()) if len(rows) else 0.0

        m = measured({})
        root = graph.nodes[graph.graph["root"]]
        assert root["margin"] == pytest.approx(m, rel=1e-3, abs=1e-3)
        assert root["word"] == word
        assert all(node["layer"] != "decision" for _, node in graph.nodes(data=True))
        for key, node in graph.nodes(data=True):
            if key != graph.graph["root"]:
                fall = m - measured({node["layer"]: without(some, node["layer"], i, node["word"])})
                assert node["effect"] == pytest.approx(fall, rel=1e-2, abs=2e-2)
                n_effects += 1
    assert n_effects > 5


def test_the_most_salient_words_are_tried_first(branched):
    """Influence over the square root of the number of locations ranks words, not influence itself."""
    some = branched[:10]
    graph, every = (InferenceGraph(n_nodes=n).fit(branched) for n in (2, 5))
    totals, names = graph.transform(some), list(graph.get_feature_names_out())
    for i, (actual, whole) in enumerate(zip(graph.explain(some), every.explain(some), strict=True)):
        for layer in BRANCHES:
            keys = [some.vocabulary.key(layer, word) for word in range(5)]
            counts = np.bincount(some.words[layer][i].ravel(), minlength=5)
            saliences = totals[i, [names.index(key) for key in keys]] / np.sqrt(np.maximum(counts, 1))
            ranked = [keys[word] for word in np.argsort(-saliences, kind="stable") if saliences[word] > 1e-6]
            kept = {key for key, node in actual.nodes.items() if node["layer"] == layer}
            assert kept == set([key for key in ranked if key in whole][:2])


def test_enough_is_the_smallest_sufficient_number(branched):
    images = images_of()
    some = branched[:10]
    graph = InferenceGraph(n_nodes="enough").fit(branched)
    totals, names = graph.transform(some), list(graph.get_feature_names_out())
    for i, actual in enumerate(graph.explain(some)):

        def decides(k, i=i):
            edits = {}
            for layer in BRANCHES:
                columns = [names.index(some.vocabulary.key(layer, word)) for word in range(5)]
                own = totals[i, columns]
                best = [word for word in np.argsort(-own, kind="stable")[:k] if own[word] > 1e-6]
                stays = torch.from_numpy(np.isin(some.words[layer][i], best))
                edits[layer] = lambda maps, stays=stays, layer=layer: torch.where(stays, maps, baseline(some, layer))
            return int(run_edited(NETWORK, images[i : i + 1], edits)[0].argmax())

        expected = next((k for k in range(1, 21) if decides(k) == some.decisions[i]), None)
        assert actual.graph.get("enough") == expected
        assert actual.graph["held"] == (expected is not None)


def test_transform_sums_influence_by_word(branched):
    graph = InferenceGraph().fit(branched)
    assert graph.evidence_ == "influence"
    actual, maps = graph.transform(branched), branched.influence.of_classes().maps
    columns = list(graph.get_feature_names_out())
    for layer in BRANCHES:
        for word in range(5):
            expected = (maps[layer] * (branched.words[layer] == word)).sum((1, 2))
            np.testing.assert_allclose(
                actual[:, columns.index(branched.vocabulary.key(layer, word))], expected, atol=1e-9
            )


def test_one_call_gives_what_calls_for_single_images_give(branched):
    graph = InferenceGraph(n_nodes=2).fit(branched)
    together = graph.explain(branched[:6])
    for i, actual in enumerate(together):
        (alone,) = graph.explain(branched[i])
        assert list(alone.nodes) == list(actual.nodes)
        for key, node in alone.nodes(data=True):
            for name in set(node) & {"influence", "effect"}:
                assert node[name] == pytest.approx(actual.nodes[key][name], abs=1e-4)


def test_networks_that_branch_on_values_give_the_same(branched):
    images = images_of()
    branching = words_of(Branching().eval(), BRANCHES, images)
    for layer in BRANCHES:
        np.testing.assert_array_equal(branching.words[layer], branched.words[layer])
    first, second = (InferenceGraph(n_nodes=2).fit(words) for words in (branching, branched))
    np.testing.assert_allclose(first.transform(branching), second.transform(branched), atol=1e-4)
    for one, other in zip(first.explain(branching[:5]), second.explain(branched[:5]), strict=True):
        assert list(one.nodes) == list(other.nodes)
        for key, node in one.nodes(data=True):
            if "effect" in node:
                assert node["effect"] == pytest.approx(other.nodes[key]["effect"], abs=1e-4)


@pytest.mark.parametrize("n_outputs", [1, 2])
def test_two_classes(n_outputs):
    """One logit, and two of which the first is 0, are the same decision."""
    images = images_of(30)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.n_outputs = Net(1), n_outputs

        def forward(self, x):
            z = self.body(x)
            return z if self.n_outputs == 1 else torch.cat([torch.zeros_like(z), z], 1)

    words = words_of(Two().eval(), ["body.top"], images)
    actual = InferenceGraph(n_nodes=2).fit(words).explain(words[:5])
    with torch.no_grad():
        logits = Net(1)(torch.as_tensor(images[:5]))[:, 0].double()
    for logit, graph in zip(logits.tolist(), actual, strict=True):
        assert graph.graph["target"] == (logit > 0)
        assert graph.graph["margin"] == pytest.approx(abs(logit), abs=1e-5)


def test_words_without_a_network(branched):
    arrays = without_network(branched)
    auto = InferenceGraph().fit(arrays)
    assert auto.evidence_ == auto.explain(arrays[:1])[0].graph["evidence"] == "counts"
    graph = InferenceGraph(evidence="influence")
    for call in (lambda: graph.fit(arrays), lambda: graph.fit(branched).explain(arrays[:1])):
        with pytest.raises(ValueError, match="no network, from which"):
            call()


@pytest.mark.filterwarnings("ignore:Effective receptive fields cannot be measured")
def test_networks_without_gradients_or_scores_are_named():
    images = images_of(20)
    words = words_of(NoGradient().eval(), ["top"], images)
    with pytest.raises(ValueError, match="has no gradient in this layer"):
        InferenceGraph().fit(words).explain(words[:1])
    names, decide = ["a", "b", "c", "d"], lambda outputs: outputs[0].argmax(1)
    words = words_of(Tuple().eval(), ["top"], images, decision=decide, class_names=names)
    with pytest.raises(ValueError, match="the network returns a tuple"):
        InferenceGraph().fit(words).explain(words[:1])
    words = words_of(NETWORK, ["top"], images, decision=lambda outputs: outputs.argmin(1), class_names=names)
    with pytest.raises(ValueError, match="which must be the class of the largest score"):
        InferenceGraph().fit(words).explain(words[:1])
